"""The trials that a fit over the search space rests on, with their values: complete ones, and what pruned ones show.

A trial that a pruner stopped is at least as bad as it was then. It gets the rank that it had among the complete trials
when it was stopped: without it, a study of which two thirds were pruned would show only its best corner.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.noise import Array
from tuner.analysis.study_frames import StudyFrames, ranked_trials

MINIMUM_RANKED = 5  # [P] complete trials with a curve, below which a pruned one cannot be ranked
BEST, SPREAD = 100, 100  # [P] trials that are fitted at most: the best, and others spread over the ranking


def judged_trials(frames: StudyFrames) -> pd.DataFrame:
    """Rows of `frames.trials`, best first, with the columns `minimized` (the value, negated where it is maximized) and
    `pruned` (whether it is where the trial ranked when it was stopped).
    """
    ranked = ranked_trials(frames)
    sign = frames.study.objective.sign
    whole = ranked.assign(minimized=sign * ranked["best_value"].to_numpy(dtype=np.float64), pruned=False)
    stopped = frames.pruned[frames.pruned["best_value"].notna()]
    if stopped.empty or len(whole) < MINIMUM_RANKED:
        return whole
    values = _ranked_values(frames, whole, stopped["trial"].to_numpy(dtype=np.int64))
    added = stopped.assign(minimized=values, pruned=True)
    added = added[added["minimized"].notna()]
    if added.empty:
        return whole
    both = pd.concat([whole, added.astype(whole.dtypes.to_dict())])
    return both.sort_values("minimized", kind="stable").reset_index(drop=True)


def thinned(ranked: pd.DataFrame) -> pd.DataFrame:
    """At most BEST + SPREAD rows of a ranking."""
    if len(ranked) <= BEST + SPREAD:
        return ranked
    others = np.linspace(BEST, len(ranked) - 1, SPREAD).round().astype(int)
    return ranked.iloc[np.concatenate([np.arange(BEST), others])]


def bests_at(frames: StudyFrames, trials: NDArray[np.int64], steps: NDArray[np.int64]) -> Array:
    """The best value until each of some steps: a row a trial, a column a step; less is better, NaN before the first."""
    sign = frames.study.objective.sign
    curves = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
    curves = curves[np.isfinite(curves["value"].to_numpy(dtype=np.float64)) & curves["trial"].isin(trials)]
    numbers, measured = curves["trial"].to_numpy(dtype=np.int64), curves["step"].to_numpy(dtype=np.int64)
    bests = (sign * curves["value"]).groupby(curves["trial"]).cummin().to_numpy(dtype=np.float64)
    starts, ends = (np.searchsorted(numbers, trials, side=side) for side in ("left", "right"))
    found = np.full((len(trials), len(steps)), np.nan)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        places = np.searchsorted(measured[start:end], steps, side="right") - 1
        found[row, places >= 0] = bests[start:end][places[places >= 0]]
    return found


def _ranked_values(frames: StudyFrames, whole: pd.DataFrame, stopped: NDArray[np.int64]) -> Array:
    """The final value of the rank that each pruned trial had among the complete ones at its last evaluation.

    Beyond the worst of them as much further as it was then; NaN where they have no evaluation so early.
    """
    curves = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
    curves = curves[np.isfinite(curves["value"].to_numpy(dtype=np.float64))]
    last = curves.drop_duplicates("trial", keep="last").set_index("trial")["step"].reindex(stopped)
    steps = np.unique(last.dropna().to_numpy(dtype=np.int64))
    final = whole["minimized"].to_numpy(dtype=np.float64)
    then = bests_at(frames, whole["trial"].to_numpy(dtype=np.int64), steps)
    own = bests_at(frames, stopped, steps)
    found = np.full(len(stopped), np.nan)
    for place, step in enumerate(last):
        if step != step:
            continue
        column = int(np.searchsorted(steps, step))
        known = np.isfinite(then[:, column])
        if known.sum() >= MINIMUM_RANKED:
            found[place] = _of_rank(float(own[place, column]), then[known, column], final[known])
    return found


def _of_rank(value: float, then: Array, final: Array) -> float:
    """The final value where `value` ranks among those of the complete trials `then`."""
    early, ended = np.sort(then), np.sort(final)
    return float(np.interp(value, early, ended) + max(0.0, value - early[-1]))
