"""The learning rates of trials: how much of the rate is left in a part of the run (D9, D47), and the warmup (D34).

Where the rate is (almost) zero, a flat curve is not evidence.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tuner.analysis.noise import Array
from tuner.analysis.study_frames import StudyFrames
from tuner.design.names import Name

LOGGED = ("lr", "learning_rate")  # metrics under which loggers write the rate
DIED = 0.1  # [P] of its peak: a rate that is lower on average over a part of the run counts as zero there


def rate_left(frames: StudyFrames, trials: Iterable[int], start: float) -> Array:
    """Per trial the mean learning rate after the fraction `start` of the run, as a share of its peak.

    By the schedule that the trial was trained with, or by a rate that was logged; NaN where neither is known.
    """
    logged = frames.curves[frames.curves["metric"].isin(LOGGED)]
    budget = frames.study.budget.max_train_steps
    by_trial = {int(str(trial)): part for trial, part in logged.groupby("trial")} if len(logged) else {}
    known: dict[object, float] = {}  # most trials of a study share their schedule
    found = []
    for trial in trials:
        schedule = frames.schedules.get(int(trial))
        if schedule is not None:
            if schedule not in known:
                known[schedule] = _left(np.asarray(schedule.fractions()), start)
            found.append(known[schedule])
        elif int(trial) in by_trial:
            part = by_trial[int(trial)]
            rates, steps = part["value"].to_numpy(dtype=np.float64), part["step"].to_numpy(dtype=np.float64)
            found.append(_left(rates, start, steps / budget))
        else:
            found.append(np.nan)
    return np.asarray(found, dtype=np.float64)


def rate_died(frames: StudyFrames, trials: Iterable[int], start: float) -> bool | None:
    """Whether the rate of at least half of the trials has died after `start`; None where it is known of none."""
    left = rate_left(frames, trials, start)
    left = left[np.isfinite(left)]
    return bool((left < DIED).mean() >= 0.5) if len(left) else None


def _left(rates: Array, start: float, fractions: Array | None = None) -> float:
    """`fractions`: of the run, of each rate; evenly spread where they are not given."""
    if fractions is None:
        fractions = np.arange(1, len(rates) + 1) / max(len(rates), 1)
    known = np.isfinite(rates)
    late = known & (fractions > start)
    peak = rates[known].max() if known.any() else 0.0
    return float(rates[late].mean() / peak) if late.any() and peak > 0 else float("nan")


def warmup_steps_of(frames: StudyFrames, trials: pd.DataFrame) -> Array:
    """The warmup that each trial was trained with, in steps; 0 where its schedule is not known."""
    schedules = (frames.schedules.get(trial) for trial in trials["trial"])
    return np.array([schedule.warmup_steps if schedule else 0 for schedule in schedules], dtype=np.float64)


_NAMES = ("learning_rate", "lr", "learningrate", "base_lr", "max_lr", "peak_lr", "eta")


def is_learning_rate(name: str) -> bool:
    """Whether a hyperparameter is a learning rate by its name, or by the last part of it."""
    short = Name.of(name).short.lower()
    return short in _NAMES or short.endswith(("_lr", "learning_rate")) or short.startswith("lr_")
