"""What was found out about training trials together, kept in the Ledger for the study and those that follow."""

from collections.abc import Mapping
from typing import Any

from tuner.records import Numerics
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import Fusion

_KIND = "fusion"


class Choices:
    """By shape group: how many trials train together, why, how each operation is run, and whether bits were compared.

    A probe holds for every study of the campaign that is trained under the same Numerics.
    """

    def __init__(self, ledger: Ledger, row: StudyRow, numerics: Numerics) -> None:
        self.ledger = ledger
        self.row = row
        self.numerics = numerics
        self._known: dict[str, Fusion] = {}

    def of(self, group: str) -> Fusion | None:
        """The choice for a shape group, if it was made: here, by another worker, or for an earlier study."""
        if group not in self._known:
            told = self._told(None).get(group)
            if isinstance(told, Mapping) and told.get("numerics") == self.numerics.text:
                self._known[group] = _choice(told)
        return self._known.get(group)

    def made(self) -> dict[str, Fusion]:
        """The choices that were made for this study, by shape group."""
        return {group: _choice(one) for group, one in self._told(self.row.study_id).items()}

    def keep(self, group: str, choice: Fusion, check: str = "") -> None:
        """Remember a choice, and whether the self-check found the same bits."""
        self._known[group] = choice
        told = {
            "trials": choice.num_trials, "reason": choice.reason, "ways": choice.ways, "seconds": choice.seconds,
            "self_check": check, "numerics": self.numerics.text,
        }  # fmt: skip
        about = (self.row.study_id, None) if choice.probed else (self.row.study_id,)
        self.ledger.add_to_conclusions(self.row.campaign, _KIND, {group: told}, about)

    def _told(self, study_id: int | None) -> dict[str, Any]:
        return dict(self.ledger.conclusion(self.row.campaign, _KIND, study_id) or {})


def _choice(told: Mapping[str, Any]) -> Fusion:
    return Fusion(told["trials"], told["reason"], dict(told["ways"]), told.get("seconds", 0.0), probed=True)
