"""Does the best step lie inside the warmup (D34)? Suspicious, and no sign of a budget that is too long."""

from dataclasses import replace

import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.good_trials import good_in_words, good_trials
from tuner.analysis.learning_rates import warmup_steps_of
from tuner.analysis.questions.best_steps import best_steps_frame
from tuner.analysis.study_frames import StudyFrames

MANY = 0.2  # [P] share of the good trials whose best step lies inside the warmup

QUESTION = Question(
    name="warmup",
    sentence="Do best steps lie inside the warmup?",
    order=200,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict(
            "in_warmup",
            "act",
            "Look for a too high peak learning rate, or a tiny or noisy validation set (D34).",
        ),
        Verdict("inconclusive", "open", "Complete trials, then ask again."),
    ),
    thresholds={"many": MANY},
    needs=("curves",),
    relies_on=("follows_schedule",),
    ask=lambda frames: warmup_finding(frames),
    plot="best-steps",
    rules=("D34",),
    pruned="they take no part here",
)


def warmup_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a good trial, best first: trial, best_step, warmup_steps, in_warmup."""
    table = best_steps_frame(frames)[["trial", "best_step", "in_warmup"]]
    warmup = warmup_steps_of(frames, good_trials(frames)).astype("int64")
    return table.assign(warmup_steps=warmup)[["trial", "best_step", "warmup_steps", "in_warmup"]]


def warmup_finding(frames: StudyFrames) -> Finding:
    """in_warmup, ok or inconclusive (no good trial, or an imported study, whose warmup is not known)."""
    table = warmup_frame(frames)
    inside = int(table["in_warmup"].sum())
    many = len(table) > 0 and inside / len(table) > MANY
    verdict = "inconclusive" if table.empty else "in_warmup" if many else "ok"
    longest = int(table["warmup_steps"].max()) if len(table) else 0
    summary = (
        f"{good_in_words(frames, len(table))}: the best step of {inside} of them lies inside the warmup of "
        f"{longest:,} steps."
    )
    if frames.study.source and not longest and len(table):
        return _unknown(frames, table)
    return QUESTION.answer(frames.study.name, verdict, summary if longest else "There is no warmup.", table)


def _unknown(frames: StudyFrames, table: pd.DataFrame) -> Finding:
    """For an imported study: the step that its user, who knows the warmup, can compare with."""
    first = int(table["best_step"].min())
    found = QUESTION.answer(frames.study.name, "inconclusive", "Whether these trials had a warmup is not known.", table)
    return replace(
        found,
        action=f"If your warmup lasted {first:,} steps or more, look at the best trials: the earliest best step of "
        f"{good_in_words(frames, len(table))} is {first:,} (D34).",
    )
