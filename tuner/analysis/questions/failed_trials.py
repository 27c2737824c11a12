"""FAILED trials: an error of the workload's code, or workers that died. They show nothing about their point.

They count neither as worse nor as better. So wherever a number or a choice rests on the other trials, the number of
failed ones is shown.
"""

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.study_progress import first_line
from tuner.shown import word

QUESTION = Question(
    name="failed_trials",
    sentence="Did trials fail?",
    order=10,
    verdicts=(Verdict("some_failed", "act"), Verdict("all_failed", "act")),
    ask=lambda frames: failed_findings(frames),
    plot="axes",
    elsewhere=lambda frames, finding: "Remove the cause, train these trials again in your own code, and import.",
)


def failed_findings(frames: StudyFrames) -> list[Finding]:
    """some_failed or all_failed, where trials of a study FAILED; else nothing."""
    trials, name = frames.trials, frames.study.name
    failed = trials[trials["state"] == "failed"]
    if failed.empty:
        return []
    reasons = failed["reason"].astype(str).map(first_line)
    told = "; ".join(f"{count} by {reason}" for reason, count in reasons.value_counts().head(3).items())
    damaged = bool(reasons.str.contains("is unreadable in the Ledger").all())
    where = f"--round {frames.study.round}" if frames.study.round else f"--study {word(name)}"
    return [
        QUESTION.answer(
            name,
            "some_failed" if len(frames.selectable) else "all_failed",
            f"{len(failed)} of {len(trials)} trials FAILED and do not count in any answer: {told}.",
            failed[["trial", "reason", "steps", "attempt"]].reset_index(drop=True),
            strength="strong",
            action="Their records are damaged: restore a backup (`tuner verify STUDY_FILE` lists what is damaged)."
            if damaged
            else f"Remove the cause, then repeat the command that trained {name} with --retry-failed (`tuner trials "
            f"STUDY {where}` shows every reason).",
        )
    ]
