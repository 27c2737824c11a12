"""Still improving at the end, or saturated long before (A1, A4, B27)? Training and validation side by side."""

import numpy as np
import pandas as pd

from tuner.analysis.budget_verdict import LATE, MINIMUM_GOOD, NEGLIGIBLE_LATE, PooledGain, pooled_gain
from tuner.analysis.evidence import split_metrics
from tuner.analysis.finding import Finding
from tuner.analysis.good_trials import curve_matrix, good_trials
from tuner.analysis.levels import Array, Gains, gains_after
from tuner.analysis.question import Question
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.step_budget import MINIMUM_EVALUATIONS

SHARE = 0.6  # [P] share of the good trials that must gain in the last part to say that they still improve

_QUESTION = Question(
    "improvement",
    {
        "late": LATE,
        "share": SHARE,
        "negligible_in_noises": NEGLIGIBLE_LATE,
        "minimum_good_trials": MINIMUM_GOOD,
        "minimum_evaluations": MINIMUM_EVALUATIONS,
    },
    {
        "still_improving": "The best-step finding says whether a longer run is worth deciding it (A15, B27).",
        "saturated": "The budget may shrink; the best-step finding says to what (A14, B27).",
        "inconclusive": f"Complete more trials, each evaluated at least {MINIMUM_EVALUATIONS} times, then ask again.",
    },
)


def improvement_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a split that was measured, training first: what the good trials gained in the last 25 % of the budget.

    Columns: metric, trials, gain (mean, in noises of an evaluation), gain_per_1000_steps (mean, in the metric's
    units), still_improving (surely), saturated (surely).
    """
    good = good_trials(frames)
    rows = []
    for metric in split_metrics(frames.study.objective):
        steps, curves = curve_matrix(frames, good["trial"], metric)
        known = np.isfinite(curves).all(axis=1) if steps.size else np.zeros(len(good), dtype=bool)
        if steps.size >= MINIMUM_EVALUATIONS and known.sum() >= MINIMUM_GOOD:
            budget = frames.study.budget.max_train_steps
            gains = gains_after(curves[known], steps / budget, LATE)
            rows.append(_row(metric, gains, budget))
    columns = ["metric", "trials", "gain", "gain_per_1000_steps", "still_improving", "saturated"]
    return pd.DataFrame(rows, columns=columns)


def improvement_finding(frames: StudyFrames) -> Finding:
    """still_improving, saturated or inconclusive, by the validation metric of the good trials."""
    table = improvement_frame(frames)
    validation = table[table["metric"] == frames.study.objective.metric]
    verdict = "inconclusive"
    if len(validation):
        row = validation.iloc[0]
        verdict = "still_improving" if row["still_improving"] else "saturated" if row["saturated"] else "inconclusive"
    falls = frames.ends_at_zero(good_trials(frames)["trial"]) if verdict == "still_improving" else False
    return _QUESTION.answer(
        frames,
        verdict,
        _summary(table),
        table,
        strength="moderate" if falls is False else "weak",
        caveats=_caveats(falls),
    )


def _row(metric: str, gains: Gains, budget: int) -> tuple[object, ...]:
    pooled: PooledGain = pooled_gain(gains, NEGLIGIBLE_LATE)
    units: Array = gains.gain * gains.scale / ((1.0 - LATE) * budget) * 1000.0
    improving = pooled.real and pooled.positive >= SHARE
    return metric, len(gains.gain), float(gains.gain.mean()), float(units.mean()), improving, pooled.absent


def _summary(table: pd.DataFrame) -> str:
    if table.empty:
        return "Too few good trials with enough evaluations."
    return f"In the last {1 - LATE:.0%} of the budget: " + "; ".join(
        f"{row['metric']} gained {row['gain']:+.1f} noises of an evaluation ({row['gain_per_1000_steps']:+.3g} per "
        f"1,000 steps) in {row['trials']} good trials"
        for row in table.to_dict("records")
    ) + "."  # fmt: skip


def _caveats(falls: bool | None) -> tuple[str, ...]:
    """`falls`: whether the learning rate decays to zero; None where its schedule is not known."""
    if falls is False:
        return ()
    rate = "The learning rate falls" if falls else "The learning rate may fall (its schedule is not known)"
    return (f"{rate} in this part of the run, and a loss falls with the rate (D47): only a longer run decides.",)
