"""How many trials train as one stacked model: as the user says, or as a short probe finds out."""

from collections.abc import Sequence
from typing import Literal

from tuner.errors import NotFusible
from tuner.records import Claim, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.fused.trainer import GroupTrainer
from tuner.training.trainer import Trainer

MOST_TRIALS = 1024  # of one group
Fuse = int | Literal["auto", "off"]


class Fusing:
    """Trains claimed trials of one study, together where that is asked for and keeps the bits."""

    def __init__(self, fuse: Fuse, ledger: Ledger, row: StudyRow) -> None:
        self.fuse = fuse
        self.ledger = ledger
        self.row = row
        self.refused = ""  # why trials are trained one by one although fusing was tried

    @property
    def most_trials(self) -> int:
        """How many trials to claim at a time."""
        return self.fuse if isinstance(self.fuse, int) else 1

    def train(self, trainer: Trainer, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """Train the trials; those without an update in the answer were not touched, and are to be handed back."""
        if len(claims) == 1:
            return [trainer.train(claims[0])]
        try:
            return GroupTrainer(trainer).train(claims)
        except NotFusible as error:
            raise NotFusible(f"{error}; --fuse auto trains such trials one by one, --fuse off all of them") from error
