"""Problematic overfitting of the best trials: validation rises from its best while training improves (A5, B25).

Retrospective selection protects the value, not the comparison: a study of overfitting trials prefers anything that
regularizes, even a learning rate that is too small.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.good_trials import good_in_words, good_trials, noise_model_of
from tuner.analysis.levels import MIDDLE, material_gain, noise_model, running_mean
from tuner.analysis.noise import Array, noise_of, without_spikes
from tuner.analysis.questions.isolation import best_of_each_value
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import MINIMUM_CURVE, common_curves, split_metrics, unreported

RISE = 3.0  # [P] times the evaluation noise: a larger rise of smoothed validation from its best is overfitting (A5)
LONE_RISE = 5.0  # [P] the same for a single trial among several
MINIMUM_STRONG = 3  # [P] trials for a strong verdict
FEW = 5  # [P] best good trials that are judged (A1)
MANY = 0.5  # [P] share of them from which overfitting is a problem of the study

QUESTION = Question(
    name="overfitting",
    sentence="Do the best trials overfit?",
    order=140,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict(
            "some_overfit",
            "told",
            "Look at the curves of these trials before one of them is promoted (A5); regularization, or the best "
            "checkpoint instead of the last, may help (B25).",
        ),
        Verdict(
            "overfitting",
            "act",
            "Add or tune regularization and run again before configurations are compared (B25).",
        ),
        Verdict(
            "inconclusive",
            "open",
            "Record the selecting metric on the training and on the validation split, over the whole run.",
        ),
    ),
    thresholds={"overfitting_in_noises": RISE, "few_best_trials": FEW, "many": MANY},
    needs=("curves",),
    ask=lambda frames: overfitting_finding(frames),
    plot="curves",
    rules=("A5", "B25"),
    pruned="they take no part here",
)


def overfitting_rises(training: Array, validation: Array, unit: Array | None = None) -> tuple[Array, NDArray[np.bool_]]:
    """Per curve how far smoothed validation ends above its best, and whether training improved meanwhile.

    The distance is in units of the evaluation noise.

    `unit`: the evaluation noise of each validation curve late in the run; as `noise_model` has it where not given.
    """
    fractions = np.arange(1, validation.shape[1] + 1) / max(validation.shape[1], 1)
    late = noise_model(validation, fractions).late() if unit is None else unit
    smooth_training = running_mean(without_spikes(training, noise_of(training)), MIDDLE)
    smooth = running_mean(without_spikes(validation, late), MIDDLE)
    rows, best = np.arange(len(smooth)), smooth.argmin(axis=1)
    scale = np.maximum(late, material_gain(validation))
    risen = smooth[:, -1] - smooth[rows, best]
    rise = np.divide(risen, scale, out=np.zeros_like(risen), where=scale > 0)
    overfits = (rise > RISE) & (smooth_training[:, -1] <= smooth_training[rows, best])
    alone = overfits.sum() == 1 and len(overfits) * MANY > 1  # one of many trials may rise so far by chance
    return rise, overfits & (rise > LONE_RISE) if alone else overfits


def overfitting_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row for each of the best good trials, and for the best trial of each scientific value.

    Columns: trial, best_value, value (the scientific value it is best for, "" for the others), rise (of smoothed
    validation from its best to its end, in units of the evaluation noise), overfitting. Trials without curves of both
    splits are left out.
    """
    good = good_trials(frames).head(FEW)[["trial", "best_value"]].assign(value="")
    trials = pd.concat([good, best_of_each_value(frames)], ignore_index=True)
    trials = trials.drop_duplicates("trial", keep="last").sort_index()
    training_metric, validation_metric = split_metrics(frames.study.objective)
    validation = common_curves(frames, trials["trial"], validation_metric)
    # Training is often logged more often: both are compared at the steps of validation.
    training = common_curves(frames, trials["trial"], training_metric, steps=validation.steps)
    if min(training.values.shape[1], validation.values.shape[1]) < MINIMUM_CURVE:
        return trials.head(0).assign(rise=[], overfitting=[])
    known = training.whole & validation.whole
    mine = validation.rows(known)
    unit = noise_model_of(frames, mine, validation_metric).late()
    rise, overfitting = overfitting_rises(training.values[known], mine.values, unit)
    return trials[known].assign(rise=rise, overfitting=overfitting).reset_index(drop=True)


def overfitting_finding(frames: StudyFrames) -> Finding:
    """overfitting, some_overfit, ok or inconclusive (no curves of both splits)."""
    table = overfitting_frame(frames)
    share = float(table["overfitting"].mean()) if len(table) else 0.0
    verdict = "overfitting" if share >= MANY else "some_overfit" if share > 0.0 else "ok"
    verdict = "inconclusive" if table.empty else verdict
    named = ", ".join(f"trial {trial}" for trial in table.loc[table["overfitting"].astype(bool), "trial"])
    summary = (
        f"{int(table['overfitting'].sum()) or 'None'} of the {len(table)} best trials overfit"
        f"{f': {named}' if named else ''} (of {good_in_words(frames)}). Overfitting means that validation ends more "
        f"than {RISE:g} times its noise above its best while training improves."
        if len(table)
        else f"None of the {good_in_words(frames)} has whole curves of the selecting metric on both splits"
        f"{unreported(frames)}."
    )
    found = QUESTION.answer(
        frames.study.name,
        verdict,
        summary,
        table,
        strength="strong" if len(table) >= MINIMUM_STRONG else "moderate",
        caveats=tuple(_caveats(frames, verdict)),
    )
    return replace(found, needs_action=found.needs_action and not _about_regularization(frames))


def _about_regularization(frames: StudyFrames) -> bool:
    """Whether regularizers are compared: then overfitting is an answer and not a problem (B25)."""
    families = {h.family for h in frames.study.hyperparameters if h.name in frames.study.scientific}
    return "regularization" in families


def _caveats(frames: StudyFrames, verdict: str) -> list[str]:
    if verdict in ("overfitting", "some_overfit") and _about_regularization(frames):
        return ["This round compares regularization, so overfitting is an answer and not a problem (B25)."]
    return []
