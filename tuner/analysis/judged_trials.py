"""The trials that a fit over the search space rests on, with their values: complete ones, and what pruned ones show.

A trial that a pruner stopped is at least so bad. Where it ranked among the complete trials when it was stopped, there
it is taken to rank at the end: without it, a study of which two thirds were pruned would know only its best corner.
"""

import numpy as np
import pandas as pd

from tuner.analysis.curves import ranked_trials
from tuner.analysis.scores import Array
from tuner.analysis.study_frames import StudyFrames

PRUNED = "pruned"  # what the reason of a trial begins with that a pruner stopped
MINIMUM_RANKED = 5  # [P] complete trials with a curve, below which a pruned one cannot be ranked
BEST, SPREAD = 100, 100  # [P] at most so many trials are fitted: the best, and others spread over the ranking


def judged_trials(frames: StudyFrames) -> pd.DataFrame:
    """Rows of `frames.trials`, best first, with the columns `minimized` (the value, negated where it is maximized) and
    `pruned` (whether it is where the trial ranked when it was stopped).
    """
    ranked = ranked_trials(frames)
    sign = 1.0 if frames.study.objective.direction == "minimize" else -1.0
    whole = ranked.assign(minimized=sign * ranked["best_value"].to_numpy(dtype=np.float64), pruned=False)
    stopped = frames.trials[(frames.trials["state"] == "cancelled") & frames.trials["best_value"].notna()]
    stopped = stopped[stopped["reason"].astype(str).str.startswith(PRUNED)]
    if stopped.empty or len(whole) < MINIMUM_RANKED:
        return whole
    values = _ranked_values(frames, whole, stopped["trial"].to_numpy(dtype=np.int64), sign)
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


def _ranked_values(frames: StudyFrames, whole: pd.DataFrame, stopped: Array, sign: float) -> Array:
    """The final value of the rank that each pruned trial had among the complete ones at its last evaluation.

    Beyond the worst of them as much further as it was then; NaN where they have no evaluation so early.
    """
    curves = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
    curves = curves[np.isfinite(curves["value"].to_numpy(dtype=np.float64))]
    best_so_far = (sign * curves["value"]).groupby(curves["trial"]).cummin()
    curves = curves.assign(value=best_so_far)
    final = whole.set_index("trial")["minimized"]
    measured = curves[curves["trial"].isin(final.index)]
    last = curves.drop_duplicates("trial", keep="last").set_index("trial").reindex(stopped)
    found = np.full(len(stopped), np.nan)
    at: dict[float, pd.Series] = {}
    for place, (step, value) in enumerate(zip(last["step"], last["value"], strict=True)):
        if step != step:
            continue
        if step not in at:
            before = measured[measured["step"] <= step]
            at[step] = before.drop_duplicates("trial", keep="last").set_index("trial")["value"]
        if len(at[step]) >= MINIMUM_RANKED:
            found[place] = _of_rank(value, at[step], final)
    return found


def _of_rank(value: float, then: pd.Series, final: pd.Series) -> float:
    """The final value where `value` ranks among those of the complete trials `then`."""
    early = np.sort(then.to_numpy(dtype=np.float64))
    ended = np.sort(final.reindex(then.index).to_numpy(dtype=np.float64))
    return float(np.interp(value, early, ended) + max(0.0, value - early[-1]))
