"""Still improving at the end, or saturated long before (A1, A4, B27)? Training and validation side by side.

Its proposal is that of the best steps: both rest on the same gains of the same good trials.
"""

from dataclasses import replace

import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.good_trials import evaluation_noise, good_in_words, good_trials, noise_in_words, noise_model_of
from tuner.analysis.learning_rates import rate_died
from tuner.analysis.levels import LATE, Gains, gains_after
from tuner.analysis.noise import Array
from tuner.analysis.pooled_gains import MINIMUM_GOOD, NEGLIGIBLE_LATE, PooledGain, pooled_gain
from tuner.analysis.questions.best_steps import LATE_AVERAGES, best_steps_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import common_curves, split_metrics
from tuner.budget.step_budget import MINIMUM_EVALUATIONS

SHARE = 0.6  # [P] of the good trials must gain in the last part before they count as still improving

QUESTION = Question(
    name="improvement",
    sentence="Were the trials still improving at the end?",
    order=160,
    verdicts=(
        Verdict("still_improving"),
        Verdict("saturated"),
        Verdict("got_worse"),
        Verdict("inconclusive", "open"),
    ),
    thresholds={
        "late": LATE,
        "share": SHARE,
        "negligible_in_noises": NEGLIGIBLE_LATE,
        "minimum_good_trials": MINIMUM_GOOD,
        "minimum_evaluations": MINIMUM_EVALUATIONS,
    },
    needs=("curves",),
    ask=lambda frames: improvement_finding(frames),
    plot="curves",
    rules=("A1", "A4", "A5", "B25", "B27", "D9", "D47"),
    pruned="only curves that were good from early on are here",
)


def improvement_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a split that was measured, training first: what the good trials gained in the last 25 % of the budget.

    Columns: metric, trials, gain (mean, in units of the evaluation noise), gain_per_1000_steps (mean, in the metric's
    units), still_improving (surely), saturated (surely not any more), got_worse (surely).
    """
    good = good_trials(frames)
    rows = []
    for metric in split_metrics(frames.study.objective):
        curves = common_curves(frames, good["trial"], metric)
        known = curves.resolved & curves.whole
        if curves.steps.size >= MINIMUM_EVALUATIONS and known.sum() >= MINIMUM_GOOD:
            budget = frames.study.budget.max_train_steps
            mine = curves.rows(known)
            model = noise_model_of(frames, mine, metric)
            gains = gains_after(mine.values, mine.at / budget, LATE, model)
            gains = gains.in_common_units() if mine.own_steps else gains
            rows.append(_row(metric, gains, budget))
    columns = ["metric", "trials", "gain", "gain_per_1000_steps", "still_improving", "saturated", "got_worse"]
    return pd.DataFrame(rows, columns=columns)


def improvement_finding(frames: StudyFrames) -> Finding:
    """still_improving, saturated, got_worse or inconclusive, by the validation metric of the good trials."""
    table = improvement_frame(frames)
    validation = table[table["metric"] == frames.study.objective.metric]
    verdict = "inconclusive"
    if len(validation):
        row = validation.iloc[0]
        verdict = next((each for each in ("still_improving", "got_worse", "saturated") if row[each]), verdict)
    good = good_trials(frames)["trial"]
    falls = frames.ends_at_zero(good) if verdict == "still_improving" else False
    late = verdict == "still_improving" and frames.averages_late(good)
    died = verdict == "saturated" and bool(rate_died(frames, good, LATE))
    found = QUESTION.answer(
        frames.study.name,
        verdict,
        _summary(frames, table, verdict),
        table,
        strength="moderate" if falls is False and not died and not late else "weak",
        caveats=(*_caveats(falls, died=died), *((LATE_AVERAGES,) if late else ())),
    )
    return replace(found, action=_action(frames, verdict))


def _row(metric: str, gains: Gains, budget: int) -> tuple[object, ...]:
    pooled: PooledGain = pooled_gain(gains, NEGLIGIBLE_LATE)
    units: Array = gains.gain * gains.scale / ((1.0 - LATE) * budget) * 1000.0
    improving = pooled.real and pooled.positive >= SHARE
    judged = (improving, pooled.absent, pooled.worse)
    return metric, len(gains.gain), float(gains.gain.mean()), float(units.mean()), *judged


def _summary(frames: StudyFrames, table: pd.DataFrame, verdict: str) -> str:
    if table.empty:
        return (
            f"{good_in_words(frames)}: fewer than {MINIMUM_GOOD} have {MINIMUM_EVALUATIONS} evaluations over the whole "
            "budget."
        )
    outcome = {
        "still_improving": "The good trials were still improving when they stopped",
        "saturated": "The good trials did not improve any more at the end",
        "got_worse": "Validation got worse at the end",
    }.get(verdict, "Whether the good trials were still improving when they stopped is not clear")
    splits = "; ".join(
        f"{row['metric']} {'improved' if row['gain'] >= 0 else 'got worse'} by {abs(row['gain']):.1f} times its "
        f"evaluation noise ({abs(row['gain_per_1000_steps']):.2g} per 1,000 steps)"
        for row in table.to_dict("records")
    )
    noise = noise_in_words(evaluation_noise(frames))
    return f"{outcome}. In the last {1 - LATE:.0%} of the budget, mean of {good_in_words(frames)}: {splits}.{noise}"


def _action(frames: StudyFrames, verdict: str) -> str:
    """One proposal about the budget on a page: that of the best steps."""
    best = best_steps_finding(frames)
    budget = frames.study.budget.max_train_steps
    follows = f"The best-step finding ({best.verdict}) proposes what to do about the budget."
    if verdict == "got_worse":
        return f"Use the best checkpoint of each trial, not the last, and look at overfitting (A5, B25). {follows}"
    if best.verdict == "ok" and verdict == "saturated":
        return f"Nothing to do: the best-step finding keeps {budget:,} steps."
    return follows


def _caveats(falls: bool | None, *, died: bool) -> tuple[str, ...]:
    """`falls`: whether the learning rate decays to zero; None where its schedule is not known."""
    if died:
        return ("The learning rate is (almost) zero in this part of the run, so a flat curve is not evidence (D9).",)
    if falls is False:
        return ()
    rate = "The learning rate falls" if falls else "The learning rate may fall (its schedule is not known)"
    return (f"{rate} in this part of the run, and a loss falls with the rate (D47): only a longer run decides.",)
