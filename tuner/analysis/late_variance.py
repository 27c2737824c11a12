"""Step-to-step variance late in training, against what tells the best trials apart (B26)."""

import numpy as np
import pandas as pd

from tuner.analysis.evidence import best_with
from tuner.analysis.finding import Finding
from tuner.analysis.levels import Array
from tuner.analysis.question import Question
from tuner.analysis.study_frames import StudyFrames

LATE = 0.2  # [P] the last part of the evaluations (B26)
MINIMUM_DIFFERENCES = 4  # evaluations in it that make a standard deviation
TOP = 10  # [P] best trials whose distances are looked at
MINIMUM_TOP = 3  # [P] fewer have no distances
NOISY = 0.5  # [P] the noise of an evaluation over the typical distance of the top trials from the best

_QUESTION = Question(
    "late_variance",
    {"late_part": LATE, "top": TOP, "noisy": NOISY, "minimum_trials": MINIMUM_TOP},
    {
        "noisy": "Treat the top trials as tied: train them again with fresh seeds before one is chosen (B32). A larger "
        "batch, more validation data, a decaying learning rate or averaged weights reduce the variance (B26).",
        "inconclusive": f"Complete at least {MINIMUM_TOP} trials, each evaluated at least 20 times.",
    },
)


def late_noise(curves: Array) -> Array:
    """The noise of one evaluation of each curve (rows) in its last part: deviation of the differences / sqrt(2).

    A steady trend takes no part. NaN where fewer than four differences are there.
    """
    count = max(MINIMUM_DIFFERENCES + 1, round(LATE * curves.shape[1]))
    differences = np.diff(curves[:, -count:], axis=1)
    if differences.shape[1] < MINIMUM_DIFFERENCES:
        return np.full(len(curves), np.nan)
    return np.asarray(differences.std(axis=1, ddof=1) / np.sqrt(2.0))


def late_variance_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a top trial, best first: trial, best_value, late_noise, gap (to the best trial's value)."""
    trials, _, curves = best_with(frames, frames.study.objective.metric, top=TOP)
    table = trials[["trial", "best_value"]].copy()
    table["late_noise"] = late_noise(curves)
    table["gap"] = (table["best_value"] - table["best_value"].iloc[0]).abs() if len(table) else []
    return table


def late_variance_finding(frames: StudyFrames) -> Finding:
    """noisy, ok or inconclusive."""
    table = late_variance_frame(frames)
    known = len(table) >= MINIMUM_TOP and bool(table["late_noise"].notna().all())
    noise = float(table["late_noise"].median()) if known else float("nan")
    gap = float(table["gap"].iloc[1:].median()) if known else float("nan")
    verdict = "inconclusive" if not known else "noisy" if noise > NOISY * gap else "ok"
    summary = (
        f"Late in training one evaluation varies by {noise:.3g}; the next {len(table) - 1} trials lie {gap:.3g} from "
        "the best (median)."
        if known
        else "Too few top trials with enough evaluations late in training."
    )
    return _QUESTION.answer(frames, verdict, summary, table)
