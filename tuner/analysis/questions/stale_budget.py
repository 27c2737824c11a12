"""Budgets and schedules that were chosen under other conditions than those of today (A6, A7, A16, A17, B7).

A basis is the conditions under which they were chosen, part by part: {"batch_size": "64", "architecture": digest, ...}.
"""

from collections.abc import Mapping

import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.design.identity import is_digest
from tuner.records.conclusions import BudgetRecord
from tuner.storage.store import Ledger

QUESTION = Question(
    name="stale_budget",
    sentence="Was the budget chosen for what is trained now?",
    order=30,
    verdicts=(Verdict("stale", "act"),),
    rules=("A6", "A7", "A16", "A17", "B7"),
)
# By the first word of a part: why it matters, and what to do about it.
_REASONS: Mapping[str, tuple[str, str]] = {
    "batch_size": (
        "a smaller batch has noisier gradients and may need more steps (A7)",
        "tune optimizer and regularization hyperparameters again (B7)",
    ),
    "augmentation": ("augmentation adds noise and may need more steps (A7, A16)", ""),
    "regularization": ("regularizers like dropout add noise and may need more steps (A7)", ""),
    "architecture": ("another model needs another number of steps (A16)", ""),
    "training": ("other data need another number of steps (A16)", ""),
    "validation": ("other validation data may choose other points and steps (A16)", ""),
    "optimizer": ("a better optimizer may need fewer steps (A17)", "look at the best steps again, budgets may shrink"),
    "schedule": (
        "a schedule holds for the length it was tuned at (A6), and a better one may need fewer steps (A17)",
        "",
    ),
    "loss": ("another loss is trained at another speed (A16)", ""),
    "collate": ("other batches of the same examples may need another number of steps (A16)", ""),
    "batches": ("examples that meet in other batches may need another number of steps (A16)", ""),
    "attribute": ("a setting of the workload changed (A16)", ""),
    "code": ("code that the workload uses changed (A16)", ""),
}
NOT_DECLARED = "not declared"
FORMAT = "format"  # the part of a basis that names how the others were made
_FAMILIES = ("augmentation", "regularization", "optimizer")  # hyperparameters of them are parts where declared
_OF_A_FORMAT = ("training data", "validation data", FORMAT)  # parts that another format makes otherwise


def stale_finding(was: Mapping[str, str], now: Mapping[str, str], source: str, subject: str) -> Finding | None:
    """What changed since the budget of `subject` was chosen from `source`; None where nothing did."""
    parts = _different(was, now)
    if not was or not parts:
        return None
    rows = [_row(part, was.get(part), now.get(part)) for part in parts]
    summary = f"The budget of {subject} was chosen from {source}, and since then: {_changes(rows)}."
    return QUESTION.answer(subject, "stale", summary, pd.DataFrame(rows), action=_action(rows, source, subject))


def recorded_stale_findings(ledger: Ledger, campaign: str, name: str) -> list[Finding]:
    """The finding about a study that was started, from what the Ledger kept; empty where nothing changed."""
    studies = {row.study.name: row.study_id for row in ledger.studies(campaign)}
    kept = ledger.conclusion(campaign, BudgetRecord, studies[name]) or BudgetRecord()
    if kept.source is None or kept.source not in studies:
        return []
    older = ledger.conclusion(campaign, BudgetRecord, studies[kept.source]) or BudgetRecord()
    found = stale_finding(older.basis, kept.basis, kept.source, name)
    return [found] if found else []


def changed_parts(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The parts that differ, in words; empty where none does."""
    parts = _different(was, now)
    return _changes([_row(part, was.get(part), now.get(part)) for part in parts])


def _different(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parts that differ; of a basis that another version of tuner wrote only those that both make alike."""
    parts = list(dict.fromkeys((*was, *now)))
    if was.get(FORMAT) != now.get(FORMAT):
        known = (was.keys() & now.keys()) - set(_OF_A_FORMAT)
        declared = [part for part in parts if part.split(" ")[0] in _FAMILIES]
        parts = [part for part in parts if part in known or part in declared]
    return [part for part in parts if was.get(part) != now.get(part)]


def _row(part: str, was: str | None, now: str | None) -> dict[str, str]:
    because, redo = _REASONS.get(part.split(" ")[0], ("what it was chosen under changed (A16)", ""))
    return {"part": part, "was": was or NOT_DECLARED, "now": now or NOT_DECLARED, "because": because, "redo": redo}


def _changes(rows: list[dict[str, str]]) -> str:
    return "; ".join(_change(**row) for row in rows)


def _change(part: str, was: str, now: str, **rest: str) -> str:
    """What happened to a part, in words; digests are not shown."""
    if is_digest(was) or is_digest(now):
        what = "added" if was == NOT_DECLARED else "removed" if now == NOT_DECLARED else "changed"
        return f"{part} {what}"
    return f"{part} was {was}, now {now}"


def _action(rows: list[dict[str, str]], source: str, subject: str) -> str:
    reasons = list(dict.fromkeys(row["because"] for row in rows))
    redone = list(dict.fromkeys(row["redo"] for row in rows if row["redo"]))
    again = (
        "sweep again (`tuner sweep STUDY_FILE --again`)"
        if source.startswith("sweep")
        else f"after {subject} see whether its best steps are too late (`tuner best-steps`), or train {source} again "
        "under another campaign name"
    )
    why = "; ".join(reasons)
    return f"{why[0].upper()}{why[1:]}. To be sure: {'; '.join([again, *redone])}."
