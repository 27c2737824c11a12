"""The engine of workloads that train themselves: reports become measurements, kept objects become checkpoints.

What it promises is what a first look has measured.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

from tuner.delegated.promised import inspected
from tuner.delegated.reports import Reports
from tuner.delegated.setup import LoopSetup
from tuner.delegated.trainee import LoopTrainee
from tuner.delegated.trial import LoopTrial
from tuner.design.trial import Trial
from tuner.errors import WorkloadError
from tuner.records import LOOP_FOLDER, Claim, Promises, Recorder, State, TrialUpdate
from tuner.stores.uploads import local_folder
from tuner.training.committing import Committing, Outcome
from tuner.training.endings import ending
from tuner.training.engine import Asked, Engine, Inspection, OnStep
from tuner.training.logbook import Logbook
from tuner.training.randomness import callers_generators_restored

logger = logging.getLogger(__name__)
SAID_EVERY = 0.2  # seconds between signs of a trial's progress


class One:
    """The one trial of a cohort."""

    def __init__(self) -> None:
        self.live = [0]

    def retire(self, member: int) -> None:
        """The trial has ended."""
        self.live.remove(member)


class LoopTrainer(Committing):
    """Trains one claimed trial after the other by the `train` of its workload."""

    def __init__(self, engine: Engine, setup: LoopSetup, recorder: Recorder, on_step: OnStep) -> None:
        super().__init__(setup, recorder)
        self.engine = engine
        self.loop_setup = setup
        self.on_step = on_step

    def train(self, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """Train the first trial to its end, or to where the setup says stop. Others stay without an update.

        Raises LeaseLost when another worker owns the trial, WorkloadError where the loop breaks its contract.
        """
        self.ended, claim, device = {}, claims[0], self.loop_setup.device
        self.committed_at = self.counted_at = time.monotonic()
        try:
            with callers_generators_restored(device), closing(self.saver):
                book = Logbook(self.setup, claim, LoopTrainee(self.loop_setup, claim.trial))
                self.books = [book]
                self._train(book)
        finally:
            self.books = []
        return [self.ended[claim.trial_id]] if claim.trial_id in self.ended else []

    def _train(self, book: Logbook) -> None:
        """Train the trial of a book, and record how it ended where the loop has failed."""
        training = None
        try:
            book.resume()
            training = Training(self, book)
            LoopTrial(training).train_with(self.loop_setup)
            training.check_over()
        except Exception as error:
            state, reason = ending(error)
            if training is None or not training.over:
                self.commit([Outcome.failed(book, state, reason)])
            else:  # it ended, or was stopped, before: that is recorded
                logger.warning("trial %d was over when its loop failed: %s", book.claim.trial.number, reason)


class Training:
    """One trial in training: what the loop says goes to the logbook, and is committed by the clock."""

    def __init__(self, trainer: LoopTrainer, book: Logbook) -> None:
        self.trainer, self.book = trainer, book
        self.due = trainer.setup.study.budget.evaluation_steps
        self.reports = Reports(trainer.loop_setup, self.due, self.trainee.step)
        self.over = False
        self._stop = trainer.setup.stop
        self._began = False
        self._quiet_until = 0.0  # a step before which nothing is due
        self._said = self._wake_at = 0.0  # by the monotonic clock
        self._reached = 0  # updates made, where that is more than what is kept

    @property
    def trainee(self) -> LoopTrainee:
        trainee = self.book.trainee
        if not isinstance(trainee, LoopTrainee):
            raise TypeError(f"a loop trains a LoopTrainee, not a {type(trainee).__name__}")
        return trainee

    @property
    def folder(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    @cached_property
    def _folder(self) -> Path:
        kept = self.book.folder
        path = local_folder(kept.root, kept.place) / LOOP_FOLDER
        if not isinstance(kept.root, Path) and not path.exists():
            logger.warning("what the loop writes into its trial.folder stays on this machine: %s", path)
        return path

    def reported(self, step: int, values: Mapping[str, Any]) -> None:
        if self.over:
            return
        self.alive()
        measured = self.reports.checked(step, values)
        self.trainee.step, before = step, self.trainee.step
        try:
            self.book.evaluated(measured, reuse=not self.trainer.saver.busy)
        finally:
            self.trainee.step = before

    def arrived(self, step: int) -> bool:
        """Most steps end here at once: nothing is due at them, nobody says stop, and the clock says not yet."""
        stop = self._stop()
        if step < self._quiet_until and not stop and time.monotonic() < self._wake_at:
            return False
        if self.over:
            return True
        if not self._began:  # by now the loop has made its model
            self._began = True
            self.book.frozen.begin(self.trainee.frozen())
        self.reports.refuse_missing(step)
        self.over = self._has_ended(step, stop)
        if self.over:
            self._quiet_until = 0.0
            return True
        self.book.pin()
        self._quiet_until = min(self.reports.next_due, self.book.next_pin)
        self._commit_if_due()
        return False

    def _has_ended(self, step: int, stop: bool) -> bool:
        """Record the end of the trial, or a stop."""
        trainer = self.trainer
        if self.reports.diverged:
            end = State.INFEASIBLE, self.reports.diverged
        elif step >= self.due[-1]:
            end = self.book.end()
        elif stop:
            end = State.RUNNING, ""
        else:
            return False
        self.book.pin()
        trainer.commit([Outcome(self.book, *end)])
        return True

    def _commit_if_due(self) -> None:
        trainer = self.trainer
        self.alive()
        outcomes = trainer.due_by_clock(One())
        if outcomes:
            trainer.commit(outcomes, goes_on=True)
        self._wake_at = min(self._said + SAID_EVERY, trainer.committed_at + trainer.setup.commit_seconds)

    def alive(self, reached: int = 0) -> None:
        self._reached = max(self._reached, reached)
        now = time.monotonic()
        if now - self._said >= SAID_EVERY:
            self._said = now
            self.trainer.on_step(self.book.claim, max(self.trainee.step, self._reached))

    def check_over(self) -> None:
        """Raise WorkloadError where the loop has returned before its trial ended."""
        if not self.over:
            raise WorkloadError(self.reports.returned_early(self.trainee.step))


class Delegated:
    """Trains one trial at a time by the loop of its workload."""

    def __init__(self, setup: LoopSetup) -> None:
        self.setup = setup

    @property
    def promises(self) -> Promises:
        """What was measured; trials never train as one stacked model."""
        return self.setup.promises

    def inspect(self, trials: Sequence[Trial], asked: Asked) -> Inspection:
        """Let the loop train the first steps of a throw-away trial."""
        return inspected(self.setup, asked)

    def settle(self, trial: Trial) -> None:
        """Nothing: the loop decides what is deterministic."""

    def trainer(self, recorder: Recorder, on_step: OnStep) -> LoopTrainer:
        """A trainer that calls the loop."""
        return LoopTrainer(self, self.setup, recorder, on_step)
