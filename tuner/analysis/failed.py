"""FAILED trials: an error of the workload's code, or workers that died. They say nothing about their point.

They are counted as nothing, neither as worse nor as less; so wherever a number or a choice rests on the others, it is
said how many failed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.analysis.finding import Finding
from tuner.analysis.study_frames import StudyFrames
from tuner.records import State
from tuner.shown import shown, word
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

MOST_LISTED = 10
LONGEST_REASON = 200  # characters
QUESTION = "failed_trials"
VERDICTS = ("some_failed", "all_failed")


@dataclass(frozen=True, slots=True)
class Failure:
    """A FAILED trial of a study, and the first line of its reason."""

    study: str
    number: int
    reason: str


def failures(ledger: Ledger, rows: Iterable[StudyRow]) -> list[Failure]:
    """The FAILED trials of some studies, by study and number."""
    return [
        Failure(row.study.name, record.number, first_line(record.reason))
        for row in rows
        for record in ledger.trials(row.study_id)
        if record.state is State.FAILED
    ]


def first_line(reason: str) -> str:
    """What fits on a terminal of a reason: its first line, cut where it is long, without control characters."""
    line = next((line for line in reason.splitlines() if line.strip()), "no reason was recorded")
    return shown(line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…")


def listed(failed: Sequence[Failure]) -> list[str]:
    """A line a trial; of many the first ones, and how many more there are."""
    lines = [f"{one.study} trial {one.number}: {one.reason}" for one in failed[:MOST_LISTED]]
    more = len(failed) - MOST_LISTED
    return lines + ([f"and {more} more: `tuner trials` lists them all"] if more > 0 else [])


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
        Finding(
            question=QUESTION,
            subject=name,
            verdict="some_failed" if len(frames.complete) else "all_failed",
            strength="strong",
            summary=f"{len(failed)} of {len(trials)} trials FAILED and take no part in any answer: {told}.",
            evidence=failed[["trial", "reason", "steps", "attempt"]].reset_index(drop=True),
            thresholds={},
            action="Their records are damaged: restore a backup (`tuner verify STUDY` lists what is damaged)."
            if damaged
            else f"Remove the cause, then repeat the command that trained {name} with --retry-failed (`tuner trials "
            f"STUDY {where}` shows every reason).",
            needs_action=True,
        )
    ]
