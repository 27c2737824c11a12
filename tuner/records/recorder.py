"""The protocol between the code that trains and the code that stores: claims, updates, and who takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.design.trial import Trial
from tuner.records.checkpoint_records import Checkpoint
from tuner.records.gang_price import GangPrice
from tuner.records.numerics_record import Numerics
from tuner.records.step_memory import StepMemory
from tuner.records.trial_records import NOT_INHERITED, GroupRecord, Inherited, Measurement, State


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
class Claim:
    """The right to train a trial: `fence` guards every write, `checkpoints` tell from which step it is resumed.

    Without any checkpoint, the trial may start from one of `prefixes`, the longest first. `farthest`: the farthest
    step of the trial that was ever committed. `begun_under`: the text of the Numerics of its last commit, if any.
    `seconds`: for how long it was trained before.
    """

    trial_id: int
    fence: int
    trial: Trial
    attempt: int
    checkpoints: tuple[Checkpoint, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    inherited: Inherited = NOT_INHERITED
    farthest: int = 0
    begun_under: str | None = None
    seconds: float = 0.0

    @property
    def first_step(self) -> int:
        """The step at which the trial is resumed from its own latest checkpoint; 0 without one."""
        return max((kept.step for kept in self.checkpoints if kept.kind == "latest"), default=0)


@dataclass(frozen=True, slots=True)
class TrialUpdate:
    """Everything that happened to one trial since its last commit, written in one transaction.

    `checkpoints` is the complete list the trial owns from now on: files that the list no longer names may be deleted
    after the commit. `state` RUNNING renews the lease; any other state ends our ownership of the trial.
    `cut_back_to`: delete what was measured after that step (-1: all of it) before writing, because training was
    resumed from that step and not from the step that the Ledger knew. `inherited` None: unchanged. `groups`: of the
    trial's parameters; None: unchanged. `set_back`: this claim lost steps in this way and is not yet beyond the
    farthest step known when the claim was made: until then the trial makes no progress. `seconds`: for how long the
    trial was trained so far, in all claims and its share of a group; None: unchanged.
    """

    trial_id: int
    fence: int
    step: int
    measurements: Sequence[Measurement] = ()
    checkpoints: Sequence[Checkpoint] | None = None
    state: State = State.RUNNING
    reason: str = ""
    numerics: Numerics | None = None
    cut_back_to: int | None = None
    inherited: Inherited | None = None
    groups: Sequence[GroupRecord] | None = None
    set_back: bool = False
    seconds: float | None = None


class Recorder(Protocol):
    """Takes the updates of trials. One method, so that a test can record into a list."""

    def record(self, updates: Sequence[TrialUpdate]) -> None:
        """Commit all updates or none, durably, before returning. Raises LeaseLost for a stale fence."""
        ...


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """A trial that was trained elsewhere, with all its measurements; `step` is the last step it reached.

    `started`: the time of its start in seconds since 1970; None where that was not recorded.
    """

    trial: Trial
    state: State
    reason: str
    step: int
    measurements: Sequence[Measurement] = ()
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What one trial costs on this machine: milliseconds, and bytes per kept state (latest, best).

    fetch_ms: to fetch and collate a batch in the process that trains; 0 of tensors in memory. loading_processes: how
    many made the batches while a step was timed. useful_processes: how many would hide the fetching, and have a core.
    trainers: processes that would train at the same time. precisions: names of precisions that are declared, each with
    the steps a second of a trial in it as a multiple of those of the same trial in float32. memory: what the trial
    takes while it trains; None where that was not measured. together: so many trials fit into the free memory as one
    stack; 0 where that was not measured. compile_ms: to compile what the study gives to `torch.compile`, once a trial.
    gang: what several processes for one trial would gain; None where that was not asked for and does not matter.
    """

    step_ms: float
    evaluation_ms: float
    latest_bytes: int
    best_bytes: int
    fetch_ms: float = 0.0
    loading_processes: int = 0
    useful_processes: int = 0
    trainers: int = 1
    precisions: tuple[tuple[str, float], ...] = ()
    memory: StepMemory | None = None
    together: int = 0
    compile_ms: float = 0.0
    gang: GangPrice | None = None

    @property
    def ranks(self) -> int:
        """Processes that would train a trial together, as was asked for."""
        return self.gang.ranks if self.gang is not None and self.gang.asked else 1

    def process_seconds(self, steps: int, evaluations: float, compiling: float = 0.0) -> float:
        """What all ranks spend on so many steps, and on evaluations and compiling of so many seconds in one process."""
        if self.gang is None or not self.gang.asked:
            return steps * self.step_ms / 1e3 + evaluations + compiling
        return self.gang.process_seconds(steps, evaluations) + self.ranks * compiling
