"""Trials as the Ledger holds them, and what was measured of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tuner.budget.schedules import Schedule
from tuner.design.objective import Objective
from tuner.design.points import Point
from tuner.design.trial import Trial
from tuner.errors import StorageError
from tuner.records.checkpoint_records import Checkpoint
from tuner.records.numerics_record import Numerics


class State(StrEnum):
    """The life of a trial: WAITING, RUNNING, then one of the others for good."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"  # diverged, out of memory, rejected by the model: the point's fault
    FAILED = "failed"  # error in user code, lost, quarantined: not the point's fault
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


STOPPED_EARLY = "stopped early"  # how the reason begins of a COMPLETE trial that patience ended before its budget


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of one metric ("validation/loss") after `step` updates. NaN and infinities are values too."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Inherited:
    """How many first steps a trial inherited instead of training them, and from which trial (its id)."""

    steps: int = 0
    trial_id: int | None = None


NOT_INHERITED = Inherited()


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A group of a trial's parameters, as it was trained: its name in tables, and the names of its parameters.

    rate, decay: multiples of the learning rate of each step and of `weight_decay`. num_values: the numbers in them.
    """

    name: str
    rate: float
    decay: float
    num_values: int
    parameters: tuple[str, ...]

    @property
    def multiples(self) -> str:
        """Both multiples in words."""
        return f"rate {self.rate:.4g}, decay {self.decay:.4g}"


def groups_words(groups: Sequence[GroupRecord]) -> str:
    """Groups in one line: "vectors: rate 1, decay 0; head.*: rate 10, decay 1"; empty without groups."""
    return "; ".join(f"{one.name}: {one.multiples}" for one in groups)


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """One metric of one trial, by step."""

    metric: str
    points: tuple[tuple[int, float], ...]

    def best(self, objective: Objective) -> tuple[int, float] | None:
        """Retrospective selection: the (step, value) that wins; the earlier step on a tie."""
        return objective.best(self.points)


@dataclass(frozen=True, slots=True)
class UnreadableTrial:
    """What can still be read of a trial whose row in the Ledger is damaged."""

    number: int
    seed: int
    data_seed: int
    origin: str


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial as the Ledger holds it, with its state and its checkpoints.

    `attempt` counts the claims since the trial last made progress; `step` is the last committed step. The trial
    trained all its steps but those `inherited`. `groups`: of its parameters; none where all are trained alike, or where
    that was not recorded. `seconds`: in which processes trained it in all claims, its share where it trained in a
    group; None where that was not recorded.
    """

    trial_id: int
    trial: Trial | UnreadableTrial
    state: State
    reason: str
    step: int
    attempt: int
    numerics: Numerics | None
    checkpoints: tuple[Checkpoint, ...] = field(default=())
    inherited: Inherited = NOT_INHERITED
    groups: tuple[GroupRecord, ...] = ()
    seconds: float | None = None

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def point(self) -> Point:
        """The point of the trial; empty where the row is damaged."""
        return self.trial.point if isinstance(self.trial, Trial) else Point(())

    @property
    def seed(self) -> int:
        return self.trial.seed

    @property
    def data_seed(self) -> int:
        return self.trial.data_seed

    @property
    def origin(self) -> str:
        return self.trial.origin

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the trial; None where the row is damaged."""
        return self.trial.schedule if isinstance(self.trial, Trial) else None

    def readable_trial(self) -> Trial:
        """The trial as it was planned. Raises StorageError where its row is damaged."""
        if isinstance(self.trial, UnreadableTrial):
            raise StorageError(self.reason)
        return self.trial

    @property
    def stopped_early(self) -> bool:
        """Whether the trial is complete at fewer steps than its study has, because its metric improved no more."""
        return self.state is State.COMPLETE and self.reason.startswith(STOPPED_EARLY)

    @property
    def exact(self) -> bool:
        """Whether the whole trial was trained under one set of Numerics."""
        return self.numerics is None or self.numerics.exact
