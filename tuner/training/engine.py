"""The seam between a way of training and the supervisor: what an engine promises, and what it must be able to do.

An engine inspects trials before they are trained, makes trainees, one for each trial, and a cohort of those that it
trains together. The supervisor decides when a cohort trains, is evaluated and saved, and when a trial ends; it knows
nothing of models or optimizers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import torch

from tuner.design.trial import Trial
from tuner.records import (
    Checkpoint,
    Claim,
    GroupRecord,
    Measurement,
    Numerics,
    PrefixKey,
    Price,
    Promises,
    Recorder,
    TrialUpdate,
)
from tuner.training.setup import StudySetup, TrainingSetup
from tuner.training.stability import Divergence

Measured = dict[str, float]  # value by name, "validation/loss" say
Weights = dict[str, torch.Tensor]
OnStep = Callable[[Claim, int], None]


class Trainee(Protocol):
    """One trial in training, as the supervisor sees it."""

    @property
    def trial(self) -> Trial: ...

    @property
    def step(self) -> int:
        """Updates made so far."""
        ...

    @property
    def unevaluated(self) -> int:
        """Updates made since the last evaluation."""
        ...

    @property
    def numerics(self) -> Numerics:
        """What decides the bits besides the declaration; not `exact` where no bits are promised."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer whose next step waits for a copy of its state; None: the state is copied before training on."""
        ...

    @property
    def groups(self) -> Sequence[GroupRecord] | None:
        """The groups of its parameters that are recorded; none where all are trained alike, None: nothing is."""
        ...

    def fresh(self) -> Self:
        """Another trainee of the same trial at its first step, for where a state could not be loaded."""
        ...

    def divergence(self) -> Divergence | None:
        """What is not finite among what was trained since the last call: losses, gradients or weights."""
        ...

    def measure(self, evaluated: Measured | None = None) -> Measured:
        """The metrics at this step, those of the batches since the last evaluation included.

        `evaluated`: metrics of the splits, where the cohort has them already. Raises Interrupted, with nothing
        changed, where the setup says stop.
        """
        ...

    def traced(self) -> Sequence[Measurement]:
        """What was measured of single updates, as far as the study traces them, since the last call."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything the rest of the trial depends on: plain containers and tensors only."""
        ...

    def write_shards(self, place: str, fence: int) -> Sequence[Checkpoint]:
        """Of a model in shards, whose `state` is the part of one rank: have all others write theirs, durably.

        place, fence: those of the trial's checkpoints (`CheckpointFolder`).
        """
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state. Raises StudyChanged, LookupError, TypeError or ValueError where it does not fit."""
        ...

    def weights(self, into: Weights | None = None) -> Weights:
        """A copy of the weights, in the memory of an older copy where one is given that fits."""
        ...

    def frozen(self) -> Weights:
        """The parameters that are not trained, as they are, by their names among the weights."""
        ...

    def prefix_key(self) -> PrefixKey | None:
        """What the present state is a function of; None where no other trial may start from it."""
        ...

    def out_of_memory(self) -> str:
        """Once memory has ended: what an update needs and what would fit, for a person; "" where that is not known.

        The trainee trains no more after it.
        """
        ...


class Cohort(Protocol):
    """Trainees that advance together. A trial that trains alone is a cohort of one."""

    @property
    def trainees(self) -> Sequence[Trainee]: ...

    @property
    def live(self) -> Sequence[int]:
        """Places of the trainees that still train, and whose state is whole."""
        ...

    def advance(self, updates: int, pause: Callable[[], bool]) -> bool:
        """Make so many updates of each live trainee; True where the setup says stop.

        Fewer are made where `pause()`, called before each update of a trial alone, asks for a break.
        Raises NotFusible where the trainees cannot go on together; each then stands at its own step.
        """
        ...

    def evaluate(self, members: Sequence[int]) -> Mapping[int, Measured]:
        """Metrics of those members that can be evaluated together; the others are evaluated one by one."""
        ...

    def retire(self, member: int) -> None:
        """Take a trainee out of `live`: its trial has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Fusion:
    """How many trials train together as one stacked model, and why.

    ways: how each operation is run. seconds: of one step of one trial; 0 where it was not measured.
    probed: whether the answer holds for other studies with this shape group, too.
    """

    num_trials: int
    reason: str
    ways: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    probed: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What an inspection is asked besides whether the trials can make their first update.

    known: what was inspected in this process and need not be again; an engine adds to it what it likes.
    validation_seconds: whether each validation example has a finite selection metric, where a look at all of them
    takes no longer; None: do not look. price: what a trial costs. room_for: raise Paused where the disk has no room for
    a few checkpoints of so many trials; 0: do not look. without_randomness: raise WorkloadError where the first trial
    is regularized or augmented (D2), as a sweep must not be. gang: so many ranks share a trial; 1: one process.
    """

    known: set[tuple[object, ...]] = field(default_factory=set)
    validation_seconds: float | None = math.inf
    price: bool = False
    room_for: int = 0
    without_randomness: bool = False
    gang: int = 1


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found out about the trials of a study.

    unread: hyperparameters that nothing reads, where they were looked for just now (once a study and process).
    finite: every validation example was seen to have a finite selection metric.
    price: of one trial, with the bytes of its checkpoints; None where it was not asked for.
    fusion: how the trials would train together, or why they cannot; None where it was not asked for.
    """

    unread: tuple[str, ...] = ()
    finite: bool = False
    price: Price | None = None
    fusion: Fusion | None = None


T = TypeVar("T", bound=Trainee)


class Trainer(Protocol):
    """Trains claimed trials to their ends, and has what happens to them recorded."""

    @property
    def engine(self) -> "Engine": ...

    def train(self, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """The last update of each trial, in order; RUNNING where it was stopped and can go on.

        A trial without an update was not trained. Raises LeaseLost when another worker owns the only trial.
        """
        ...


class Engine(Protocol):
    """The one door to a way of training. Made from the setup of a study, cheaply."""

    @property
    def promises(self) -> Promises: ...

    @property
    def setup(self) -> StudySetup: ...

    def inspect(self, trials: Sequence[Trial], asked: Asked) -> Inspection:
        """Try whatever can be wrong before it is trained, and answer what is asked, except the fusion. Writes nothing.

        Raises WorkloadError naming what is wrong, Paused where there is no room.
        """
        ...

    def settle(self, trial: Trial) -> None:
        """Settle what this process needs before such a trial is trained in it; called often, so cheap when done."""
        ...

    def trainer(self, recorder: Recorder, on_step: OnStep) -> Trainer:
        """What trains the trials that this process claims; `on_step` is called every few steps."""
        ...


class StepEngine(Engine, Protocol[T]):
    """An engine whose trainees, all of one class, the supervisor trains step by step."""

    @property
    def setup(self) -> TrainingSetup: ...

    def trainee(self, trial: Trial) -> T:
        """The trial before its first step. Raises the errors of the user's code."""
        ...

    def begin(self, trainees: Sequence[T]) -> Cohort:
        """A cohort of those trainees that go together; the others are left for another cohort. Raises NotFusible."""
        ...


EngineMaker = Callable[[Any], Engine]  # a way of training, before its study is known
