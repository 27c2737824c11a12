"""The steps behind a trial of a stage: those it trains itself, and those behind the weights it starts from (C5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.design.stages import START_FROM
from tuner.records.conclusions import StageStart
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow


@dataclass(frozen=True, slots=True)
class StageEffort:
    """Updates of the optimizer: `own` in this stage, `inherited` in those before it."""

    own: int
    inherited: int = 0

    @property
    def total(self) -> int:
        return self.own + self.inherited

    @property
    def words(self) -> str:
        """Like "40 steps of its own and 57 inherited, 97 in all", or "97 steps from scratch"."""
        if not self.inherited:
            return f"{self.own:,} steps from scratch"
        return f"{self.own:,} steps of its own and {self.inherited:,} inherited, {self.total:,} in all"

    def columns(self) -> dict[str, int]:
        """For a row of evidence."""
        return {"own_steps": self.own, "inherited_steps": self.inherited, "total_steps": self.total}

    def equal_to(self, other: "StageEffort") -> str:
        """In what both are equal: "in all", "of their own", both as "" where nothing is inherited, or "nothing"."""
        if self == other:
            return ""
        if self.total == other.total:
            return "in all"
        return "of their own" if self.own == other.own else "nothing"


def effort_of(ledger: Ledger, row: StudyRow, point: Mapping[str, Any] | None = None) -> StageEffort:
    """The steps of the trials of a study. point: of the trial, which may choose among several weights to start from."""
    own = row.study.budget.max_train_steps
    start = None if row.study.start else ledger.conclusion(row.campaign, StageStart, row.study_id)
    if start is None:
        return StageEffort(own)
    chosen = int((point or {}).get(START_FROM, 1)) - 1
    found = start.candidates[chosen] if 0 <= chosen < len(start.candidates) else start.candidates[0]
    return StageEffort(own, found.steps)
