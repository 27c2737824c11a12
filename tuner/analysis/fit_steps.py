"""When each trial of a constant-learning-rate sweep first fitted the training set, and for good (A24, D5-D7).

The training metric is that of the whole split (or a fixed part of it) in eval mode without penalty terms (D6). A
fit counts when it is sustained: met at SUSTAINED evaluations in a row, or at the last one. Its step is known only
to lie after the last unfit evaluation and at or before the first fit one.

The table also has what validation did meanwhile (A5): a training set that no learning rate fits is no reason to train
longer where validation was best long before. Evaluations of a sweep are dense at first, and where validation is best
early they are needed, so all of them are used. Levels are running medians, which one lucky evaluation does not move
(D10).
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.noise import Array, noise_of
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import split_metrics
from tuner.design.objective import HOW_TO_DECLARE_A_FIT, FitCriterion
from tuner.errors import DeclarationError

SUSTAINED = 2  # [P] fitted evaluations in a row that count as a fit; one lucky one does not (D7)
MOST_DOUBLINGS = 20  # beyond these no projection is made
REMAINS = 0.1  # [P] a training metric that heads for less than this share of its distance heads for the criterion
_WINDOWS = ((0.2, 0.25), (0.4, 0.5), (0.8, 1.0))  # [P] of the steps, each twice as late as the one before


WIDTH = 5  # [P] evaluations in a running median
END = 0.9  # [P] of the steps: the median of the evaluations beyond is where a curve ended
RISE = 3.0  # [P] times the evaluation noise by which validation that got worse ends above its best
MATERIAL_RISE = 0.05  # [P] and at least so much of what it had gained by then
WITHIN = 1.0  # [P] times the noise above the best level, where validation counts as no longer improving
NORMAL = 1.4826  # standard deviations of a normal number in the median of its size
SEEN_COLUMNS = ("validation_best", "validation_step", "validation_end", "training_then", "training_end", "overfits")
FIT_COLUMNS = (
    "trial", "learning_rate", "state", "seed", "crossed_at", "last_unfit", "first_fit", "final_value",
    "shortfall", "late_improvement", "late_noise", "heads_for", "projected_steps", *SEEN_COLUMNS, "reason",
)  # fmt: skip


def fit_steps_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a trial, ascending by learning rate.

    Columns: trial, learning_rate, state, seed, crossed_at (first fitted evaluation, lucky or not), last_unfit and
    first_fit (the interval (last_unfit, first_fit] holds the step of the sustained fit; <NA> where there is none),
    final_value (the training metric at the last evaluation), shortfall (how far that is from a fit; NaN where that
    is not finite), late_improvement (how much nearer the last quarter came than the third, as a share of it),
    late_noise (the standard deviation that noise gives this share), heads_for (the value of the training metric that
    it approaches short of a fit, as its gains shrink with each doubling of the steps; NaN where none shows),
    projected_steps (where it would fit at that pace; <NA> where that is not known), the columns of
    `sweep_validation.SEEN_COLUMNS`, and reason (why it is infeasible or failed).
    Raises DeclarationError without a fit criterion.
    """
    criterion = frames.study.fitted_when
    if criterion is None:
        raise DeclarationError(
            "a sweep needs to know when the training set is fitted; declare fitted_when = "
            f"{HOW_TO_DECLARE_A_FIT} in the workload"
        )
    rows = [_row(frames, criterion, trial) for trial in frames.trials.itertuples(index=False)]
    table = pd.DataFrame(rows, columns=list(FIT_COLUMNS))
    for name in ("crossed_at", "last_unfit", "first_fit", "projected_steps", "validation_step"):
        table[name] = table[name].astype("Int64")
    table["overfits"] = table["overfits"].astype("boolean")
    return table.sort_values(["learning_rate", "trial"]).reset_index(drop=True)


