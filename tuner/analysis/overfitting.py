"""Problematic overfitting of the best trials: validation rises from its best while training improves (A5, B25).

Retrospective selection protects the value, not the comparison: a study of overfitting trials prefers whatever
regularizes, even a learning rate that is too small.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.evidence import MINIMUM_CURVE, split_metrics
from tuner.analysis.finding import Finding
from tuner.analysis.good_trials import curve_matrix, good_trials
from tuner.analysis.isolation import best_of_each_value
from tuner.analysis.levels import MIDDLE, Array, material_gain, noise_of, running_mean, slow_noise
from tuner.analysis.question import Question
from tuner.analysis.study_frames import StudyFrames

RISE = 3.0  # [P] noises: a larger rise of smoothed validation from its best is overfitting (A5)
MINIMUM_STRONG = 3  # [P] trials for a strong verdict
FEW = 5  # [P] of the good trials, the best ones, are looked at
MANY = 0.5  # [P] share of them that makes it the study's problem

_QUESTION = Question(
    "overfitting",
    {"overfitting_in_noises": RISE, "few_best_trials": FEW, "many": MANY},
    {
        "overfitting": "Add or tune regularization and run again before configurations are compared (B25).",
        "inconclusive": "Record the selecting metric on the training and on the validation split, at every evaluation.",
    },
    urgent=("overfitting",),
)


def overfitting_rises(training: Array, validation: Array, slow: float = 1.0) -> tuple[Array, NDArray[np.bool_]]:
    """Per curve how far smoothed validation ends above its best, in noises, and whether training improved meanwhile.

    `slow`: how much noisier means of neighbouring evaluations are than independent noise would make them.
    """
    smooth_training, smooth = running_mean(training, MIDDLE), running_mean(validation, MIDDLE)
    rows, best = np.arange(len(smooth)), smooth.argmin(axis=1)
    scale = slow * np.maximum(noise_of(validation), material_gain(validation))
    risen = smooth[:, -1] - smooth[rows, best]
    rise = np.divide(risen, scale, out=np.zeros_like(risen), where=scale > 0)
    return rise, (rise > RISE) & (smooth_training[:, -1] <= smooth_training[rows, best])


def overfitting_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row for each of the best good trials, and for the best trial of each scientific value.

    Columns: trial, best_value, value (the scientific value it is best for, "" for the others), rise (of smoothed
    validation from its best to its end, in noises of an evaluation), overfitting. Trials without curves of both
    splits are left out.
    """
    good = good_trials(frames).head(FEW)[["trial", "best_value"]].assign(value="")
    trials = pd.concat([good, best_of_each_value(frames)], ignore_index=True)
    trials = trials.drop_duplicates("trial", keep="last").sort_index()
    metrics = split_metrics(frames.study.objective)
    training, validation = (curve_matrix(frames, trials["trial"], metric)[1] for metric in metrics)
    if min(training.shape[1], validation.shape[1]) < MINIMUM_CURVE:
        return trials.head(0).assign(rise=[], overfitting=[])
    known = np.isfinite(training).all(axis=1) & np.isfinite(validation).all(axis=1)
    validation = validation[known]
    rise, overfitting = overfitting_rises(training[known], validation, slow_noise(validation) if known.any() else 1.0)
    return trials[known].assign(rise=rise, overfitting=overfitting).reset_index(drop=True)


def overfitting_finding(frames: StudyFrames) -> Finding:
    """overfitting, ok or inconclusive (no curves of both splits)."""
    table = overfitting_frame(frames)
    share = float(table["overfitting"].mean()) if len(table) else 0.0
    verdict = "inconclusive" if table.empty else "overfitting" if share >= MANY else "ok"
    named = ", ".join(f"trial {trial}" for trial in table.loc[table["overfitting"].astype(bool), "trial"])
    summary = (
        f"{int(table['overfitting'].sum())} of the {len(table)} best trials overfit{f': {named}' if named else ''}."
        if len(table)
        else "No good trial has curves of the selecting metric on both splits."
    )
    found = _QUESTION.answer(
        frames,
        verdict,
        summary,
        table,
        strength="strong" if len(table) >= MINIMUM_STRONG else "moderate",
        caveats=tuple(_caveats(frames, verdict, named)),
    )
    return replace(found, needs_action=found.needs_action and not _about_regularization(frames))


def _about_regularization(frames: StudyFrames) -> bool:
    """Where the regularizers are what is asked about, overfitting is an answer and not a problem (B25)."""
    families = {h.family for h in frames.study.hyperparameters if h.name in frames.study.scientific}
    return "regularization" in families


def _caveats(frames: StudyFrames, verdict: str, named: str) -> list[str]:
    if verdict == "overfitting" and _about_regularization(frames):
        return ["Regularization is what this round is about, so this is an answer and no problem (B25)."]
    if verdict == "ok" and named:
        return [f"Overfitting in {named}: look at the curve before such a trial is taken further (A5)."]
    return []
