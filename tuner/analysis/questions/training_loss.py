"""Does the training loss rise over training, without divergence (B28)? Then there is probably a bug."""

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.levels import MIDDLE, material_gain, running_mean
from tuner.analysis.noise import Array, without_spikes
from tuner.analysis.study_frames import StudyFrames, ranked_trials
from tuner.analysis.trial_curves import MINIMUM_CURVE, Curves, common_curves

RISE = 3.0  # [P] times the evaluation noise: a larger rise from the lowest level to the end counts
OF_DESCENT = 0.25  # [P] and at least this share of the earlier gain is lost again
SUSTAINED = 0.10  # [P] of the run: a shorter rise is a spike
MANY = 0.5  # [P] share of the completed trials whose training loss rises that looks like a bug
MINIMUM_STRONG = 5  # [P] trials for a strong answer
MINIMUM_TRIALS = 3  # [P] completed trials with training curves

QUESTION = Question(
    name="training_loss",
    sentence="Does the training loss rise?",
    order=170,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict(
            "rising",
            "act",
            "Look for a bug: wrong sign, stale data, a learning rate that grows; divergence is ruled out (B28).",
        ),
        Verdict(
            "inconclusive", "open", f"Record training/loss at every evaluation of at least {MINIMUM_TRIALS} trials."
        ),
    ),
    thresholds={
        "rise_in_noises": RISE,
        "of_descent": OF_DESCENT,
        "sustained": SUSTAINED,
        "many": MANY,
        "minimum_trials": MINIMUM_TRIALS,
    },
    needs=("curves",),
    ask=lambda frames: training_loss_finding(frames),
    plot="curves",
    rules=("B28",),
    pruned="they take no part here",
)


def training_loss_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a completed trial with a training curve, best first.

    Columns: trial, best_value, lowest_at (fraction of the evaluations at which the smoothed training metric was
    best), rise (from there to the end, in units of the evaluation noise), rising.
    """
    trials = ranked_trials(frames)[["trial", "best_value"]]
    curves = common_curves(frames, trials["trial"], training_metric(frames))
    known = curves.whole if curves.steps.size >= MINIMUM_CURVE else np.full(len(trials), False)
    table = trials[known].reset_index(drop=True)
    return table.assign(**_judged(curves.rows(known))) if len(table) else table.assign(lowest_at=[], rise=[], rising=[])


def training_metric(frames: StudyFrames) -> str:
    """training/loss where it was measured and is minimized, else the selecting metric on the training split."""
    objective = frames.study.objective
    own = str(objective.measured.on("training"))
    return "training/loss" if objective.direction == "minimize" and "training/loss" in frames.metrics else own


def training_loss_finding(frames: StudyFrames) -> Finding:
    """rising, ok or inconclusive (no training curves)."""
    table = training_loss_frame(frames)
    share = float(table["rising"].mean()) if len(table) else 0.0
    known = len(table) >= MINIMUM_TRIALS
    verdict = "inconclusive" if not known else "rising" if share >= MANY else "ok"
    some = table[table["rising"].astype(bool)] if len(table) else table
    worsens = "rises" if frames.study.objective.direction == "minimize" else "falls"
    summary = (
        f"{training_metric(frames)} {worsens} for good in {len(some)} of {len(table)} completed trials{_named(some)}."
        if len(table)
        else f"No {training_metric(frames)} was recorded over a whole run, so this check was skipped."
    )
    strength: Strength = "strong" if len(table) >= MINIMUM_STRONG else "moderate"
    return QUESTION.answer(frames.study.name, verdict, summary, table, strength=strength)


def _judged(curves: Curves) -> dict[str, Array]:
    smooth = running_mean(without_spikes(curves.values, curves.noise), MIDDLE)
    rows, lowest = np.arange(len(smooth)), smooth.argmin(axis=1)
    low, end = smooth[rows, lowest], smooth[:, -1]
    scale = np.maximum(curves.noise, material_gain(curves.values))
    risen = end - low
    rise = np.divide(risen, scale, out=np.where(risen > 0, np.inf, 0.0), where=scale > 0)
    left = 1.0 - lowest / max(smooth.shape[1] - 1, 1)
    descent = np.maximum(smooth[:, 0] - low, 0.0)
    return {
        "lowest_at": 1.0 - left,
        "rise": rise,
        "rising": (rise > RISE) & (risen > OF_DESCENT * descent) & (left >= SUSTAINED),
    }


def _named(some: pd.DataFrame) -> str:
    return f": trial {', '.join(map(str, some['trial'].head(5)))}{' ...' if len(some) > 5 else ''}" if len(some) else ""
