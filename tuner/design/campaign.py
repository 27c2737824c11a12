"""What a study file declares: one workload, its sweep and its rounds."""

from dataclasses import dataclass, field
from typing import Literal

from tuner.budget.schedules import ScheduleFamily, constant_then_decay
from tuner.design.hyperparameters import Choice, log_grid
from tuner.design.space import SearchSpace
from tuner.design.workload import Workload
from tuner.errors import DeclarationError

Regime = Literal["compute_bound", "not_compute_bound", "undecided"]
OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True, slots=True)
class Sweep:
    """The constant-learning-rate study that suggests a step budget (A18-A26).

    learning_rate: the grid, ascending, at least 3 values a decade.
    optimizer: the optimizer of the sweep; by default the campaign's.
    start_steps: where the doubling search for a sufficient number of steps begins.
    max_steps: where it gives up: the training set is not shown to fit.
    seeds: trainings of the winning rate with different seeds, for the spread.
    """

    learning_rate: tuple[float, ...] = field(default_factory=lambda: log_grid(1e-4, 1.0))
    optimizer: str | None = None
    start_steps: int = 250
    max_steps: int = 16_000
    seeds: int = 3

    def __post_init__(self) -> None:
        grid = self.learning_rate
        if len(grid) < 3 or list(grid) != sorted(set(grid)) or grid[0] <= 0:
            raise DeclarationError(
                f"a sweep needs at least 3 positive learning rates in ascending order, got {list(grid)}"
            )
        if not 1 <= self.start_steps <= self.max_steps:
            raise DeclarationError(f"start_steps must lie in 1..max_steps, got {self.start_steps} and {self.max_steps}")
        if self.seeds < 1:
            raise DeclarationError(f"seeds must be at least 1, got {self.seeds}")


@dataclass(frozen=True, slots=True)
class Round:
    """One goal, and the study that answers it.

    goal: the question, in words (B9).
    trials: how many points are trained.
    space: what varies; None for a round that takes its points from the round before.
    promote: how many of the best points of the round before are trained in this one.
    max_train_steps: the budget; None: from the sweep, the round before, or the production length.
    """

    goal: str
    trials: int | None = None
    space: SearchSpace | None = None
    promote: int | None = None
    max_train_steps: int | None = None

    def __post_init__(self) -> None:
        if not self.goal.strip():
            raise DeclarationError("a round needs a goal in words (B9): the one question it answers")
        if (self.space is None) == (self.promote is None):
            raise DeclarationError(
                f"round {self.goal!r} needs either a space (new points) or promote=N (the best points of the "
                "round before), and not both"
            )
        for name, count in (("trials", self.trials), ("promote", self.promote)):
            if count is not None and count < 1:
                raise DeclarationError(f"{name} must be at least 1, got {count} in round {self.goal!r}")
        if self.space is not None and self.trials is None:
            raise DeclarationError(f"round {self.goal!r} has a space but no number of trials; give trials=32, say")
        if self.space is not None and len(self.space) == 0:
            raise DeclarationError(f"the space of round {self.goal!r} varies nothing; give at least one range")


@dataclass(frozen=True, slots=True)
class Campaign:
    """One workload, its sweep and its rounds.

    optimizer: "sgd", "adam" or "adamw", unless a search space chooses it.
    schedule, warmup_steps: the learning rate schedule of every round's trials, the warmup in steps (D18).
    production_steps: the full length of a compute-bound workload; None where the sweep finds the budget.
    regime: declared by the user; None: decided from the evidence (A1).
    evaluations: evaluations of each trial, at equal distances in steps (B40); below 20 verdicts are refused (D14).
    keep_best: checkpoints kept of each trial, besides the latest (B44).
    name: how the storage knows it; by default the study file's name.
    """

    workload: Workload
    rounds: tuple[Round, ...] | list[Round]
    optimizer: str = "adamw"
    schedule: ScheduleFamily = field(default_factory=constant_then_decay)
    warmup_steps: int = 0
    sweep: Sweep | None = None
    production_steps: int | None = None
    regime: Regime | None = None
    evaluations: int = 50
    keep_best: int = 1
    seed: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", tuple(self.rounds))
        _check_workload(self.workload)
        if not self.rounds:
            raise DeclarationError("a campaign needs at least one round: rounds=[Round('...', trials=32, space=...)]")
        if self.rounds[0].space is None:
            raise DeclarationError("the first round has no round before it to promote from; give it a space")
        for optimizer in self._optimizers():
            check_optimizer(optimizer)
        for name, count in (("evaluations", self.evaluations), ("keep_best", self.keep_best)):
            if count < 1:
                raise DeclarationError(f"{name} must be at least 1, got {count}")
        if self.warmup_steps < 0:
            raise DeclarationError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if self.production_steps is not None and self.production_steps < 1:
            raise DeclarationError(f"production_steps must be at least 1, got {self.production_steps}")

    def _optimizers(self) -> list[object]:
        declared: list[object] = [self.optimizer]
        if self.sweep is not None and self.sweep.optimizer is not None:
            declared.append(self.sweep.optimizer)
        for one in self.rounds:
            declared += _space_optimizers(one.space)
        return declared

    def round(self, number: int) -> Round:
        """Round `number`, counted from 1. Raises DeclarationError for one that is not declared."""
        if not 1 <= number <= len(self.rounds):
            raise DeclarationError(f"there is no round {number}; this campaign declares 1..{len(self.rounds)}")
        return self.rounds[number - 1]


def check_optimizer(name: object) -> None:
    """Raise DeclarationError for an optimizer the trainer does not know."""
    if name not in OPTIMIZERS:
        raise DeclarationError(f"optimizer is one of {', '.join(OPTIMIZERS)}, got {name!r}")


def _space_optimizers(space: SearchSpace | None) -> list[object]:
    if space is None:
        return []
    declared: list[object] = [constant.value for name, constant in space.fixed if name == "optimizer"]
    for hyperparameter in space:
        if hyperparameter.name == "optimizer" and isinstance(hyperparameter.domain, Choice):
            declared += hyperparameter.domain.choices
    return declared


def _check_workload(workload: Workload) -> None:
    name = type(workload).__name__
    if not isinstance(workload, Workload):
        raise DeclarationError(f"a campaign needs an instance of a Workload subclass, got {workload!r}")
    for attribute, example in (("batch_size", "64"), ("select_by", 'minimize("validation/loss")')):
        if not hasattr(workload, attribute):
            raise DeclarationError(f"{name} declares no {attribute}; write {attribute} = {example} in the class")
    if not isinstance(workload.batch_size, int) or workload.batch_size < 1:
        raise DeclarationError(f"{name}.batch_size must be a whole number of examples, got {workload.batch_size!r}")
