"""How far studies are: a row for each, in numbers or in words."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tuner.analysis.stage_chain import start_words
from tuner.design.study import UNKNOWN
from tuner.records import State
from tuner.records.conclusions import StageStart
from tuner.records.hourly_price import amount_words
from tuner.shown import shown
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

MOST_LISTED = 10
LONGEST_REASON = 200  # characters


def standing(ledger: Ledger, names: list[str]) -> pd.DataFrame:
    """A row for each study of these campaigns: trials by state, budget, share of the steps done, best value.

    stopped_early: how many of the complete trials ended before the budget, because nothing improved any more.
    best_value: the best value of the objective at any step of any complete trial; None without one. starts_from: the
    weights of an earlier stage that its trials start from, and inherited_steps: the updates behind them; "" and 0
    where trials start from the model's own initialization.
    """
    return pd.DataFrame([_row(ledger, row) for name in names for row in ledger.studies(name)])


def _row(ledger: Ledger, row: StudyRow) -> dict[str, object]:
    counts = ledger.state_counts(row.study_id)
    records = ledger.trials(row.study_id)
    budget = row.study.budget.max_train_steps
    planned = sum(record.step if record.stopped_early else budget for record in records)
    start = ledger.conclusion(row.campaign, StageStart, row.study_id)
    return {
        "campaign": row.campaign, "study": row.study.name, "goal": row.study.goal, "trials": len(records),
        **{state.value: count for state, count in counts.items()},
        "stopped_early": sum(record.stopped_early for record in records),
        "max_train_steps": budget,
        "epochs": row.study.in_epochs(budget),
        "steps_done": f"{sum(record.step for record in records) / planned:.0%}" if planned else "-",
        "best_value": _best_value(ledger, row, {record.number for record in records if record.state is State.COMPLETE}),
        "identity": _identity(row),
        "starts_from": start_words(start),
        "inherited_steps": start.inherited_steps if start else 0,
    }  # fmt: skip


def _best_value(ledger: Ledger, row: StudyRow, complete: Collection[int]) -> float | None:
    objective = row.study.objective
    curves = ledger.measurements(row.study_id, [objective.metric])
    found = zip(curves.trial_numbers, curves.steps, curves.values, strict=True)
    best = objective.best([(step, value) for number, step, value in found if number in complete])
    return None if best is None else best[1]


def _identity(row: StudyRow) -> str:
    """How much is known of what the trials were made of: code that is imported, arguments, data, initial weights."""
    if row.study.source:
        return "imported"
    return "weaker (tuner 0.1)" if row.identity is None else "whole"


def in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The states in words, those without trials left out; a goal that several studies share stands once."""
    states = [state.value for state in State]
    words = [", ".join(_counted(row, state) for state in states if row[state]) for _, row in frame.iterrows()]
    goal = frame["goal"].where(frame["goal"] != frame["goal"].shift(), "")
    shown_rows = frame.assign(states=words, goal=goal).rename(columns={"steps_done": "done", "best_value": "best"})
    some = ["identity"] if shown_rows["identity"].str.startswith("weaker").any() else []
    if "cost" in shown_rows:
        some = ["cost", *some]
        shown_rows["cost"] = shown_rows["cost"].map(amount_words, na_action="ignore")
    both = ["max_train_steps", *["epochs"] * bool(shown_rows["epochs"].ne(UNKNOWN).any())]
    return shown_rows[["campaign", "study", "trials", "states", *both, "done", "best", *some, "goal"]]


def _counted(row: "pd.Series[Any]", state: str) -> str:
    stopped = row["stopped_early"] if state == State.COMPLETE.value else 0
    return f"{row[state]} {state}" + f" ({stopped} stopped early)" * bool(stopped)


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
