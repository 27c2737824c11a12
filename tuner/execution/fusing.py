"""How many trials train as one stacked model: as many as the user says, or as a short probe finds best.

Several workers share a study evenly, so that none idles while another trains all that is left.
"""

import gc
import logging
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import cast

from tuner.design.trial import Trial
from tuner.errors import NotFusible
from tuner.execution.backend import Job
from tuner.execution.machine import Fuse
from tuner.execution.recorded_fusions import RecordedFusions
from tuner.fused.engine import Fused
from tuner.fused.fusion import (
    FEWEST_STEPS,
    best_fusion,
    check_some_alike,
    largest_group,
    steps_ahead,
    trials_that_fit,
)
from tuner.records import Claim, Recorder, State, TrialRecord, TrialUpdate
from tuner.shown import readable_bytes
from tuner.training.endings import is_out_of_memory
from tuner.training.engine import Engine, Fusion, OnStep, Trainer
from tuner.training.first_loss import left_as_it_was
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup
from tuner.training.step_memory import foreseen_memory
from tuner.training.trial_run import TrialRun

_log = logging.getLogger(__name__)
MOST_COMPARED = 64  # of a shape, where no two models are alike


@dataclass(slots=True)
class TrainingGroup:
    """Claimed trials that train together, and what trains them.

    fusion: why so many train together; None for a trial alone. updates: the last update of each trial that was
    trained, once it was.
    """

    claims: Sequence[Claim]
    trainer: Trainer
    fusion: Fusion | None = None
    updates: Sequence[TrialUpdate] = ()


