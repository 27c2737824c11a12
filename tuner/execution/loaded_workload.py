"""A workload as one process has loaded it: its data on the device, and its identity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tuner.delegated.engine import Delegated
from tuner.delegated.first_steps import Looks
from tuner.delegated.promised import know
from tuner.delegated.setup import LoopSetup
from tuner.design.hyperparameters import Value
from tuner.design.identity import Identity
from tuner.design.micro_batches import check_micro_batches
from tuner.design.own_loop import OwnLoop
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.words import door_of
from tuner.design.workload import Trainable, Workload
from tuner.errors import WorkloadError
from tuner.execution.identifying import Identifier, LoopIdentifier
from tuner.execution.machine import Machine
from tuner.execution.prefixes import PrefixFinder, saved_steps
from tuner.records import MeasuredPromises, Numerics, Promises
from tuner.records.conclusions import StageStart
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.stores.places import StoredPath
from tuner.training.alone import Alone
from tuner.training.engine import Engine, EngineMaker
from tuner.training.inherited import StartWeights
from tuner.training.memory import keep_freed_memory
from tuner.training.numerics import choose_device, numerics, prepare_numerics
from tuner.training.optimizers import packages_of_optimizers
from tuner.training.setup import Data, StudySetup, TrainingSetup
from tuner.training.workload_digests import workload_parts


def _never() -> bool:
    return False


class LoadedWorkload:
    """A workload on a machine, for all studies of its campaign.

    The data are read when they are first needed. study_file: where the workload is declared; by default the file of
    its class. Raises WorkloadError for a workload with an argument that has no digest, before any of its methods runs.

    engine: how its trials are trained, by whichever backend and in whichever process; by default in torch, or by the
    loop of a workload that has its own. looks: what first looks at such a loop have shown.
    campaign: which one of the study file, "" for its last. inherited: the weights of an earlier stage that its models
    start from.
    inspected: what was inspected in this process and is not inspected again (see `training.engine.Asked`).
    told_numerics: what was said of other Numerics and is not said again.
    """

    def __init__(
        self, workload: Trainable, machine: Machine, study_file: Path | None = None, engine: EngineMaker | None = None
    ) -> None:
        self.workload = workload
        self.campaign = ""
        self.inherited: StartWeights | None = None
        self.engine = engine or engine_of(workload)
        self.machine = machine
        self.study_file = study_file
        kind = LoopIdentifier if isinstance(workload, OwnLoop) else Identifier
        self.identifier = kind(workload, study_file)
        self.looks = Looks()
        self.device: torch.device = choose_device(machine.device)
        self.inspected: set[tuple[object, ...]] = set()
        self.told_numerics: set[str] = set()
        prepare_numerics(self.device, machine.threads)
        keep_freed_memory()

    def write_to(self, checkpoint_root: StoredPath) -> None:
        """Write checkpoints to this folder from now on; processes that start later do so, too."""
        self.machine = replace(self.machine, checkpoint_root=checkpoint_root)

    def engine_for(self, study: Study) -> Engine:
        """The engine of a study, as it inspects and as it promises; a backend makes its own, which trains."""
        return self.engine(self.setup(study))

    def promises(self, study: Study) -> Promises:
        """What may be relied on for the trials of a study that are trained here."""
        return self.engine_for(study).promises

    @property
    def trains_itself(self) -> bool:
        """Whether the workload is a loop of one's own, of which is measured what it promises."""
        return isinstance(self.workload, OwnLoop)

    @property
    def trained_by(self) -> Mapping[str, str]:
        """By which door a training that is not ours comes (`design.words.DOORS`), and what it says of itself; or {}."""
        return {"door": door_of(self.workload), **self.workload.words()} if isinstance(self.workload, OwnLoop) else {}

    def measured(self, study: Study) -> MeasuredPromises | None:
        """What was measured of a loop of one's own, as a study trains it; None before, and of other workloads."""
        return self.looks.measured.get(study.augment)

    def expect(self, study: Study, measured: MeasuredPromises, *, told: bool = False) -> None:
        """Use what was measured of the loop before, or in another process; say what is not promised, unless `told`."""
        setup = self.setup(study)
        if isinstance(setup, LoopSetup):
            self.looks.told |= {measured.names} if told else set()
            know(setup, measured)

    @cached_property
    def data(self) -> Data:
        return self.identifier.data(self.device)

    def _know_data(self) -> None:
        """Read the data, without which a workload is not known; those of an own loop are its own."""
        if not isinstance(self.workload, OwnLoop):
            _ = self.data

    @property
    def num_examples(self) -> int | None:
        """Of the training split; None for a stream, which has no epochs, and for a loop that does not say it."""
        if isinstance(self.workload, OwnLoop):
            return self.workload.num_examples or None
        return self.data.training.indexed

    @cached_property
    def identity(self) -> Identity:
        """What the workload is, as far as all studies of a campaign share it."""
        self._know_data()
        return self.identifier.whole

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """What a budget is chosen under, part by part, so that a change can be named."""
        return workload_parts(self.workload, self.identity)

    def fingerprint(self, study: Study | None = None) -> str:
        """The digest of code, arguments and data: as far as all studies share them, or as one study uses them."""
        if study is None:
            return self.identity.fingerprint
        return self.identifier.fingerprint(study.name, self.inherited_by(study))

    def inherited_by(self, study: Study) -> StartWeights | None:
        """The weights that the models of a study start from; None where they start from their own."""
        return None if study.start else self.inherited

    def inherit_recorded(self, ledger: Ledger, row: StudyRow, checkpoint_root: StoredPath) -> None:
        """Let models start from what the trials of a study started from, whose copies are in this folder."""
        start = ledger.conclusion(row.campaign, StageStart, row.study_id)
        if start is not None:
            self.inherited = StartWeights(start, tuple(checkpoint_root / one.file for one in start.candidates))

    def weaker_fingerprint(self) -> str:
        """The fingerprint that tuner 0.1 would give the workload: for the studies that it started."""
        self._know_data()
        return self.identifier.weaker_fingerprint()

    def identity_of(self, study: Study, points: Sequence[Mapping[str, Value]] | None = None) -> Identity:
        """All that decides the bits of a study's trials besides its declaration; initial weights at these points.

        Without points they are chosen. Builds a model at each, and tries one batch.
        """
        return self.identifier.of_study(self.setup(study), points)

    def check_repeatable(self, study: Study, looked_at: Identity) -> None:
        """Raise WorkloadError when data() or model() return something else at a second call. Writes nothing."""
        self.identifier.check_repeatable(self.setup(study), looked_at)

    def saved_steps(self, ledger: Ledger, study: Study, trials: Sequence[Trial]) -> list[int]:
        """The first steps that each trial would inherit from one trained before (`design.prefix`)."""
        if not self.promises(study).prefixes:
            return [0] * len(trials)
        return saved_steps(self.finder(ledger, study), trials)

    def finder(self, ledger: Ledger, study: Study) -> PrefixFinder:
        """Looks up the prefixes that trials of a study may start from here."""
        self._know_data()
        known = self.numerics_on(self.device, study)
        return PrefixFinder(ledger, study, self.fingerprint(study), known, self.machine.allow_inexact)

    def numerics_on(self, device: torch.device, study: Study) -> Numerics:
        """The Numerics of a study on a device of this machine."""
        declared = study.declares_precision and isinstance(self.workload, Workload)
        in_shards = self.machine.gang if self.machine.shard else 0
        return numerics(device, self.machine.profile, self._packages(study), declared=declared, in_shards=in_shards)

    def _packages(self, study: Study) -> Mapping[str, str]:
        """The packages that decide the bits of a study: those of the user's code, and those of its optimizers."""
        return {**self.identifier.packages, **packages_of_optimizers(study)}

    def setup(
        self, study: Study, place: str = "inspection", stop: Callable[[], bool] = _never, fingerprint: str = ""
    ) -> StudySetup:
        """What all trials of a study share in training. place: the folder of its checkpoints below the root.

        Raises StudyChanged where the workload computes less than a slice of the study at a time.
        """
        shared: dict[str, Any] = {
            "study": study,
            "workload": self.workload,
            "device": self.device,
            "checkpoint_root": self.machine.checkpoint_root,
            "checkpoint_place": place,
            "commit_seconds": self.machine.commit_seconds,
            "profile": self.machine.profile,
            "stop": stop,
            "fingerprint": fingerprint,
            "packages": self._packages(study),
            "trainers": (self.machine.worker_count or 1) * self.machine.gang,
            "inherited": self.inherited_by(study),
        }
        if isinstance(self.workload, OwnLoop):
            machine = self.machine
            return LoopSetup(
                **shared, looks=self.looks, study_file=self.study_file, threads=machine.threads,
                stall_seconds=machine.stall_seconds,
            )  # fmt: skip
        if isinstance(self.workload, Workload):
            check_micro_batches(study, self.workload.micro_batch_size)
        return TrainingSetup(**shared, data=self.data, shard=self.machine.shard, world=self.machine.gang)


def engine_of(workload: Trainable) -> EngineMaker:
    """The engine that trains a workload, unless another one is asked for.

    Raises WorkloadError for one that is trained elsewhere.
    """
    if isinstance(workload, OwnLoop) and workload.trained_elsewhere:
        raise WorkloadError(workload.trained_elsewhere)
    return Delegated if isinstance(workload, OwnLoop) else Alone
