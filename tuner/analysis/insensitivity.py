"""Does anything matter? Trials that differ no more than one trial's own noise say: nothing that was searched."""

import numpy as np
import pandas as pd

from tuner.analysis.evidence import MINIMUM_COMPLETE, best_with
from tuner.analysis.finding import Finding
from tuner.analysis.late_variance import late_noise
from tuner.analysis.question import Question
from tuner.analysis.study_frames import StudyFrames

SAME = 1.0  # [P] noises of an evaluation: a spread of all trials below is none
DIFFERENT = 2.0  # [P] noises: a larger one is real
MOST = 200  # [P] trials whose late noise is looked at
NORMAL_QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution

_QUESTION = Question(
    "insensitivity",
    {"same_in_noises": SAME, "different_in_noises": DIFFERENT, "minimum_complete": MINIMUM_COMPLETE},
    {
        "insensitive": "Nothing that was searched matters at this length: fix it at the simplest values, and search "
        "other hyperparameters or wider ranges.",
        "inconclusive": "Train one point again with fresh seeds to learn the noise of a trial (B31).",
    },
    urgent=("insensitive",),
)


def insensitivity_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row: trials, spread (of the best values of all completed trials, by their quartiles), good_spread (of the
    better half), noise (of one evaluation late in training, median), ratio (spread over noise).
    """
    trials, _, curves = best_with(frames, frames.study.objective.metric, top=MOST)
    values = frames.complete["best_value"].to_numpy(dtype=np.float64)
    sign = 1.0 if frames.study.objective.direction == "minimize" else -1.0
    better = np.sort(sign * values)[: max(2, len(values) // 2)]
    noise = float(np.median(late_noise(curves))) if len(trials) >= MINIMUM_COMPLETE else float("nan")
    spread = _spread(values)
    ratio = spread / noise if noise > 0 else float("inf") if spread > 0 else float("nan")
    row = (len(values), spread, _spread(better), noise, float("nan") if np.isnan(noise) else ratio)
    return pd.DataFrame([row], columns=["trials", "spread", "good_spread", "noise", "ratio"])


def insensitivity_finding(frames: StudyFrames) -> Finding:
    """insensitive, sensitive or inconclusive. Without replicates the noise of an evaluation stands for trial noise."""
    table = insensitivity_frame(frames)
    ratio = float(table["ratio"].iloc[0])
    known = len(frames.complete) >= MINIMUM_COMPLETE and not np.isnan(ratio)
    verdict = "inconclusive"
    if known and ratio <= SAME:
        verdict = "insensitive"
    elif known and ratio >= DIFFERENT:
        verdict = "sensitive"
    row = table.iloc[0]
    summary = (
        f"The best values of {int(row['trials'])} completed trials spread by {row['spread']:.3g} (the better half by "
        f"{row['good_spread']:.3g}); one evaluation varies by {row['noise']:.3g} late in training."
    )
    caveats = ("Seeds may add noise that evaluations of one trial do not show (B31).",) if known else ()
    return _QUESTION.answer(frames, verdict, summary, table, caveats=caveats)


def _spread(values: np.ndarray) -> float:
    """A standard deviation that a few bad trials do not make."""
    if len(values) < 2:
        return float("nan")
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / NORMAL_QUARTILES)
