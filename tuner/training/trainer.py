"""The training loop of one trial: train to the next evaluation, evaluate, keep the best, commit by the clock."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from tuner.design.objective import BATCH_LOSS, GRADIENT_NORM, Objective
from tuner.errors import CorruptCheckpoint, Interrupted, LeaseLost, StudyChanged, Unreachable
from tuner.records import Checkpoint, Claim, Inherited, Measurement, Prefix, Recorder, State, TrialUpdate
from tuner.training.checkpoints import CheckpointFolder
from tuner.training.denormals import denormals_as_zero
from tuner.training.endings import ending, is_out_of_memory, raise_lost_device
from tuner.training.finite import what_spoiled
from tuner.training.randomness import callers_generators_restored
from tuner.training.saving import BACKGROUND_BYTES, BackgroundSaver, Copies, Write, num_bytes
from tuner.training.setup import TrainingSetup
from tuner.training.stability import Divergence, diverged_loss, diverged_weights
from tuner.training.trial_run import TrialRun
from tuner.training.trunks import go_on_from, prefix_key, write_trunk

CHECK_STEPS = 50  # losses are read back and checked at least this often
# What loading raises when a file is damaged, or holds the state of another model.
_NOT_A_STATE = (CorruptCheckpoint, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
MOST_PENDING = 200_000  # measurements kept in memory while the database is away

logger = logging.getLogger(__name__)
OnStep = Callable[[Claim, int], None]


class Trainer:
    """Trains claimed trials of one study and hands what they say to a recorder.

    `on_step(claim, step)` is told about progress every few steps.
    """

    def __init__(self, setting: TrainingSetup, recorder: Recorder, on_step: OnStep = lambda claim, step: None) -> None:
        self.setting = setting
        self.recorder = recorder
        self.on_step = on_step
        self.copies = Copies()

    def train(self, claim: Claim) -> TrialUpdate:
        """Train a trial to its end, to its divergence, or to where the setting says stop.

        Returns the last update committed; its state is RUNNING when the trial was stopped and can go on.
        Errors of the user's code end the trial; errors of the machine are raised, and the trial goes on later.
        """
        training: TrialInTraining | None = None
        with callers_generators_restored(self.setting.device), denormals_as_zero(self.setting.device):
            try:
                training = TrialInTraining(self, claim)
                return training.to_the_end()
            except Exception as error:
                state, reason = ending(error)
        # Outside the handlers: an exception holds the frames, and they hold the tensors.
        update = given_up(claim, training, state, reason)
        self.recorder.record([update])
        return update


def given_up(claim: Claim, training: "TrialInTraining | None", state: State, reason: str) -> TrialUpdate:
    """The end of a trial where it stands; what was committed before stays."""
    step, measured = (training.run.step, tuple(training.pending)) if training else (0, ())
    cut, inherited = (training.cut_back_to, training.inherited) if training else (None, None)
    return TrialUpdate(
        claim.trial_id, claim.fence, step, measured, None, state, reason, cut_back_to=cut, inherited=inherited
    )


class TrialInTraining:
    """One trial on its way: what has been measured but not committed, and when the last commit was."""

    def __init__(self, trainer: Trainer, claim: Claim) -> None:
        self.trainer = trainer
        self.setting = trainer.setting
        self.claim = claim
        place = f"{self.setting.checkpoint_place}/trial-{claim.trial.number:05d}"
        self.folder = CheckpointFolder(self.setting.checkpoint_root, place, claim.fence)
        self.run = TrialRun(self.setting, claim.trial)
        self.run.note_initial()
        self.pending: list[Measurement] = []
        self.checkpoints: tuple[Checkpoint, ...] = ()  # all that the Ledger may know
        self.newest: tuple[Checkpoint, ...] = ()  # those of the last commit; the others are of the one before it
        self.cut_back_to: int | None = None
        self.lost_steps = False  # of those that the Ledger names: they are trained again
        self.checked = 0  # losses already known to be finite
        self.written: tuple[Checkpoint, ...] = ()
        self.beside: tuple[Checkpoint, ...] = ()  # saved beside the training, and overtaken by a commit
        self.trunks: tuple[Checkpoint, ...] = ()
        self.saver = BackgroundSaver()
        self.inherited = claim.inherited
        self.owes_evaluation = False  # it was stopped in the midst of the one at its step
        self.committed_at = time.monotonic()

    def _begun_again(self) -> TrialRun:
        """A fresh run where a state could not be loaded; it begins as the one before it did."""
        run = TrialRun(self.setting, self.claim.trial)
        run.initial, run.first_loss = self.run.initial, self.run.first_loss
        return run

    def to_the_end(self) -> TrialUpdate:
        self.resume()
        return self.go_on()

    def go_on(self) -> TrialUpdate:
        """Train on from where the trial stands."""
        try:
            return self._go_on()
        finally:
            self.saver.close()

    def _go_on(self) -> TrialUpdate:
        evaluation_steps = self.setting.study.budget.evaluation_steps
        done = self.run.step - self.owes_evaluation
        for target in (step for step in evaluation_steps if step > done):
            divergence = self._train_to(target)
            if divergence is not None:
                return self._commit(State.INFEASIBLE, str(divergence))
            if self.run.step < target:
                return self._commit(State.RUNNING)
            try:
                self.evaluate()
            except Interrupted:
                return self._commit(State.RUNNING)
            self.pin()
            if target < evaluation_steps[-1]:
                self._keep_up()
        return self._commit(*self.end())

    def end(self) -> tuple[State, str]:
        """How a trial ends that was trained to its last step: without one finite value it can be no result (D27)."""
        if self.run.best.kept:
            return State.COMPLETE, ""
        return State.INFEASIBLE, f"{self.setting.study.objective.metric} was not finite at any evaluation"

    def _train_to(self, target: int) -> Divergence | None:
        """Train to the next evaluation or to a stop; read the losses back in blocks."""
        run = self.run
        while run.step < target:
            stopped = run.advance(min(target, run.step + CHECK_STEPS, self.next_pin), self.saver.over)
            divergence = self.check_losses()
            if divergence is not None or stopped:
                return divergence
            self.trainer.on_step(self.claim, run.step)
            if run.step < target:
                self.pin()
                self._keep_up()
        return None

    @property
    def next_pin(self) -> int:
        """The next step at which this trial leaves a trunk; beyond its end where there is none."""
        return min((step for step in self.claim.trial.pins if step > self.run.step), default=len(self.run.rates) + 1)

    def pin(self) -> None:
        """Leave a trunk where the plan asks for one; the next commit tells of it."""
        pinned = any(trunk.step == self.run.step for trunk in self.trunks)
        if self.run.step in self.claim.trial.pins and self.run.base and not pinned:
            self.trunks += (write_trunk(self.folder, self.run),)

    def check_losses(self) -> Divergence | None:
        """Read back the losses that were not read yet; what is wrong with them, or with gradient and weights."""
        run = self.run
        new = run.losses[self.checked :]
        if not new:
            return None
        values = torch.stack(new).tolist()
        self.checked = len(run.losses)
        divergence = diverged_loss(values, run.step - len(new))
        divergence = divergence or diverged_weights(run.read_gradient_norm(), run.parameters, run.step)
        return divergence and replace(divergence, what=divergence.what + what_spoiled(run, divergence.step))

    def evaluate(self, measured: dict[str, float] | None = None) -> None:
        """Take down the metrics at this step (evaluated here, unless they are given) and keep the best weights.

        Raises Interrupted, with nothing changed, where the setting says stop.
        """
        run = self.run
        measured = run.evaluate() if measured is None else measured
        batch_losses = torch.stack(run.losses).tolist()
        measured[str(BATCH_LOSS)] = math.fsum(batch_losses) / len(batch_losses)
        measured[str(GRADIENT_NORM)] = run.gradient_norm
        run.losses, self.checked, self.owes_evaluation = [], 0, False
        self.pending += [Measurement(run.step, name, value) for name, value in measured.items()]
        value = measured[self.setting.study.objective.metric]
        run.best.offer(run.step, value, run.model, reuse=not self.saver.busy)

    def commit_is_due(self) -> bool:
        """Whether the last commit is so long ago that another one pays."""
        return time.monotonic() - self.committed_at >= self.setting.commit_seconds

    def _keep_up(self) -> None:
        """In the midst of the training: record what was saved beside it, and save again where that is due."""
        if self.saver.over():
            update, self.written = self.saver.result()
            self._record(replace(update, checkpoints=self._with_previous(self.written)), goes_on=True)
        if self.saver.busy or not self.commit_is_due():
            return
        state = self.run.state()
        if num_bytes(state) < BACKGROUND_BYTES:
            self._commit(State.RUNNING, goes_on=True)
        else:
            self.committed_at = time.monotonic()
            copy, copied = self.trainer.copies.of(state, self.run.optimizer, self.saver.thread)
            self.saver.start(self._told(State.RUNNING, ""), self._writes(copy), copied)

    def _commit(self, state: State, reason: str = "", *, goes_on: bool = False) -> TrialUpdate:
        """Files first, then the transaction that points to them, then the deletion of what it no longer names."""
        return self._record(self.update(state, reason), goes_on=goes_on)

    def _record(self, update: TrialUpdate, *, goes_on: bool) -> TrialUpdate:
        """Commit an update whose files are written.

        A training that `goes_on` does so without the database, and writes everything at a later commit.
        """
        try:
            self.trainer.recorder.record([update])
        except LeaseLost:
            self.forsaken()
            raise
        except Unreachable as error:
            if not goes_on or len(self.pending) > MOST_PENDING:
                raise
            logger.warning("trial %d trains on without the database: %s", self.claim.trial.number, error)
            self.not_committed()
            return update
        self.committed(update)
        return update

    def update(self, state: State, reason: str = "") -> TrialUpdate:
        """What there is to say since the last commit, its checkpoint files written."""
        if self.saver.busy:  # one save at a time; its files need not be written again
            _, self.beside = self.saver.result()
        self.written = self._write_checkpoints(state)
        self.committed_at = time.monotonic()
        checkpoints = self.written if state is not State.RUNNING else self._with_previous(self.written)
        return replace(self._told(state, reason), checkpoints=checkpoints)

    def _told(self, state: State, reason: str) -> TrialUpdate:
        """What there is to say, without the files."""
        return TrialUpdate(
            trial_id=self.claim.trial_id,
            fence=self.claim.fence,
            step=self.run.step,
            measurements=tuple(self.pending),
            state=state,
            reason=reason,
            numerics=self.run.numerics,
            cut_back_to=self.cut_back_to,
            inherited=self.inherited,
            set_back=self.lost_steps and self.run.step <= self.claim.farthest,
        )

    def committed(self, update: TrialUpdate) -> None:
        """An update of this trial stands in the record: files that it does not name may go, but for new trunks."""
        checkpoints = tuple(update.checkpoints or ())
        self.folder.sweep({checkpoint.file for checkpoint in (*checkpoints, *self.trunks)})
        self.pending = self.pending[len(update.measurements) :]
        self.checkpoints, self.newest, self.beside, self.cut_back_to = checkpoints, self.written, (), None

    def not_committed(self) -> None:
        """An update did not reach the database; its files are good, and a later update names them."""
        mine = (*self.written, *self.beside)
        self.checkpoints += tuple(checkpoint for checkpoint in mine if checkpoint not in self.checkpoints)

    def latest_value(self) -> float | None:
        """The selection metric at the present step, where it was evaluated since the last commit."""
        return _value_at(self.pending, self.setting.study.objective, self.run.step)

    def forsaken(self) -> None:
        """The trial is another worker's now: what we wrote for an update that was refused goes again."""
        self.folder.remove((*self.written, *self.beside), but=self.checkpoints)

    def _with_previous(self, newest: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
        """Two generations: should the newest turn out damaged, the one before it is whole (R21)."""
        before = self.checkpoints if newest == self.newest else self.newest
        return newest + tuple(checkpoint for checkpoint in before if checkpoint not in newest)

    def _write_checkpoints(self, state: State) -> tuple[Checkpoint, ...]:
        writes = self._writes(None if state is State.INFEASIBLE else self.run.state())
        written = [write() for write in writes]
        if state is State.COMPLETE:
            place = next(i for i, checkpoint in enumerate(written) if checkpoint.kind == "latest")
            written[place] = replace(written[place], prefix=prefix_key(self.run))
        return tuple(written)

    def _writes(self, state: Mapping[str, Any] | None) -> list[Write]:
        """How each file that there has to be comes about: weights, the state where one is given, trunks."""
        known = {(checkpoint.kind, checkpoint.step): checkpoint for checkpoint in (*self.checkpoints, *self.beside)}
        writes: list[Write] = []
        latest = known.get(("latest", self.run.step))
        followed = state is not None and latest is None
        for kept in self.run.best.kept:
            there = known.get(("best", kept.step))
            write = partial(self.folder.write_weights, kept.step, kept.weights, kept.value, followed)
            writes.append(write if there is None else partial(_same, there))
        if state is not None:
            write = partial(self.folder.write_state, "latest", self.run.step, state, self.latest_value())
            writes.append(write if latest is None else partial(_same, latest))
        return writes + [partial(_same, trunk) for trunk in self.trunks]

    def resume(self) -> None:
        """Go on from the furthest state of its own that is whole; else from the longest prefix; else from step 0."""
        mine = self.claim.checkpoints
        self.folder.sweep({checkpoint.file for checkpoint in mine})
        own = (checkpoint for checkpoint in mine if checkpoint.kind != "best")
        states = sorted(own, key=lambda checkpoint: (checkpoint.step, checkpoint.kind == "latest"), reverse=True)
        for saved in states:
            if self._resumed_from(saved):
                self.cut_back_to = None if saved.step == states[0].step else saved.step
                self.lost_steps = self.cut_back_to is not None
                return
        self.cut_back_to = -1 if states else None
        self.lost_steps = self.cut_back_to is not None
        self.inherited = next((started for p in self.claim.prefixes if (started := self._started_from(p))), Inherited())
        if self.claim.prefixes and not self.inherited.steps:
            logger.warning("trial %d starts from its first step: no prefix can be taken over", self.claim.trial.number)

    def _resumed_from(self, saved: Checkpoint) -> bool:
        """Whether this state and the weights it speaks of are whole; then they are loaded."""
        mine = [checkpoint for checkpoint in self.claim.checkpoints if checkpoint.step <= saved.step]
        bests = self._loaded(saved, [checkpoint for checkpoint in mine if checkpoint.kind == "best"])
        if bests is None:
            return False
        at_evaluation = self.run.step in self.setting.study.budget.evaluation_steps
        self.owes_evaluation = at_evaluation and bool(self.run.losses)  # an evaluation clears them
        self.trunks = tuple(checkpoint for checkpoint in mine if checkpoint.kind == "trunk")
        self.newest = tuple(dict.fromkeys((*bests, saved, *self.trunks)))
        self.checkpoints = self.newest + tuple(c for c in mine if c.step < saved.step and c not in self.newest)
        return True

    def _started_from(self, prefix: Prefix) -> Inherited | None:
        """What is taken over from another trial, once its state is loaded; None where that is lost or damaged."""
        try:
            loaded = self._loaded(prefix.checkpoint, prefix.weights)
        except StudyChanged:
            number = self.claim.trial.number
            logger.warning(
                "trial %d takes over no %d steps: they were begun from other initial weights, or with another loss",
                number,
                prefix.step,
            )
            self.run = self._begun_again()
            return None
        if loaded is None:
            return None
        self.pending = list(prefix.measurements)
        return Inherited(prefix.step, prefix.trial_id)

    def _loaded(self, saved: Checkpoint, weights: Sequence[Checkpoint]) -> tuple[Checkpoint, ...] | None:
        """Load a state into the fresh run; the best checkpoints that belong to it, None when it is not whole."""
        try:
            bests = go_on_from(self.run, self.setting.checkpoint_root, saved, weights)
        except _NOT_A_STATE as error:
            if is_out_of_memory(error):
                raise
            raise_lost_device(error)
            logger.warning("trial %d cannot go on from %s: %s", self.claim.trial.number, saved.file, error)
            self.run = self._begun_again()
            return None
        self.checked = len(self.run.losses)
        return bests


def _same(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint


def _value_at(measurements: list[Measurement], objective: Objective, step: int) -> float | None:
    return next((m.value for m in measurements if m.step == step and m.metric == objective.metric), None)
