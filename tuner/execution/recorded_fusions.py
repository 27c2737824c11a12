"""What was measured about training trials together, kept in the Ledger for this study and for later ones."""

from tuner.records import Numerics
from tuner.records.conclusions import FusionChoice, FusionChoices
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import Fusion


class RecordedFusions:
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
            known = self.ledger.conclusion(self.row.campaign, FusionChoices) or FusionChoices()
            told = known.by_group.get(group)
            if told is not None and Numerics.from_text(told.numerics).agrees_with(self.numerics):
                self._known[group] = _fusion(told)
        return self._known.get(group)

    def keep(self, group: str, fusion: Fusion, check: str = "") -> None:
        """Record a fusion, with the result of the self-check where there was one."""
        self._known[group] = fusion
        told = FusionChoice(
            fusion.num_trials, fusion.reason, dict(fusion.ways), fusion.seconds, check, self.numerics.text
        )
        about = (self.row.study_id, None) if fusion.probed else (self.row.study_id,)
        self.ledger.add_fusion(self.row.campaign, {group: told}, about)


def recorded_fusions(ledger: Ledger, row: StudyRow) -> dict[str, Fusion]:
    """The fusions that were found for a study, by shape group."""
    known = ledger.conclusion(row.campaign, FusionChoices, row.study_id) or FusionChoices()
    return {group: _fusion(told) for group, told in known.by_group.items()}


def _fusion(told: FusionChoice) -> Fusion:
    return Fusion(told.trials, told.reason, dict(told.ways), told.seconds, probed=True)
