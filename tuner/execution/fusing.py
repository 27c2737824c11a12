"""How many trials train as one stacked model: as the user says, or as a short probe finds out.

Several workers on one study share it evenly, so that none idles while another trains all that is left.
"""

import gc
import logging
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tuner.errors import InputError, NotFusible
from tuner.records import Claim, State, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.fused.choice import LARGEST, Choice, best_choice, trials_that_fit
from tuner.training.fused.trainer import GroupTrainer
from tuner.training.trainer import Trainer, is_out_of_memory

_log = logging.getLogger(__name__)
MOST_TRIALS = 1024  # of one group
Fuse = int | Literal["auto", "off"]


class Fusing:
    """Trains claimed trials of one study, together where that is asked for and keeps the bits."""

    def __init__(self, fuse: Fuse, ledger: Ledger, row: StudyRow, crew: int = 1, largest: int = LARGEST) -> None:
        self.fuse = fuse
        self.crew = crew  # processes that train this study
        self.largest = largest  # group that `auto` may choose
        self.ledger = ledger
        self.row = row
        self._choices: dict[str, Choice] = {}  # by shape group
        self._checked: set[str] = set()

    def claim_size(self) -> int:
        """How many trials to claim at a time."""
        most = self._most_trials()
        if most == 1 or self.crew == 1:
            return most
        counts = self.ledger.state_counts(self.row.study_id)
        return even_share(counts[State.WAITING], counts[State.RUNNING], most, self.crew)

    def _most_trials(self) -> int:
        if isinstance(self.fuse, int):
            return self.fuse
        known = [choice.num_trials for choice in self._choices.values()]
        return 1 if self.fuse == "off" or (known and max(known) == 1) else self.largest

    def train(self, trainer: Trainer, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """Train the trials; those without an update in the answer were not touched, and are to be handed back."""
        claims = self._only(claims, _of_one_history(claims))
        if len(claims) == 1:
            return [trainer.train(claims[0])]
        kind = claims[0].trial.shape_group
        try:
            if kind not in self._choices:
                self._choices[kind] = self._chosen(trainer, claims)
            size = self._choices[kind].num_trials
            if size > 1:
                return self._train_together(trainer, self._only(claims, claims[:size]), kind)
        except NotFusible as error:
            if isinstance(self.fuse, int):
                message = f"{error}; --fuse auto trains such trials one by one, --fuse off trains all so"
                raise NotFusible(message) from error
            self._choices[kind] = Choice(1, str(error))
            self._conclude(kind, self._choices[kind])
            return []
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors
            gc.collect()
            self._halve(kind, len(claims))
            return []
        return [trainer.train(self._only(claims, claims[:1])[0])]

    def _halve(self, kind: str, most: int) -> None:
        """Train fewer trials together from now on: so many do not fit into the memory of the device."""
        tried = self._choices[kind].num_trials if kind in self._choices else most
        choice = Choice(tried // 2, f"{tried} trials together ran out of memory")
        _log.warning("%s; training %d", choice.reason, choice.num_trials)
        self._choices[kind] = choice
        self._conclude(kind, choice)

    def _only(self, claims: Sequence[Claim], chosen: Sequence[Claim]) -> Sequence[Claim]:
        """Hand the others back at once: they are for other workers, and must not die with this one."""
        self.ledger.release([claim for claim in claims if claim not in chosen])
        return chosen

    def _chosen(self, trainer: Trainer, claims: Sequence[Claim]) -> Choice:
        trials = [claim.trial for claim in claims]
        if isinstance(self.fuse, int):
            most = trials_that_fit(trainer.setting, trials[0])
            if most < self.fuse:
                _log.warning("%d trials do not fit into the free memory together; training %d", self.fuse, most)
            return Choice(min(self.fuse, most), f"--fuse {self.fuse}")
        counts = self.ledger.state_counts(self.row.study_id)
        ahead = counts.get(State.WAITING, 0) + len(claims)
        choice = best_choice(trainer.setting, trials, ahead)
        self._conclude(kind=trials[0].shape_group, choice=choice)
        return choice

    def _train_together(self, trainer: Trainer, claims: Sequence[Claim], kind: str) -> list[TrialUpdate]:
        together = GroupTrainer(trainer)
        updates = together.train(claims)
        if kind not in self._checked:
            self._checked.add(kind)
            self._conclude(kind, replace(self._choices[kind], ways=together.ways), check="identical")
        return updates

    def _conclude(self, kind: str, choice: Choice, check: str = "") -> None:
        """Write down how this shape group is trained, and whether the self-check found the same bits."""
        known = self.ledger.conclusion(self.row.campaign, "fusion", self.row.study_id) or {}
        told = {"trials": choice.num_trials, "reason": choice.reason, "ways": choice.ways, "self_check": check}
        self.ledger.conclude(self.row.campaign, "fusion", {**known, kind: told}, self.row.study_id)


def even_share(waiting: int, running: int, most: int, crew: int) -> int:
    """How many of the waiting trials one of `crew` workers takes, at most `most`, so that all end at about one time."""
    rounds = -(-(waiting + running) // (most * crew))
    share = -(-(waiting + running) // (max(1, rounds) * crew))
    groups = -(-waiting // most)
    return max(1, min(share, -(-waiting // max(1, groups))))


def _of_one_history(claims: Sequence[Claim]) -> Sequence[Claim]:
    """The first trial and mates that were tried as often. Who took down workers meets ever fewer, and then none.

    So a trial that kills its worker takes no mates with it into quarantine.
    """
    attempt = claims[0].attempt
    most = {1: len(claims), 2: len(claims), 3: max(1, len(claims) // 8)}.get(attempt, 1)
    return [claim for claim in claims if claim.attempt == attempt][:most]


def parsed_fuse(text: str) -> Fuse:
    """What --fuse says: off, auto, or a number of trials. Raises InputError."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    if not text.isdecimal() or not 1 <= int(text) <= MOST_TRIALS:
        raise InputError(f"--fuse is off, auto or a number of trials from 1 to {MOST_TRIALS}, got {text!r}")
    return int(text)
