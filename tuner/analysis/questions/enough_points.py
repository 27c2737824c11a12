"""Were there enough points? How many trials come close to the best, and how good the best of fewer would be (B21)."""

import numpy as np
import pandas as pd

from tuner.analysis.elsewhere import more_trials
from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.study_frames import MINIMUM_COMPLETE, StudyFrames, ranked_trials

SPARSE = 3  # [P] trials close to the best below which the points are sparse (B21)
TOLERANCE = 0.25  # [P] of the gap from the best trial to the median one: nearer trials are close to the best
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

QUESTION = Question(
    name="enough_points",
    sentence="Were there enough configurations?",
    order=110,
    verdicts=(
        Verdict("enough", "fine"),
        Verdict(
            "sparse",
            "act",
            "Train more configurations (trials=... may grow), or narrow the space around the best one and run again.",
        ),
        Verdict("inconclusive", "open", f"Complete at least {MINIMUM_COMPLETE} trials, then ask again."),
    ),
    thresholds={"sparse": SPARSE, "tolerance": TOLERANCE, "minimum_complete": MINIMUM_COMPLETE},
    needs=("search",),
    ask=lambda frames: enough_points_finding(frames),
    plot="best-of-n",
    rules=("B21",),
    uneven="many good trials may lie close together, which does not show that the space is covered",
    pruned="they are not among the completed ones",
    weakened=True,
    elsewhere=lambda frames, finding: _in_own_code(frames, finding),
)


def best_of_n_frame(frames: StudyFrames) -> pd.DataFrame:
    """The best of n trials drawn with replacement from the completed ones, for n = 1 to all of them.

    Columns: n, then the quantiles q05, q25, median, q75, q95 of the best value; exact, nothing is simulated. At most
    100 counts n, spread evenly where there are more trials.
    """
    values = ranked_trials(frames)["best_value"].to_numpy(dtype=np.float64)
    columns = ["n", "q05", "q25", "median", "q75", "q95"]
    if not len(values):
        return pd.DataFrame(columns=columns)
    # The best of n is worse than the k-th of N values with probability (1 - k / N)^n.
    counts = np.unique(np.linspace(1, len(values), min(len(values), 100)).round().astype(int))
    worse = 1.0 - np.arange(1, len(values) + 1) / len(values)
    rows = []
    for n in counts:
        reached = 1.0 - worse**n
        # Towards worse values by rank: quantile 5 % is the lucky side whatever the direction.
        places = np.searchsorted(reached, np.asarray(QUANTILES) - 1e-12)
        rows.append((int(n), *values[np.minimum(places, len(values) - 1)]))
    return pd.DataFrame(rows, columns=columns)


def num_close(frames: StudyFrames) -> int:
    """Completed trials within TOLERANCE of the best."""
    values = ranked_trials(frames)["best_value"].to_numpy(dtype=np.float64)
    if not len(values):
        return 0
    reach = TOLERANCE * abs(float(np.median(values)) - values[0])
    return int((np.abs(values - values[0]) <= reach).sum())


def enough_points_finding(frames: StudyFrames) -> Finding:
    """enough, sparse or inconclusive; no answer holds for all studies (B21)."""
    complete, close, table = len(frames.complete), num_close(frames), best_of_n_frame(frames)
    verdict = "inconclusive" if complete < MINIMUM_COMPLETE else "sparse" if close < SPARSE else "enough"
    come = "comes" if close == 1 else "come"
    summary = (
        f"{close} of {complete} trials {come} close to the best, within {TOLERANCE:.0%} of the gap between the best "
        f"and the median one.{_luck(table)}"
    )
    return QUESTION.answer(frames.study.name, verdict, summary, table)


def _luck(table: pd.DataFrame) -> str:
    if len(table) < MINIMUM_COMPLETE:
        return ""
    half = table.iloc[(table["n"] - table["n"].iloc[-1] / 2).abs().argmin()]
    return (
        f" With only {int(half['n'])} trials, the best would typically be "
        f"{min(half['q25'], half['q75']):.4g} to {max(half['q25'], half['q75']):.4g}."
    )


def _in_own_code(frames: StudyFrames, finding: Finding) -> str:
    """The next step for the owner of an imported study."""
    if finding.verdict != "sparse":
        return finding.action
    return f"Train more trials ({more_trials(frames)}), or narrow the ranges around the best one first."
