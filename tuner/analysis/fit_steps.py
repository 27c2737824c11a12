"""When each trial of a constant-learning-rate sweep first fitted the training set, and for good (A24, D5-D7).

The training metric is that of the whole split (or a fixed part of it) in eval mode without penalty terms (D6). A
fit counts when it is sustained: met at SUSTAINED evaluations in a row, or at the last one. Its step is known only
to lie after the last unfit evaluation and at or before the first fit one.
"""

from typing import Any

import numpy as np
import pandas as pd

from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import FitCriterion
from tuner.errors import DeclarationError

SUSTAINED = 2  # [P] fitted evaluations in a row that count as a fit; one lucky one does not (D7)
FIT_COLUMNS = (
    "trial", "learning_rate", "state", "seed", "crossed_at", "last_unfit", "first_fit", "final_value",
    "shortfall", "late_improvement",
)  # fmt: skip


def fit_steps_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a trial, ascending by learning rate.

    Columns: trial, learning_rate, state, seed, crossed_at (first fitted evaluation, lucky or not), last_unfit and
    first_fit (the interval (last_unfit, first_fit] holds the step of the sustained fit; <NA> where there is none),
    final_value (the training metric at the last evaluation), shortfall (how far that is from a fit), and
    late_improvement (how much nearer the last quarter came than the third, as a share of it).
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


def _row(frames: StudyFrames, criterion: FitCriterion, trial: Any) -> tuple[object, ...]:
    curve = frames.curve(trial.trial, criterion.metric)
    steps = curve["step"].to_numpy(dtype=np.int64)
    values = curve["value"].to_numpy(dtype=np.float64)
    fitted = np.array([criterion.met(float(value)) for value in values], dtype=bool)
    first = first_sustained(fitted) if trial.state == "complete" else None
    crossed = int(steps[fitted.argmax()]) if fitted.any() else pd.NA
    interval = (pd.NA, pd.NA) if first is None else (int(steps[first - 1]) if first else 0, int(steps[first]))
    distance = values - criterion.threshold if criterion.side == "at_most" else criterion.threshold - values
    final = (float(values[-1]), float(distance[-1])) if len(values) else (np.nan, np.nan)
    rate = float(trial.learning_rate)
    return trial.trial, rate, trial.state, trial.seed, crossed, *interval, *final, _late_improvement(distance)


def _late_improvement(distance: np.ndarray) -> float:
    quarter = len(distance) // 4
    if quarter == 0:
        return float("nan")
    third, last = distance[-2 * quarter : -quarter].mean(), distance[-quarter:].mean()
    return float((third - last) / abs(third)) if third else 0.0


def first_sustained(fitted: np.ndarray) -> int | None:
    """Index of the first evaluation of a run of SUSTAINED fits, or of a last one that fits; None if there is none."""
    for index in range(len(fitted)):
        run = fitted[index : index + SUSTAINED]
        if run.all() and (len(run) == SUSTAINED or index == len(fitted) - 1):
            return index
    return None
