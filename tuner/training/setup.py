"""What all trials of a study share on this machine: the workload, its data on the device, where checkpoints go."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tuner.design.data import Splits, Stream
from tuner.design.hyperparameters import Value
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Trainable, Workload
from tuner.errors import WorkloadError
from tuner.records import Numerics
from tuner.stores.places import StoredPath
from tuner.system import num_cores
from tuner.training.batches import Split
from tuner.training.endings import before_training
from tuner.training.inherited import StartWeights
from tuner.training.loading import Loading
from tuner.training.numerics import numerics
from tuner.training.order import read_lengths
from tuner.training.settings import COMMIT_SECONDS, Profile


@dataclass(frozen=True, slots=True)
class Data:
    """The splits on the device. `training_sample`: what is evaluated of the training split.

    `test`: as the workload gave it, or None; never on the device before it is scored. `loading`: who loads the batches
    of those splits that are not tensors in memory.
    """

    training: Split
    validation: Split
    training_sample: Split
    test: Any = None
    loading: Loading = field(default_factory=Loading)

    @classmethod
    def of(cls, workload: Workload, device: torch.device) -> "Data":
        """Ask the workload for its data. Raises WorkloadError when it is not what it must be."""
        name = type(workload).__name__
        with before_training(f"{name}.data"):
            splits = workload.data()
        if not isinstance(splits, Splits):
            raise WorkloadError(f"{name}.data must return Splits(training=..., validation=...), got {type(splits)}")
        training, validation = (
            split_of(workload, split, getattr(splits, split), device) for split in ("training", "validation")
        )
        _check_data(workload, splits, training, validation)
        if workload.declares("lengths"):
            training.lengths = read_lengths(f"{name}.lengths", workload.lengths, training.indexed)
        data = cls(training, validation, training.sample(workload.training_evaluation_examples), splits.test)
        for split in (data.training, data.validation, data.training_sample):
            split.load_by(data.loading)
        return data


def split_of(workload: Workload, name: str, data: Any, device: torch.device) -> Split:
    """A split of a workload's data, with what the workload itself does about batches. Raises WorkloadError."""
    collate = workload.collate if workload.declares("collate") else None
    return Split(name, data, device, collate, workload.num_examples if workload.declares("num_examples") else None)


def _check_data(workload: Workload, splits: Splits, training: Split, validation: Split) -> None:
    name = type(workload).__name__
    if training.collate is not None and training.tensors is not None and validation.tensors is not None:
        raise WorkloadError(
            f"{name}.collate would never be called: training and validation split are tensors in memory, of which "
            "batches are cut; give a dataset (torch.utils.data.TensorDataset), or remove it"
        )
    if training.tensors is not None and validation.tensors is not None and workload.data_workers not in (0, "auto"):
        raise WorkloadError(
            f"{name}.data_workers = {workload.data_workers} would change nothing: training and validation split are "
            "tensors in memory, of which batches are cut; give a dataset that reads or makes its examples, or remove it"
        )
    for split in ("validation", "test"):
        data = getattr(splits, split)
        if isinstance(data, Stream) and data.length is None:
            raise WorkloadError(
                f"the {split} split of {name} is a stream of no known length, and an evaluation reads it to its end: "
                "say where that is, Stream(at, length=10_000)"
            )


class StudySetup(Protocol):
    """What all trials of a study share on this machine, whoever trains them; the names are those of `TrainingSetup`."""

    @property
    def study(self) -> Study: ...

    @property
    def workload(self) -> Trainable: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def checkpoint_root(self) -> StoredPath: ...

    @property
    def checkpoint_place(self) -> str: ...

    @property
    def commit_seconds(self) -> float: ...

    @property
    def profile(self) -> Profile: ...

    @property
    def stop(self) -> Callable[[], bool]: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def packages(self) -> Mapping[str, str]: ...

    @property
    def inherited(self) -> StartWeights | None: ...

    @property
    def numerics(self) -> Numerics: ...


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """`profile` "exact": a trial has the same bits however it is trained; "fast": not in groups, but repeatably.

    `stop()` is called at every step; True means to commit and leave the trial resumable. `fingerprint`: the digest of
    the workload's code and data; without one no trial may start from another. `packages`: installed distributions that
    the workload uses, with their versions; they are part of the Numerics. `trainers`: processes that train at the same
    time on this machine, and share its cores. `inherited`: the weights of an earlier stage that models start from.
    `shard`: "fsdp2" where each of the `world` ranks that train a trial has a part of the model; "": each has it whole.
    """

    study: Study
    workload: Workload
    data: Data
    device: torch.device
    checkpoint_root: StoredPath
    checkpoint_place: str
    commit_seconds: float = COMMIT_SECONDS
    profile: Profile = "exact"
    stop: Callable[[], bool] = field(default=lambda: False)
    fingerprint: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    trainers: int = 1
    inherited: StartWeights | None = None
    shard: str = ""
    world: int = 1

    def loading(self) -> AbstractContextManager[None]:
        """Within the block loading processes are at work, as many as the workload asks for."""
        return self.data.loading.at_work(self.workload.data_workers, self.most_loading, pin=self.device.type == "cuda")

    @property
    def most_loading(self) -> int:
        """So many loading processes an automatic choice may take: the trainer's share of the cores."""
        return num_cores() // self.trainers

    @property
    def numerics(self) -> Numerics:
        return numerics(
            self.device,
            self.profile,
            self.packages,
            declared=self.study.declares_precision,
            in_shards=self.world if self.shard else 0,
        )

    def optimizer_of(self, trial: Trial) -> Value:
        return trial.point.get("optimizer", self.study.optimizer)

    def batch_size_of(self, trial: Trial) -> int:
        return trial.point.whole("batch_size", self.study.batch_size)

    def slices_of(self, trial: Trial) -> int:
        """The parts that each batch of a trial is cut into."""
        return self.study.slices_of(trial.point)

    def precision_of(self, trial: Trial) -> str:
        """The precision of a trial; "" for float32 as torch is set."""
        return self.study.precision_of(trial.point)

    def ema_steps_of(self, trial: Trial) -> int:
        """The steps over which the weights of a trial are averaged; 0: they are not."""
        return self.study.ema_steps_of(trial.point)

    @property
    def evaluation_batch_size(self) -> int:
        """Never smaller than what is trained on at a time (B40): a batch, or a slice of one."""
        return max(self.workload.evaluation_batch_size, self.study.slice_examples)
