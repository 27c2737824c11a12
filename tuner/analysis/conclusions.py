"""What was concluded at which length, and whether it still holds: promoted, rejected or unconfirmed (A30, A45).

Derived from the records each time it is asked. A conclusion keeps the length it was drawn at, and at a longer one it
is unconfirmed until a round has asked again; what failed at a longer length is not carried further.
"""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.isolation import isolation_findings
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.transfer import transfer_findings

COLUMNS = ("conclusion", "drawn_at", "asked_at", "verdict", "state", "why")
_STATES = {"confirmed": "promoted", "rejected": "rejected", "unconfirmed": "unconfirmed"}


def conclusions_frame(rounds: Sequence[StudyFrames]) -> pd.DataFrame:
    """One row a conclusion of a round, in the order of the rounds.

    Columns: conclusion, drawn_at and asked_at (steps; asked_at <NA> where no later round has asked), verdict (of the
    round that asked, "" without one), state, why.
    """
    rows: list[dict[str, object]] = []
    for before, after in pairwise(rounds):
        asked = after.study.budget.max_train_steps
        for finding in transfer_findings(before, after):
            if finding.question == "transfer":
                rows.append(_row(before, finding.subject, asked, finding))
    if rounds:
        rows += [_row(rounds[-1], subject, None, None) for subject in _open_subjects(rounds[-1])]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"drawn_at": "Int64", "asked_at": "Int64"})


def _open_subjects(last: StudyFrames) -> list[str]:
    """What the last round concludes and nobody has asked at a greater length."""
    if last.complete.empty:
        return []
    return ["winner", *(finding.subject for finding in isolation_findings(last) if finding.verdict == "leads")]


def _row(before: StudyFrames, subject: str, asked: int | None, finding: Finding | None) -> dict[str, object]:
    verdict = finding.verdict if finding else ""
    return {
        "conclusion": f"{subject} of {before.study.name}",
        "drawn_at": before.study.budget.max_train_steps,
        "asked_at": asked,
        "verdict": verdict,
        "state": _STATES.get(verdict, "unconfirmed"),
        "why": finding.summary if finding else "no later round has tested it",
    }