def fit_interval(curve: pd.DataFrame, criterion: FitCriterion) -> tuple[int, int] | None:
    """(last unfit, first fit] of the sustained fit of one curve (columns step, value); None where there is none."""
    first = first_sustained(_met(curve, criterion))
    if first is None:
        return None
    steps = curve["step"].to_numpy(dtype=np.int64)
    return (int(steps[first - 1]) if first else 0, int(steps[first]))


def _row(frames: StudyFrames, criterion: FitCriterion, trial: Any) -> tuple[object, ...]:
    curve = frames.curve(trial.trial, criterion.metric)
    fitted = _met(curve, criterion)
    crossed = int(curve["step"].iloc[int(fitted.argmax())]) if fitted.any() else pd.NA
    interval = fit_interval(curve, criterion) if trial.state == "complete" else None
    values = curve["value"].to_numpy(dtype=np.float64)
    final = float(values[-1]) if len(values) else np.nan
    distance = values - criterion.threshold if criterion.side == "at_most" else criterion.threshold - values
    shortfall = float(distance[-1]) if np.isfinite(final) else np.nan
    found = (crossed, *(interval or (pd.NA, pd.NA)), final, shortfall, *_late_improvement(distance))
    ahead = _ahead(curve["step"].to_numpy(dtype=np.float64), distance, criterion)
    seen = validation_seen(frames, int(trial.trial), criterion)
    return trial.trial, float(trial.learning_rate), trial.state, trial.seed, *found, *ahead, *seen, trial.reason


def _met(curve: pd.DataFrame, criterion: FitCriterion) -> NDArray[np.bool_]:
    return np.array([criterion.met(float(value)) for value in curve["value"]], dtype=bool)


def _late_improvement(distance: Array) -> tuple[float, float]:
    """The share by which the distance shrank from the third quarter to the last, and its noise."""
    quarter = len(distance) // 4
    if quarter == 0 or not np.isfinite(distance[-2 * quarter :]).all():
        return np.nan, np.nan
    third, last = float(distance[-2 * quarter : -quarter].mean()), float(distance[-quarter:].mean())
    if third == 0.0:
        return 0.0, 0.0
    noise = float(noise_of(distance[None, -2 * quarter :])[0]) if quarter >= 2 else 0.0
    return (third - last) / abs(third), noise * math.sqrt(2 / quarter) / abs(third)


def _ahead(steps: Array, distance: Array, criterion: FitCriterion) -> tuple[float, object]:
    """What the metric heads for short of a fit, and else the step at which it would fit; NaN and <NA> without one.

    From what it gained by the last doubling of the steps and by the one before: where each doubling brings a constant
    share of the one before, all that are still to come bring a sum that is known (Aitken's extrapolation).
    """
    shares = steps / steps[-1] if len(steps) else steps
    parts = [distance[(shares > low) & (shares <= high)] for low, high in _WINDOWS]
    if any(not len(part) or not np.isfinite(part).all() for part in parts):
        return np.nan, pd.NA
    early, middle, late = (float(np.median(part)) for part in parts)
    before, last = early - middle, middle - late
    if last <= 0.0 or late <= 0.0:
        return np.nan, pd.NA
    share = min(last / before, 1.0) if before > 0.0 else 1.0
    to_come = math.inf if share == 1.0 else last * share / (1.0 - share)
    if late - to_come > REMAINS * late:
        remaining = late - to_come
        return criterion.threshold + (remaining if criterion.side == "at_most" else -remaining), pd.NA
    if to_come <= late:
        return np.nan, pd.NA
    doublings = late / last if share == 1.0 else math.log(1.0 - late / to_come) / math.log(share)
    return np.nan, math.ceil(steps[-1] * 2.0 ** min(doublings, MOST_DOUBLINGS))


def first_sustained(fitted: NDArray[np.bool_]) -> int | None:
    """Index of the first evaluation of a run of SUSTAINED fits, or of a last one that fits; None if there is none."""
    for index in range(len(fitted)):
        run = fitted[index : index + SUSTAINED]
        if run.all() and (len(run) == SUSTAINED or index == len(fitted) - 1):
            return index
    return None


