"""The trials that "always" and "consistently" speak about (D11), and their curves as a matrix."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.curves import ranked_trials
from tuner.analysis.levels import Array, noise_of
from tuner.analysis.study_frames import StudyFrames

GOOD_SHARE = 1 / 3  # [P] of the completed trials, by best value, are candidates for good
GOOD_AT_LEAST = 7  # [P] candidates, where there are as many: with 5, short curves stay inconclusive too often
GOOD_IMPROVEMENT = 0.5  # [P] a good trial made at least this share of the best trial's improvement
_NOISES = 4.0  # [P] but so many noises of an evaluation never tell two trials apart


def good_trials(frames: StudyFrames) -> pd.DataFrame:
    """Rows of the good trials, best first.

    The best third of the completed trials (at least 7), without hopeless ones: those that made less than half of
    the improvement that the best trial made over the worst first evaluation.
    """
    ranked = ranked_trials(frames)
    candidates = ranked.head(max(GOOD_AT_LEAST, math.ceil(GOOD_SHARE * len(ranked))))
    steps, curves = curve_matrix(frames, candidates["trial"])
    if candidates.empty or steps.size < 3:
        return candidates
    sign = 1.0 if frames.study.objective.direction == "minimize" else -1.0
    values = sign * candidates["best_value"]
    improvement = float(np.nanmax(curves[:, 0])) - values.iloc[0]
    reach = max((1.0 - GOOD_IMPROVEMENT) * improvement, _NOISES * float(np.nanmedian(noise_of(curves))))
    within: pd.DataFrame = candidates[values <= values.iloc[0] + reach]
    return within


def curve_matrix(frames: StudyFrames, trials: pd.Series, metric: str | None = None) -> tuple[Array, Array]:
    """The steps, and the curves of `trials` (rows in their order), negated where the objective is maximized.

    Of the objective's metric, or another one that has its direction. What is not finite, or was not evaluated, is NaN.
    Only evaluations at equal distances: a share of the columns is a share of the budget.
    """
    objective, curves, budget = frames.study.objective, frames.curves, frames.study.budget
    places, rows = _rows_of(frames, trials.to_numpy(dtype=np.int64), metric or objective.metric)
    if budget.early:
        even = np.isin(curves["step"].to_numpy()[rows], budget.even_steps)
        places, rows = places[even], rows[even]
    steps, columns = np.unique(curves["step"].to_numpy(dtype=np.float64)[rows], return_inverse=True)
    values = curves["value"].to_numpy(dtype=np.float64)[rows]
    matrix = np.full((len(trials), len(steps)), np.nan)
    matrix[places, columns] = np.where(np.isfinite(values), values, np.nan)
    return steps, matrix if objective.direction == "minimize" else -matrix


def _rows_of(frames: StudyFrames, trials: NDArray[np.int64], metric: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the measurements of a metric of some trials are: the place of the trial among them, and the row."""
    sorted_trials = frames.curves["trial"].to_numpy()
    starts, ends = (np.searchsorted(sorted_trials, trials, side=side) for side in ("left", "right"))
    counts = ends - starts
    places = np.repeat(np.arange(len(trials)), counts)
    # Of each trial one row after the other: the start of its rows, and how many of them came before.
    rows = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    of_metric = (frames.curves["metric"].iloc[rows] == metric).to_numpy()
    return places[of_metric], rows[of_metric]
