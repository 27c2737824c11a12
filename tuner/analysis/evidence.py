"""What a question about curves needs, and its answer where a study has none."""

import numpy as np
import pandas as pd

from tuner.analysis.common_steps import Curves, common_curves
from tuner.analysis.curves import ranked_trials
from tuner.analysis.finding import Finding
from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import Objective

MINIMUM_CURVE = 3  # evaluations below which there is no curve to speak of
MINIMUM_COMPLETE = 5  # [P] completed trials below which a study says nothing as a whole


def split_metrics(objective: Objective) -> tuple[str, str]:
    """The selecting metric on the training and on the validation split."""
    return str(objective.measured.on("training")), str(objective.measured.on("validation"))


def has_curves(frames: StudyFrames) -> bool:
    """Whether any completed trial was evaluated often enough to have a curve of the objective."""
    mine = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
    counts = mine.groupby("trial").size()
    return bool((counts.reindex(frames.complete["trial"]).fillna(0) >= MINIMUM_CURVE).any())


def no_curves_finding(frames: StudyFrames, question: str) -> Finding:
    """The answer to every question about curves where there are none."""
    return Finding(
        question=question,
        subject=frames.study.name,
        verdict="no_curves",
        strength="none",
        summary=f"{_no_curve(frames)}, so nothing can be said.",
        evidence=pd.DataFrame(),
        thresholds={"minimum_curve": MINIMUM_CURVE},
        action=_for_a_curve(frames),
    )


def unfinished(frames: StudyFrames) -> int:
    """How many trials are waiting or running."""
    return int(frames.trials["state"].isin(["waiting", "running"]).sum())


def _no_curve(frames: StudyFrames) -> str:
    if len(frames.complete):
        return f"No completed trial has a curve of {frames.study.objective.metric}"
    left = unfinished(frames)
    return f"No trial has completed ({left} of {len(frames.trials)} {'is' if left == 1 else 'are'} waiting or running)"


def _for_a_curve(frames: StudyFrames) -> str:
    if len(frames.complete):
        return "Record the metric at regular steps, at least 20 times a trial (B40, D14)."
    return "Let trials complete, then ask again." if unfinished(frames) else "First find out why no trial completed."


def best_with(frames: StudyFrames, metric: str, *, top: int) -> tuple[pd.DataFrame, Curves]:
    """The best completed trials that have `metric` over the whole run, with their curves in the same order.

    Curves have the sign of the objective: less is better.
    """
    ranked = ranked_trials(frames).head(top)
    curves = common_curves(frames, ranked["trial"], metric)
    enough = curves.steps.size >= MINIMUM_CURVE
    there = curves.whole if enough else np.full(len(ranked), False)
    return ranked[there].reset_index(drop=True), curves.rows(there)