class FusionPlanner:
    """Decides which claimed trials of one study train together, as the machine says and as keeps their bits."""

    def __init__(self, job: Job, engine: Engine, recorder: Recorder, on_step: OnStep) -> None:
        machine = job.workload.machine
        fusing = (engine.promises.fusing and machine.gang == 1) or isinstance(machine.fuse, int)
        self.fuse: Fuse = machine.fuse if fusing else "off"  # a gang trains one trial at a time
        self.worker_count = machine.worker_count or 1  # processes that train this study
        self.ledger = job.ledger
        self.row = job.row
        self.setup = cast(TrainingSetup, engine.setup)  # read only where trials may train together
        self.recorder = recorder
        self.on_step = on_step
        self.alone = engine.trainer(recorder, on_step)
        self.recorded = RecordedFusions(job.ledger, job.row, engine.setup.numerics)
        self._promised = engine.promises.fusing
        self._checked: set[str] = set()
        self._fitting: dict[str, int] = {}  # trials of a shape group that the memory holds
        self._groups: set[str] | None = None
        self._unlike = False  # whether the user was told that models are not alike
        self._short = False  # too short for a probe

    def claim_size(self) -> int:
        """How many trials to claim at a time."""
        most = self._most_trials()
        if most == 1 or self.worker_count == 1:
            return most
        counts = self.ledger.state_counts(self.row.study_id)
        return even_share(counts[State.WAITING], counts[State.RUNNING], most, self.worker_count)

    def _most_trials(self) -> int:
        if self.fuse == "off" or isinstance(self.fuse, int):
            return 1 if self.fuse == "off" else self.fuse
        if self._groups is None:
            trials = self.ledger.trials(self.row.study_id)
            self._groups = {self.row.study.shape_group(one.point) for one in trials}
            left = sum(not one.state.finished for one in trials)
            self._short = steps_ahead(self.setup, left, self.worker_count) < FEWEST_STEPS
        known = [fusion.num_trials for group in self._groups if (fusion := self.recorded.of(group)) is not None]
        if known and len(known) == len(self._groups):
            return max(known)
        return 1 if self._short else largest_group(self.setup.device)

    def group(self, claims: Sequence[Claim]) -> TrainingGroup:
        """The trials to train now; the others are released. None of them where only now fusing is found to fail."""
        claims = self._only(claims, _of_one_history(claims))
        if self.fuse == "off" or len(claims) == 1:
            return TrainingGroup(claims[:1], self.alone)
        try:
            fusion = self._wanted(claims) if isinstance(self.fuse, int) else self._best(claims)
        except (NotFusible, RuntimeError, MemoryError) as error:
            if not self.can_go_on(TrainingGroup(claims, self.alone, Fusion(len(claims), "tried")), error):
                raise
            return TrainingGroup((), self.alone)
        claims = self._only(claims, claims[: fusion.num_trials])
        if fusion.num_trials == 1:
            return TrainingGroup(claims, self.alone)
        return TrainingGroup(claims, Fused(self.setup).trainer(self.recorder, self.on_step), fusion)

    def can_go_on(self, group: TrainingGroup, error: Exception) -> bool:
        """Whether the trials of a group that could not train together can train in smaller groups from now on.

        Raises NotFusible where the user named the number of trials.
        """
        if group.fusion is None:
            return False
        shape, count = group.claims[0].trial.shape_group, len(group.claims)
        if isinstance(error, NotFusible):
            if isinstance(self.fuse, int):
                message = f"{error}; --fuse auto trains such trials one by one, --fuse off trains all so"
                raise NotFusible(message) from error
            _log.warning("these trials are trained one by one: %s", error)
            self.recorded.keep(shape, Fusion(1, str(error), probed=True))
            return True
        if not is_out_of_memory(error):
            return False
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
        gc.collect()
        _log.warning("%d trials together ran out of memory; training %d%s", count, count // 2, self._needed(group))
        self._fitting[shape] = max(1, count // 2)
        self.recorded.keep(shape, Fusion(count // 2, f"{count} trials together ran out of memory"))
        return True

    def _needed(self, group: TrainingGroup) -> str:
        """What one of the trials needs and what is free, once nothing holds the memory of the group."""
        setup = self.setup
        with suppress(Exception), callers_generators_restored(setup.device), left_as_it_was(setup.workload):
            memory = foreseen_memory(TrialRun(setup, group.claims[0].trial))
            return f": {memory.words}; {readable_bytes(memory.free)} free"
        return ""

    def note_trained(self, group: TrainingGroup) -> None:
        """Record how a group was trained, and with which result of the self-check."""
        engine = group.trainer.engine
        if group.fusion is None or not isinstance(engine, Fused):
            return
        if engine.unlike and not self._unlike:
            self._unlike = True
            _log.warning("trials are trained one by one: %s", engine.unlike)
        shape = group.claims[0].trial.shape_group
        if shape not in self._checked and engine.ways:
            self._checked.add(shape)
            check = "identical" if self.setup.profile == "exact" else "equal to rounding"
            self.recorded.keep(shape, replace(group.fusion, ways=engine.ways), check)

    def _only(self, claims: Sequence[Claim], chosen: Sequence[Claim]) -> Sequence[Claim]:
        """Release the others at once: other workers can train them, and they must not die with this one."""
        self.ledger.release([claim for claim in claims if claim not in chosen])
        return chosen

    def _wanted(self, claims: Sequence[Claim]) -> Fusion:
        """As many trials as the user says and the memory holds. Raises NotFusible."""
        if not self._promised:
            raise NotFusible("the engine of this study trains each trial for itself")
        shape = claims[0].trial.shape_group
        wanted = int(self.fuse)
        if shape not in self._fitting:
            self._check_alike(shape)
            trials = [claim.trial for claim in claims]
            most = self._fitting[shape] = trials_that_fit(self.setup, trials, workers=self.worker_count)
            if most < wanted:
                _log.warning("%d trials do not fit into the free memory together; training %d", wanted, most)
        return Fusion(min(wanted, self._fitting[shape]), f"--fuse {wanted}")

    def _check_alike(self, shape: str) -> None:
        """Raise NotFusible where no two trials of a shape have models that are alike.

        All trials are compared, also finished ones, so that a last trial without mates is no error.
        """
        trials = [trial for trial in trials_of(self.ledger.trials(self.row.study_id)) if trial.shape_group == shape]
        check_some_alike(self.setup, trials[:MOST_COMPARED])

    def _best(self, claims: Sequence[Claim]) -> Fusion:
        """The fusion that was recorded before, or else the result of a probe, which is recorded."""
        trials = [claim.trial for claim in claims]
        known = self.recorded.of(trials[0].shape_group)
        if known is not None:
            return known
        counts = self.ledger.state_counts(self.row.study_id)
        ahead = counts[State.WAITING] + counts[State.RUNNING]
        fusion = best_fusion(self.setup, trials, ahead, workers=self.worker_count)
        self.recorded.keep(trials[0].shape_group, fusion)
        return fusion


def trials_of(records: Sequence[TrialRecord]) -> list[Trial]:
    """The trials of these records, without those that cannot be read."""
    return [one.trial for one in records if isinstance(one.trial, Trial)]


def even_share(waiting: int, running: int, most: int, worker_count: int) -> int:
    """How many of the waiting trials one worker claims, at most `most`, so that all workers end at about one time."""
    rounds = -(-(waiting + running) // (most * worker_count))
    share = -(-(waiting + running) // (max(1, rounds) * worker_count))
    groups = -(-waiting // most)
    return max(1, min(share, -(-waiting // max(1, groups))))


def _of_one_history(claims: Sequence[Claim]) -> Sequence[Claim]:
    """The first trial and mates that were tried as often: ever fewer mates from the third attempt on, and then none.

    So a trial that kills its worker takes no mates with it into quarantine.
    """
    attempt = claims[0].attempt
    most = {1: len(claims), 2: len(claims), 3: max(1, len(claims) // 8)}.get(attempt, 1)
    return [claim for claim in claims if claim.attempt == attempt][:most]
