"""Whether a stage started from what the earlier one selects today (C7). A better pretraining later changes nothing of a
campaign that has begun: its trials are compared with each other, so all of them start from the same weights.
"""

import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.stage_selection import selected_runs
from tuner.errors import StorageError
from tuner.records.conclusions import StageStart
from tuner.storage.store import Ledger

QUESTION = Question(
    name="stale_start",
    sentence="Does the stage start from what the earlier one selects today?",
    order=31,
    verdicts=(
        Verdict(
            "stale",
            "act",
            "Give the campaign another name to start from the newer weights; its trials are then trained from their "
            "first step. As it is, all of its trials start from the older ones, and can be compared with each other.",
        ),
    ),
    rules=("C1", "C7", "A16"),
)


def stale_start_findings(ledger: Ledger, campaign: str, name: str) -> list[Finding]:
    """The finding about a study whose earlier stage selects another checkpoint now; empty where it does not.

    An earlier stage of another storage is not looked at, and one that is trained further is, once that is over.
    """
    studies = {row.study.name: row.study_id for row in ledger.studies(campaign)}
    kept = ledger.conclusion(campaign, StageStart, studies[name]) if name in studies else None
    if kept is None:
        return []
    was = kept.candidates[0]
    if was.storage or was.campaign not in ledger.campaigns():
        return []
    try:
        now = selected_runs(ledger, was.campaign)[0]
        step = now.checkpoint.step
    except StorageError:  # it is trained further, or keeps no weights any more
        return []
    if (*now.place, step) == (was.study, was.trial, was.step):
        return []
    study, trial = now.place
    because = "was adopted" if now.adopted else "is best"
    summary = (
        f"{name} starts from {was.words}, and since then trial {trial} of {was.campaign} {study} at step {step:,} "
        f"{because}."
    )
    rows = [
        {"start": "as it began", "study": was.study, "trial": was.trial, "step": was.step, "value": was.value},
        {"start": "today", "study": study, "trial": trial, "step": step, "value": now.checkpoint.value},
    ]
    return [QUESTION.answer(name, "stale", summary, pd.DataFrame(rows))]
