"""The seam between a way of training and the supervisor: what an engine promises, and what it must be able to do.

An engine makes trainees, one for each trial, and a cohort of those that it trains together. The supervisor decides
when a cohort trains, is evaluated and saved, and when a trial ends; it knows nothing of models or optimizers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import torch

from tuner.design.trial import Trial
from tuner.records import Numerics, PrefixKey, Promises
from tuner.training.setup import TrainingSetup
from tuner.training.stability import Divergence

Measured = dict[str, float]  # value by name, "validation/loss" say
Weights = dict[str, torch.Tensor]


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

    def state(self) -> dict[str, Any]:
        """Everything the rest of the trial depends on: plain containers and tensors only."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state. Raises StudyChanged, LookupError, TypeError or ValueError where it does not fit."""
        ...

    def weights(self, into: Weights | None = None) -> Weights:
        """A copy of the weights, in the memory of an older copy where one is given that fits."""
        ...

    def prefix_key(self) -> PrefixKey | None:
        """What the present state is a function of; None where no other trial may start from it."""
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


T = TypeVar("T", bound=Trainee)


class Engine(Protocol[T]):
    """The one door to a way of training, whose trainees are of one class."""

    @property
    def promises(self) -> Promises: ...

    @property
    def setup(self) -> TrainingSetup: ...

    def trainee(self, trial: Trial) -> T:
        """The trial before its first step. Raises the errors of the user's code."""
        ...

    def begin(self, trainees: Sequence[T]) -> Cohort:
        """A cohort of those trainees that go together; the others are left for another cohort. Raises NotFusible."""
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
