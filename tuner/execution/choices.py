"""What was measured about training trials together, kept in the Ledger for this study and for later ones."""

from collections.abc import Mapping
from typing import Any

from tuner.records import Numerics
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import Fusion

_KIND = "fusion"


class Choices:
    """The `Fusion` of each shape group of a study, and whether its bits were compared with trials alone.

    A fusion that was probed holds for every study of the campaign that is trained under the same Numerics.
    """

    def __init__(self, ledger: Ledger, row: StudyRow, numerics: Numerics) -> None:
        self.ledger = ledger
        self.row = row
        self.numerics = numerics
        self._known: dict[str, Fusion] = {}

    def of(self, group: str) -> Fusion | None:
        """The fusion of a shape group, where this process, another worker or an earlier study has found one."""
        if group not in self._known:
            told = self._told(None).get(group)
            if isinstance(told, Mapping) and told.get("numerics") == self.numerics.text:
                self._known[group] = _choice(told)
        return self._known.get(group)

    def made(self) -> dict[str, Fusion]:
        """The fusions that were found for this study, by shape group."""
        return {group: _choice(one) for group, one in self._told(self.row.study_id).items()}

    def keep(self, group: str, choice: Fusion, check: str = "") -> None:
        """Record a fusion, with the result of the self-check where there was one."""
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
