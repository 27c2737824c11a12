"""The books of a trial in training: which checkpoint files exist, and what has been reported of it.

Files are written first, then the transaction that names them, and only then are files deleted that it no longer names.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from tuner.design.patience import stalled
from tuner.errors import CorruptCheckpoint, StudyChanged
from tuner.records import (
    GROUP_FOLDER,
    STOPPED_EARLY,
    Checkpoint,
    Claim,
    Inherited,
    Measurement,
    Prefix,
    State,
    TrialUpdate,
    is_shard,
)  # fmt: skip
from tuner.stores import tidying
from tuner.training.best import BestKeeper, Kept
from tuner.training.checkpoints import SHARDS, CheckpointFolder, read_state, read_weights, shards_of, with_shards
from tuner.training.copy_on_write import in_one_memory
from tuner.training.endings import is_out_of_memory, raise_lost_device
from tuner.training.engine import Measured, Trainee, Weights
from tuner.training.frozen import FrozenParts, Known, base_folder
from tuner.training.left_out import base_named_by
from tuner.training.saving import Write
from tuner.training.setup import StudySetup
from tuner.training.stacked_states import stacked_states

logger = logging.getLogger(__name__)
# What loading raises when a file is damaged, or holds the state of another model.
_NOT_A_STATE = (CorruptCheckpoint, LookupError, TypeError, ValueError, AttributeError, RuntimeError)


class Logbook:
    """What was measured of one trial and not committed, its best weights, and its files.

    checkpoints: all files that the Ledger may know. newest: those of the last commit; the others are of the one before.
    written: those of the update that is about to be committed. in_background: saved by the background thread, and
    overtaken by a commit. trunks: states from which other trials may start. cut_back_to: the step from which training
    went on, where the Ledger knew a later one (-1: from the beginning). owes_evaluation: the trial was stopped within
    the evaluation of its step.
    """

    def __init__(self, setup: StudySetup, claim: Claim, trainee: Trainee) -> None:
        self.setup = setup
        self.claim = claim
        self.trainee = trainee
        place = f"{setup.checkpoint_place}/trial-{claim.trial.number:05d}"
        self.folder = CheckpointFolder(setup.checkpoint_root, place, claim.fence)
        bases = base_folder(setup.checkpoint_root, setup.checkpoint_place, claim.fence)
        self.frozen = FrozenParts(bases, claim.trial.number, trainee.frozen())
        self.best = BestKeeper(setup.study.objective, setup.study.keep_best)
        self.pending: list[Measurement] = []
        self.checkpoints: tuple[Checkpoint, ...] = ()
        self.newest: tuple[Checkpoint, ...] = ()
        self.written: tuple[Checkpoint, ...] = ()
        self.in_background: tuple[Checkpoint, ...] = ()
        self.trunks: tuple[Checkpoint, ...] = ()
        self.cut_back_to: int | None = None
        self.inherited = claim.inherited
        self.owes_evaluation = False
        self.seconds = claim.seconds  # for how long it was trained, its share of a group
        self._lost_steps = False  # steps that the Ledger names are trained again

    def resume(self) -> None:
        """Load the furthest state of the trial's own that is whole; else the longest prefix; else begin at step 0."""
        mine = self.claim.checkpoints
        self.folder.sweep({checkpoint.file for checkpoint in mine})
        for checkpoint in mine:
            self.frozen.mend(checkpoint, self.trainee.frozen())
        own = (checkpoint for checkpoint in mine if checkpoint.kind != "best" and not is_shard(checkpoint.kind))
        states = sorted(own, key=lambda checkpoint: (checkpoint.step, checkpoint.kind == "latest"), reverse=True)
        for saved in states:
            if self._resumed_from(saved):
                self.cut_back_to = None if saved.step == states[0].step else saved.step
                self._lost_steps = self.cut_back_to is not None
                return
        self.cut_back_to = -1 if states else None
        self._lost_steps = self.cut_back_to is not None
        self.inherited = next((started for p in self.claim.prefixes if (started := self._started_from(p))), Inherited())
        if self.claim.prefixes and not self.inherited.steps:
            logger.warning("trial %d starts from its first step: no prefix can be inherited", self.claim.trial.number)

    def _resumed_from(self, saved: Checkpoint) -> bool:
        """Whether this state and the weights it names are whole; then they are loaded."""
        mine = [checkpoint for checkpoint in self.claim.checkpoints if checkpoint.step <= saved.step]
        bests = self._loaded(saved, [checkpoint for checkpoint in mine if checkpoint.kind == "best"])
        if bests is None:
            return False
        at_evaluation = self.trainee.step in self.setup.study.budget.evaluation_steps
        self.owes_evaluation = at_evaluation and self.trainee.unevaluated > 0
        trunks = [checkpoint for checkpoint in mine if checkpoint.kind == "trunk"]
        self.trunks = tuple(part for trunk in trunks for part in (trunk, *_shards_at(trunk.step, mine)))
        self.newest = tuple(dict.fromkeys((*bests, saved, *_shards_at(saved.step, mine), *self.trunks)))
        self.checkpoints = self.newest + tuple(c for c in mine if c.step < saved.step and c not in self.newest)
        return True

    def _started_from(self, prefix: Prefix) -> Inherited | None:
        """What is inherited from another trial, once its state is loaded; None where that is lost or damaged."""
        try:
            loaded = self._loaded(prefix.checkpoint, prefix.weights)
        except StudyChanged:
            logger.warning(
                "trial %d inherits no %d steps: they began from other initial weights, or with another loss",
                self.claim.trial.number, prefix.step,
            )  # fmt: skip
            self._begin_again()
            return None
        if loaded is None:
            return None
        self.pending = list(prefix.measurements)
        if self.trainee.unevaluated and any(one.step == self.trainee.step for one in self.pending):
            # It was saved before the evaluation of its step, by a version that kept such a state of an ended trial.
            self.pending = []
            self._begin_again()
            return None
        return Inherited(prefix.step, prefix.trial_id)

    def _loaded(self, saved: Checkpoint, weights: Sequence[Checkpoint]) -> tuple[Checkpoint, ...] | None:
        """Load a state; the best checkpoints that belong to it, None when it is not whole."""
        try:
            return self._load(saved, weights)
        except _NOT_A_STATE as error:
            if is_out_of_memory(error):
                raise
            raise_lost_device(error)
            logger.warning("trial %d cannot go on from %s: %s", self.claim.trial.number, saved.file, error)
            self._begin_again()
            return None

    def _load(self, saved: Checkpoint, weights: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
        """A trunk holds its best weights itself; those of other states are files of their own."""
        root = self.setup.checkpoint_root
        state = read_state(root, saved)
        bests: tuple[Checkpoint, ...] = ()
        if "best_weights" in state:
            best_weights: Mapping[int, Weights] = state["best_weights"]
        else:
            file_at = {kept.step: kept for kept in weights}
            bests = tuple(file_at[step] for step, _ in state["best"])
            best_weights = {kept.step: read_weights(root, kept) for kept in bests}
        self.trainee.load(state)
        live = self.trainee.frozen()
        for step, value in state["best"]:
            place = torch.device("cpu") if SHARDS in state else self.setup.device  # a device has no room for the whole
            on_device = {name: tensor.to(place) for name, tensor in best_weights[step].items()}
            kept = {name: in_one_memory(tensor, live.get(name)) for name, tensor in on_device.items()}
            self.best.restore(step, value, kept)
        return bests

    def _begin_again(self) -> None:
        self.trainee = self.trainee.fresh()
        self.best = BestKeeper(self.setup.study.objective, self.setup.study.keep_best)

    def evaluated(self, measured: Measured, *, reuse: bool) -> None:
        """Note the metrics at this step, and keep the weights if they are among the best.

        `reuse`: the memory of weights that are replaced may be written to.
        """
        step = self.trainee.step
        if self.owes_evaluation:  # the state that was loaded holds losses which this evaluation has counted
            self.owes_evaluation = False
            self.checkpoints = self.newest = tuple(one for one in self.checkpoints if not _is_at(one, step))
        self.pending += [Measurement(step, name, value) for name, value in measured.items()]
        # A metric of the whole split may have no value, where a class is missing: then no weights are kept for it.
        value = measured.get(self.setup.study.objective.metric, math.nan)
        self.best.offer(step, value, self.trainee.weights, reuse=reuse)

    @property
    def at_end(self) -> bool:
        """Whether the trial has ended: after the evaluation of its last step, or of one at which it stops early."""
        step, study = self.trainee.step, self.setup.study
        evaluated = study.budget.evaluation_steps
        if step == evaluated[-1]:
            return True
        best = self.best.kept[0].step if self.best.kept else step
        return stalled(step, best, study.patience_steps) and step in evaluated

    def end(self) -> tuple[State, str]:
        """How a trial ends that is `at_end`: without one finite value it has no result (D27)."""
        study, step = self.setup.study, self.trainee.step
        if not self.best.kept:
            return State.INFEASIBLE, f"{study.objective.metric} was not finite at any evaluation"
        if step >= study.budget.max_train_steps:
            return State.COMPLETE, ""
        return State.COMPLETE, (
            f"{STOPPED_EARLY} at step {step:,}: {study.objective.metric} was best at step {self.best.kept[0].step:,} "
            f"(patience_steps={study.patience_steps:,})"
        )

    @property
    def next_pin(self) -> int:
        """The next step at which this trial leaves a trunk; beyond its end where there is none."""
        trial = self.claim.trial
        return min((step for step in trial.pins if step > self.trainee.step), default=len(trial.schedule) + 1)

    def pin(self) -> None:
        """Write a trunk where the plan asks for one and other trials may start from it; the next commit names it."""
        step = self.trainee.step
        if step not in self.claim.trial.pins or any(trunk.step == step for trunk in self.trunks):
            return
        key = self.trainee.prefix_key()
        if key is not None:
            state = self.state()
            held = {kept.step: self.frozen.marked(kept.weights, state) for kept in self.best.kept}
            trunk = self.folder.write_state("trunk", step, state | {"best_weights": held}, None, key)
            self.trunks += (trunk, *shards_of(state))

    def state(self, known: Known | None = None) -> dict[str, Any]:
        """The state of the trial, as a checkpoint holds it: without what is frozen and in a base file.

        Of a model in shards it is the part of this rank; the others have written theirs, which it names.
        `known`: digests of frozen tensors that the trials of a cohort share; added to.
        """
        state = {**self.trainee.state(), "best": [(kept.step, kept.value) for kept in self.best.kept]}
        if SHARDS in state:
            there = _shards_at(self.trainee.step, (*self.checkpoints, *self.in_background, *self.trunks))
            written = there or self.trainee.write_shards(self.folder.place, self.folder.fence)
            state = with_shards(state, written)
        return self.frozen.left_out(state, self.trainee.frozen(), known)

    def latest_value(self) -> float | None:
        """The selection metric at the present step, where it was evaluated since the last commit."""
        step, metric = self.trainee.step, self.setup.study.objective.metric
        return next((m.value for m in self.pending if m.step == step and m.metric == metric), None)

    def update(self, state: State, reason: str = "") -> TrialUpdate:
        """What happened since the last commit, its checkpoint files written."""
        self.written = self._write_files(state)
        checkpoints = self.written if state is not State.RUNNING else self.with_previous(self.written)
        return replace(self.without_files(state, reason), checkpoints=checkpoints)

    def without_files(self, state: State, reason: str = "") -> TrialUpdate:
        """What happened since the last commit."""
        self.pending += self.trainee.traced()
        return TrialUpdate(
            trial_id=self.claim.trial_id,
            fence=self.claim.fence,
            step=self.trainee.step,
            measurements=tuple(self.pending),
            state=state,
            reason=reason,
            numerics=self.trainee.numerics,
            cut_back_to=self.cut_back_to,
            inherited=self.inherited,
            groups=self.trainee.groups,
            set_back=self._lost_steps and self.trainee.step <= self.claim.farthest,
            seconds=self.seconds,
        )

    def failed(self, state: State, reason: str) -> TrialUpdate:
        """The end of a trial by an error; the checkpoints that were committed stay."""
        return replace(self.without_files(state, reason), numerics=None, set_back=False)

    def with_previous(self, newest: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
        """Two generations: should the newest turn out damaged, the one before it is whole (R21)."""
        before = self.checkpoints if newest == self.newest else self.newest
        return newest + tuple(checkpoint for checkpoint in before if checkpoint not in newest)

    def _write_files(self, state: State) -> tuple[Checkpoint, ...]:
        written = [write() for write in self.writes(None if state is State.INFEASIBLE else self.state())]
        if state is State.COMPLETE:
            place = next(i for i, checkpoint in enumerate(written) if checkpoint.kind == "latest")
            written[place] = replace(written[place], prefix=self.trainee.prefix_key())
        return tuple(written)

    def writes(self, state: Mapping[str, Any] | None) -> list[Write]:
        """How each file that there has to be is made: best weights, the state where one is given, trunks."""
        step = self.trainee.step
        known = {(one.kind, one.step): one for one in (*self.checkpoints, *self.in_background)}
        writes: list[Write] = []
        latest = known.get(("latest", step))
        followed = state is not None and latest is None
        for kept in self.best.kept:
            there = known.get(("best", kept.step))
            write = partial(self._write_best, kept, followed)
            writes.append(write if there is None else partial(_same, there))
        if state is not None:
            write = partial(self.folder.write_state, "latest", step, state, self.latest_value())
            writes.append(write if latest is None else partial(_same, latest))
        # A state that is kept needs its parts, whoever trains now: one process has none of its own.
        parts = () if state is None else (*_shards_at(step, tuple(known.values())), *shards_of(state))
        return writes + [partial(_same, one) for one in dict.fromkeys((*parts, *self.trunks))]

    def _write_best(self, kept: Kept, followed: bool) -> Checkpoint:
        return self.folder.write_weights(kept.step, self.frozen.parted(kept.weights), kept.value, followed)

    def committed(self, update: TrialUpdate) -> None:
        """An update of this trial was recorded: delete the files that it does not name, but for new trunks."""
        checkpoints = tuple(update.checkpoints or ())
        before = (*self.checkpoints, *self.newest, *self.written, *self.in_background)
        self.folder.forget(before, {checkpoint.file for checkpoint in (*checkpoints, *self.trunks)})
        self.pending = self.pending[len(update.measurements) :]
        self.checkpoints, self.newest, self.in_background, self.cut_back_to = checkpoints, self.written, (), None

    def not_committed(self) -> None:
        """An update did not reach the database; its files are whole, and a later update names them."""
        mine = (*self.written, *self.in_background)
        self.checkpoints += tuple(checkpoint for checkpoint in mine if checkpoint not in self.checkpoints)

    def lease_lost(self) -> None:
        """Another worker owns the trial now: delete what was written for the update that was refused."""
        self.folder.remove((*self.written, *self.in_background), but=self.checkpoints)


def _same(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint


class SharedFiles:
    """The *latest* checkpoints of a cohort: one file for all trials that are saved together.

    The record of each trial names the file and the trial as its member, so any of them can go on alone, in another
    cohort, or not fused. A file is deleted when none of the trials names it. The number and the fence of the cohort's
    first trial make the names of its files its own.
    """

    def __init__(self, setup: StudySetup, first: Claim) -> None:
        place = f"{setup.checkpoint_place}/{GROUP_FOLDER}{first.trial.number:05d}"
        self.root = setup.checkpoint_root
        self.folder = CheckpointFolder(self.root, place, first.fence)
        self._written: list[str] = []
        self._lent: set[str] = set()  # files from which the next owner of a lost trial may go on
        self._count = 0

    def save(self, books: Sequence[Logbook]) -> None:
        """Write one file for all trials that are not saved at their step yet, and note it as the latest of each."""
        new = [book for book in books if not any(_is_latest(kept, book.trainee.step) for kept in book.checkpoints)]
        if len(new) < 2:  # a file of its own is as good
            return
        self._count += 1
        names = [f"trial-{book.claim.trial.number:05d}" for book in new]
        known: Known = {}
        states = {name: book.state(known) for name, book in zip(names, new, strict=True)}
        written = self.folder.write_state("latest", self._count, stacked_states(states), None)
        self._written.append(written.file)
        for name, book in zip(names, new, strict=True):
            base, value = base_named_by(states[name]), book.latest_value()
            kept = replace(written, step=book.trainee.step, value=value, member=name, base=base)
            book.checkpoints = (*book.checkpoints, kept)

    def lend(self, lost: Logbook) -> None:
        """Keep what the next owner of a lost trial may need."""
        self._lent |= {kept.file for kept in lost.checkpoints}

    def sweep(self, books: Sequence[Logbook]) -> None:
        """Delete the shared files that no trial names any more."""
        named = self._lent | {kept.file for book in books for kept in (*book.checkpoints, *book.newest)}
        for file in [file for file in self._written if file not in named]:
            tidying.remove(self.root, [file])
            self._written.remove(file)


def _is_latest(kept: Checkpoint, step: int) -> bool:
    return kept.kind == "latest" and kept.step == step


def _is_at(kept: Checkpoint, step: int) -> bool:
    """Whether it is the last state at a step, or a part of it."""
    return kept.step == step and (kept.kind == "latest" or is_shard(kept.kind))


def _shards_at(step: int, kept: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The parts that other ranks have of the state at a step, in their order."""
    found = {one.kind: one for one in kept if one.step == step and is_shard(one.kind)}
    return tuple(sorted(found.values(), key=lambda one: int(one.kind.rpartition("-")[2])))
