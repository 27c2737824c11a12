"""How many trials train as one stacked model: as the user says, or as a short probe finds out.

Several workers on one study share it evenly, so that none idles while another trains all that is left.
"""

import gc
import logging
import traceback
from collections.abc import Sequence
from dataclasses import replace

from tuner.design.trial import Trial
from tuner.errors import NotFusible
from tuner.execution.choices import Choices
from tuner.execution.machine import Fuse
from tuner.fused.engine import Fused
from tuner.fused.fusion import (
    FEWEST_STEPS,
    best_fusion,
    check_some_alike,
    largest_group,
    steps_ahead,
    trials_that_fit,
)
from tuner.records import Claim, State, TrialRecord, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.endings import is_out_of_memory
from tuner.training.engine import Fusion
from tuner.training.setup import TrainingSetup
from tuner.training.supervisor import Supervisor

_log = logging.getLogger(__name__)
MOST_COMPARED = 64  # of a shape, where no two models are alike


class Fusing:
    """Trains claimed trials of one study, together where that is asked for and keeps the bits."""

    def __init__(self, fuse: Fuse, ledger: Ledger, row: StudyRow, setting: TrainingSetup, crew: int = 1) -> None:
        self.fuse = fuse
        self.crew = crew  # processes that train this study
        self.ledger = ledger
        self.row = row
        self.setting = setting
        self.choices = Choices(ledger, row, setting.numerics)
        self._checked: set[str] = set()
        self._fitting: dict[str, int] = {}  # trials of a shape group that the memory holds
        self._groups: set[str] | None = None
        self._unlike = False  # whether it was said that models are not alike
        self._short = False  # too short for a probe

    def claim_size(self) -> int:
        """How many trials to claim at a time."""
        most = self._most_trials()
        if most == 1 or self.crew == 1:
            return most
        counts = self.ledger.state_counts(self.row.study_id)
        return even_share(counts[State.WAITING], counts[State.RUNNING], most, self.crew)

    def _most_trials(self) -> int:
        if self.fuse == "off" or isinstance(self.fuse, int):
            return 1 if self.fuse == "off" else self.fuse
        if self._groups is None:
            trials = self.ledger.trials(self.row.study_id)
            self._groups = {self.row.study.shape_group(one.point) for one in trials}
            left = sum(not one.state.finished for one in trials)
            self._short = steps_ahead(self.setting, left, self.crew) < FEWEST_STEPS
        known = [choice.num_trials for group in self._groups if (choice := self.choices.of(group)) is not None]
        if known and len(known) == len(self._groups):
            return max(known)
        return 1 if self._short else largest_group(self.setting.device)

    def train(self, supervisor: Supervisor, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """Train the trials; those without an update in the answer were not touched, and are to be handed back."""
        claims = self._only(claims, _of_one_history(claims))
        if self.fuse == "off" or len(claims) == 1:
            return supervisor.train(claims[:1])
        group = claims[0].trial.shape_group
        try:
            choice = self._wanted(claims) if isinstance(self.fuse, int) else self._best(claims)
            claims = self._only(claims, claims[: choice.num_trials])
            if choice.num_trials > 1:
                return self._train_together(supervisor, claims, choice)
        except NotFusible as error:
            if isinstance(self.fuse, int):
                message = f"{error}; --fuse auto trains such trials one by one, --fuse off trains all so"
                raise NotFusible(message) from error
            _log.warning("these trials are trained one by one: %s", error)
            self.choices.keep(group, Fusion(1, str(error), probed=True))
            return []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors
            gc.collect()
            self._halve(group, len(claims))
            return []
        return supervisor.train(claims[:1])

    def _halve(self, group: str, tried: int) -> None:
        """Train fewer trials together from now on: so many do not fit into the memory of the device."""
        _log.warning("%d trials together ran out of memory; training %d", tried, tried // 2)
        self._fitting[group] = max(1, tried // 2)
        self.choices.keep(group, Fusion(tried // 2, f"{tried} trials together ran out of memory"))

    def _only(self, claims: Sequence[Claim], chosen: Sequence[Claim]) -> Sequence[Claim]:
        """Hand the others back at once: they are for other workers, and must not die with this one."""
        self.ledger.release([claim for claim in claims if claim not in chosen])
        return chosen

    def _wanted(self, claims: Sequence[Claim]) -> Fusion:
        """As many as the user says and the memory holds."""
        group = claims[0].trial.shape_group
        wanted = int(self.fuse)
        if group not in self._fitting:
            self._check_alike(group)
            most = self._fitting[group] = trials_that_fit(
                self.setting, [claim.trial for claim in claims], crew=self.crew
            )
            if most < wanted:
                _log.warning("%d trials do not fit into the free memory together; training %d", wanted, most)
        return Fusion(min(wanted, self._fitting[group]), f"--fuse {wanted}")

    def _check_alike(self, group: str) -> None:
        """Raise NotFusible where no two trials of a shape have models that are alike.

        Asked of all, the finished too, so that a last one without mates is no error.
        """
        records = self.ledger.trials(self.row.study_id)
        trials = [trial for trial in trials_of(records) if trial.shape_group == group]
        check_some_alike(self.setting, trials[:MOST_COMPARED])

    def _best(self, claims: Sequence[Claim]) -> Fusion:
        """What was found out before, or what a probe finds; that is kept."""
        trials = [claim.trial for claim in claims]
        known = self.choices.of(trials[0].shape_group)
        if known is not None:
            return known
        counts = self.ledger.state_counts(self.row.study_id)
        choice = best_fusion(self.setting, trials, counts[State.WAITING] + counts[State.RUNNING], crew=self.crew)
        self.choices.keep(trials[0].shape_group, choice)
        return choice

    def _train_together(self, supervisor: Supervisor, claims: Sequence[Claim], choice: Fusion) -> list[TrialUpdate]:
        together, group = Fused(self.setting), claims[0].trial.shape_group
        updates = Supervisor(together, supervisor.recorder, supervisor.on_step).train(claims)
        if together.unlike and not self._unlike:
            self._unlike = True
            _log.warning("trials are trained one by one: %s", together.unlike)
        if group not in self._checked and together.ways:
            self._checked.add(group)
            check = "identical" if self.setting.profile == "exact" else "equal to rounding"
            self.choices.keep(group, replace(choice, ways=together.ways), check)
        return updates


def trials_of(records: Sequence[TrialRecord]) -> list[Trial]:
    """What is to be trained by what the Ledger says of trials; without those that cannot be read."""
    return [one.trial for one in records if isinstance(one.trial, Trial)]


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
