"""What a trial leaves behind, and the seam between those who train and those who store.

`training` and `storage` do not know each other: a trainer hands `TrialUpdate`s to a `Recorder`, and a recorder
commits those of many trials at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from tuner.budget.schedules import Schedule
from tuner.design.objective import Objective
from tuner.design.points import Point
from tuner.design.trial import Trial

TEST_SCORE = "test_score"  # the conclusion about a campaign that holds the score of its final model
RETENTION = "retention"  # the conclusion about a study some of whose checkpoints were deleted to save room


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


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of one metric ("validation/loss") after `step` updates. NaN and infinities are values too."""

    step: int
    metric: str
    value: float


CheckpointKind = Literal["latest", "best", "trunk"]
GROUP_FOLDER = "group-of-trial-"  # how folders of checkpoints begin that several trials share


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """What a saved state is a function of: digests (see `design.prefix`) and the Numerics it was trained under.

    `base` stands for everything but the schedule, `path` for the learning rates and evaluations up to its step.
    """

    base: str
    path: str
    numerics: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state: of a trial, after `step` updates, in `file` (relative to the checkpoint folder).

    `value` is the selection metric at that step (None where it was not evaluated). `member` tells trials apart
    that share one file. `digest` is the sha256 of the file, `num_bytes` its size. With a `prefix` it is a state
    from which other trials may start.
    """

    kind: CheckpointKind
    step: int
    file: str
    digest: str
    num_bytes: int
    value: float | None = None
    member: str = ""
    prefix: PrefixKey | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first steps of a trial as another one has trained them: its state, its best weights, its measurements.

    `weights` are the best checkpoints that belong to the state; a trunk holds them itself. Not `exact`: trained
    under other Numerics.
    """

    trial_id: int
    checkpoint: Checkpoint
    weights: tuple[Checkpoint, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    exact: bool = True

    @property
    def step(self) -> int:
        return self.checkpoint.step


@dataclass(frozen=True, slots=True)
class Inherited:
    """How many first steps a trial took over instead of training them, and from which trial (its id)."""

    steps: int = 0
    trial_id: int | None = None


@dataclass(frozen=True, slots=True)
class TrialUpdate:
    """What one trial has to say since its last commit, written in one transaction.

    `checkpoints` is the complete list the trial owns from now on: files it no longer names may be deleted
    after the commit. `state` RUNNING renews the lease; any other state ends our ownership of the trial.
    `cut_back_to`: forget what was measured after that step (-1: all of it) before writing, because the training
    went on from there and not from where the Ledger thought. `inherited` None: as it was. `set_back`: this claim lost
    steps so and is not yet beyond the farthest step known when it was made: until then it makes no progress.
    """

    trial_id: int
    fence: int
    step: int
    measurements: Sequence[Measurement] = ()
    checkpoints: Sequence[Checkpoint] | None = None
    state: State = State.RUNNING
    reason: str = ""
    numerics: str | None = None
    cut_back_to: int | None = None
    inherited: Inherited | None = None
    set_back: bool = False


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """A trial that was trained elsewhere, with all it measured; `step` is the last one it reached.

    `started`: when, in seconds since 1970; None where nobody wrote it down.
    """

    trial: Trial
    state: State
    reason: str
    step: int
    measurements: Sequence[Measurement] = ()
    started: float | None = None


class Recorder(Protocol):
    """Takes what trials have to say. One method, so that a list can be one in a test."""

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        """Commit all of it or nothing, durably, before returning. Raises LeaseLost for a stale fence."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to train a trial: `fence` guards every write, `checkpoints` say where to go on from.

    Without any, the trial may start from one of `prefixes`, the longest first. `farthest`: the farthest step that was
    ever committed of it.
    """

    trial_id: int
    fence: int
    trial: Trial
    attempt: int
    checkpoints: tuple[Checkpoint, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    inherited: Inherited = Inherited()
    farthest: int = 0

    @property
    def first_step(self) -> int:
        """Where the trial goes on by its own latest checkpoint; 0 without one."""
        return max((kept.step for kept in self.checkpoints if kept.kind == "latest"), default=0)


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """One metric of one trial, by step."""

    metric: str
    points: tuple[tuple[int, float], ...]

    def best(self, objective: Objective) -> tuple[int, float] | None:
        """Retrospective selection: the (step, value) that wins; the earlier step on a tie."""
        return objective.best(self.points)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial as the Ledger holds it. `attempt` counts claims since it last got on; `step` is the last committed one.

    Of its steps it trained all but those `inherited`.
    """

    trial_id: int
    number: int
    state: State
    reason: str
    point: Point
    seed: int
    data_seed: int
    origin: str
    step: int
    attempt: int
    numerics: str | None
    checkpoints: tuple[Checkpoint, ...] = field(default=())
    schedule: Schedule | None = None
    inherited: Inherited = Inherited()

    @property
    def exact(self) -> bool:
        """Whether all of it was trained under one set of Numerics."""
        return '"exact": false' not in (self.numerics or "")


@dataclass(frozen=True, slots=True)
class Price:
    """What one trial costs on this machine: milliseconds, and bytes per kept state (latest, best)."""

    step_ms: float
    evaluation_ms: float
    latest_bytes: int
    best_bytes: int
