"""When each trial of a constant-learning-rate sweep first fitted the training set, and for good (A24, D5-D7).

The training metric is that of the whole split (or a fixed part of it) in eval mode without penalty terms (D6). A
fit counts when it is sustained: met at SUSTAINED evaluations in a row, or at the last one. Its step is known only
to lie after the last unfit evaluation and at or before the first fit one.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.noise import Array, noise_of
from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import FitCriterion
from tuner.errors import DeclarationError

SUSTAINED = 2  # [P] fitted evaluations in a row that count as a fit; one lucky one does not (D7)
FIT_COLUMNS = (
    "trial", "learning_rate", "state", "seed", "crossed_at", "last_unfit", "first_fit", "final_value",
    "shortfall", "late_improvement", "late_noise", "reason",
)  # fmt: skip


def fit_steps_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a trial, ascending by learning rate.

    Columns: trial, learning_rate, state, seed, crossed_at (first fitted evaluation, lucky or not), last_unfit and
    first_fit (the interval (last_unfit, first_fit] holds the step of the sustained fit; <NA> where there is none),
    final_value (the training metric at the last evaluation), shortfall (how far that is from a fit; NaN where that
    is not finite), late_improvement (how much nearer the last quarter came than the third, as a share of it),
    late_noise (the standard deviation that noise gives this share), reason (why it is infeasible or failed).
    Raises DeclarationError without a fit criterion.
    """
    criterion = frames.study.fitted_when
    if criterion is None:
        raise DeclarationError(
            "a sweep needs to know when the training set is fitted; declare fitted_when = "
            "at_most('training/error_rate', 0.0) in the workload"
        )
    rows = [_row(frames, criterion, trial) for trial in frames.trials.itertuples(index=False)]
    table = pd.DataFrame(rows, columns=list(FIT_COLUMNS))
    for name in ("crossed_at", "last_unfit", "first_fit"):
        table[name] = table[name].astype("Int64")
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
    return trial.trial, float(trial.learning_rate), trial.state, trial.seed, *found, trial.reason


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


def first_sustained(fitted: NDArray[np.bool_]) -> int | None:
    """Index of the first evaluation of a run of SUSTAINED fits, or of a last one that fits; None if there is none."""
    for index in range(len(fitted)):
        run = fitted[index : index + SUSTAINED]
        if run.all() and (len(run) == SUSTAINED or index == len(fitted) - 1):
            return index
    return None