def validation_seen(frames: StudyFrames, trial: int, criterion: FitCriterion) -> tuple[object, ...]:
    """`SEEN_COLUMNS` of one trial.

    validation_best: the best level of the metric that selects; validation_step: where it stopped improving (the first
    evaluation within noise of that level; where it got worse afterwards, the best one); validation_end: the level at
    the end. training_then and training_end: a value of the fit criterion's metric that was kept from validation_step
    on, and one that was kept at the end. overfits: validation got worse from its best while training improved (<NA>
    where validation was not measured).
    """
    objective = frames.study.objective
    sign = objective.sign
    validation = frames.curve(trial, objective.metric)
    fitted = frames.curve(trial, criterion.metric)
    if min(len(validation), len(fitted)) < WIDTH or not _finite(validation) or not _finite(fitted):
        return np.nan, pd.NA, np.nan, np.nan, np.nan, pd.NA
    steps, values = _columns(validation)
    level = running_median(sign * values)
    noise = noise_around(sign * values)
    best = int(level.argmin())
    end = float(np.median(sign * values[steps > END * steps[-1]]))
    gained = max(float(level[0] - level[best]), 0.0)
    worse = end - level[best] > max(RISE * noise, MATERIAL_RISE * gained)
    overfits = bool(worse and _training_improved(frames, trial, criterion, steps[best]))
    # Where the best lies on a plateau is chance, but not where validation rises after it.
    step = steps[best if overfits else int((level <= level[best] + WITHIN * noise).argmax())]
    then, at_end = _kept(fitted, step, criterion), _kept(fitted, END * steps[-1], criterion)
    return sign * float(level[best]), int(step), sign * end, then, at_end, overfits


def running_median(values: Array) -> Array:
    """Centered medians of WIDTH values; at both ends of those that are there."""
    around = np.pad(values, WIDTH // 2, constant_values=np.nan)
    return np.asarray(np.nanmedian(np.lib.stride_tricks.sliding_window_view(around, WIDTH), axis=1))


def noise_around(values: Array) -> float:
    """The standard deviation of an evaluation around its running median, by the median of sizes."""
    return NORMAL * float(np.median(np.abs(values - running_median(values))))


def _training_improved(frames: StudyFrames, trial: int, criterion: FitCriterion, since: float) -> bool:
    """Whether training ended no worse than it was at a step: by the metric that selects, else by the criterion's."""
    name, _ = split_metrics(frames.study.objective)
    selecting = frames.curve(trial, name)
    if len(selecting) >= WIDTH and _finite(selecting):
        steps, values = _columns(selecting)
        values = values if frames.study.objective.direction == "minimize" else -values
    else:
        steps, values = _columns(frames.curve(trial, criterion.metric))
        values = values if criterion.side == "at_most" else -values
    level = running_median(values)
    then = level[int(np.searchsorted(steps, since).clip(0, len(steps) - 1))]
    return bool(np.median(values[steps > END * steps[-1]]) <= then)


def _kept(curve: pd.DataFrame, since: float, criterion: FitCriterion) -> float:
    """The level of a metric at a step, or a worse one of its neighbours: a value that two evaluations in a row met."""
    steps, values = _columns(curve)
    level = running_median(values)
    first = min(int(np.searchsorted(steps, since)), len(steps) - 2)
    kept = level[first : first + 2]
    return float(kept.max() if criterion.side == "at_most" else kept.min())


def _columns(curve: pd.DataFrame) -> tuple[Array, Array]:
    return curve["step"].to_numpy(dtype=np.float64), curve["value"].to_numpy(dtype=np.float64)


def _finite(curve: pd.DataFrame) -> bool:
    return bool(np.isfinite(curve["value"].to_numpy(dtype=np.float64)).all())
