"""What validation did while a trial of a sweep trained: where it stopped improving, and whether it got worse (A5).

A training set that nothing fits is no reason to train longer where validation was best long before. Evaluations of a
sweep are dense at first, and where validation is best early they are needed: so all of them are used, wherever they
lie, and levels are running medians, which one lucky evaluation does not move (D10).
"""

import numpy as np
import pandas as pd

from tuner.analysis.evidence import split_metrics
from tuner.analysis.noise import Array
from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import FitCriterion

WIDTH = 5  # [P] evaluations in a running median
END = 0.9  # [P] of the steps: the median of the evaluations beyond is where a curve ended
RISE = 3.0  # [P] noises of an evaluation by which validation that got worse ends above its best
MATERIAL_RISE = 0.05  # [P] and at least so much of what it had gained by then
WITHIN = 1.0  # [P] noises above the best level at which validation counts as no longer improving
NORMAL = 1.4826  # standard deviations of a normal number in the median of its size
SEEN_COLUMNS = ("validation_best", "validation_step", "validation_end", "training_then", "training_end", "overfits")


def validation_seen(frames: StudyFrames, trial: int, criterion: FitCriterion) -> tuple[object, ...]:
    """`SEEN_COLUMNS` of one trial.

    validation_best: the best level of the metric that selects; validation_step: where it stopped improving (the first
    evaluation within noise of that level; where it got worse afterwards, the best one); validation_end: the level at
    the end. training_then and training_end: a value of the fit criterion's metric that was kept from validation_step
    on, and one that was kept at the end. overfits: validation got worse from its best while training improved (<NA>
    where validation was not measured).
    """
    objective = frames.study.objective
    sign = 1.0 if objective.direction == "minimize" else -1.0
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
