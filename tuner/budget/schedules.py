"""The fraction of the base learning rate at each step, as data.

Steps count from 0; `fraction(s)` is the rate of update number s. One convention, tested at its ends (D22): a warmup of
W steps takes (s + 1) / W, so the first update has a rate above 0 and the last step of the warmup has the base rate. A
decay of D steps starts at the rate before it and reaches its end *after* its last update, so that update has a rate
above the end too. A schedule has no state: the rate of a step is a closed form of the step (F8).

A schedule is a sequence of pieces; a piece has one shape. A study file declares a schedule family, which makes the
pieces for a number of steps. Shapes and families are records: those of this package stand in `budget.families`, and
plugins and study files can register more.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tuner.errors import DeclarationError
from tuner.registry import Registry

NEAR_ZERO = 0.1  # [P] of the base rate
Mode = Literal["hold_then_decay", "rescale"]  # how a schedule is carried to a longer run: see `budget.transfer`
Transfer = Literal["hold_then_decay", "rescale", "retune"]  # what a round may declare
Role = Literal["warmup", "hold", "decay"]
Setting = float | int | str


def _none(of: object) -> str:
    """No fault."""
    return ""


@dataclass(frozen=True, eq=False)
class Shape:
    """A curve of the learning rate that a piece of a schedule can have.

    name: under which pieces are stored; it never changes.
    fraction: of a piece and a step in 0..steps-1, the fraction of the base rate, in 0..1.
    role: what the rate does: it rises to the base rate, it stays, or anything else, which counts as a decay.
    words: one phrase about a piece, with {over} for its steps and {goal} for its end.
    reaches_end: whether `end` of a piece is the fraction after its last update; else the shape gives it a meaning.
    scales_end: whether `end` is a number of steps, which grows where the piece is stretched.
    alone: how a schedule that is one such piece after its warmup is carried to a longer run; None: no rule (A38).
    after_hold: whether it may end a schedule whose constant part gets longer in a longer run (A41).
    fault: of a piece, why it cannot be, "" where it can: of stored pieces, too.
    """

    name: str
    fraction: Callable[["Piece", int], float]
    role: Role
    words: str
    reaches_end: bool = False
    scales_end: bool = False
    alone: Mode | None = None
    after_hold: bool = False
    fault: Callable[["Piece"], str] = _none


@dataclass(frozen=True, eq=False)
class ScheduleKind:
    """A family of schedules that a study file can declare, or that an import can find.

    name: under which studies are stored; it never changes.
    pieces: of the declaration, max_train_steps and warmup_steps (both in steps), the pieces after the warmup; pieces
        of 0 steps are left out. Raises DeclarationError where the declaration does not fit.
    declares_decay: whether the declaration needs `decay`; others must not have one.
    shares_trunk: whether runs of all lengths have a constant part in common, and then decay.
    importable: whether a study that was run elsewhere can be imported with it.
    unknown: empty where the pieces are those that were trained; else what is known of the rate instead, as a phrase.
    falls: of an unknown one: True where the rate is known to fall.
    words: what the rate does after the warmup, as one phrase.
    fault: of a declaration, why it cannot be, "" where it can: of stored declarations, too.
    """

    name: str
    pieces: Callable[["ScheduleFamily", int, int], Sequence["Piece"]]
    declares_decay: bool = False
    shares_trunk: bool = False
    importable: bool = False
    unknown: str = ""
    falls: bool = False
    words: str = ""
    fault: Callable[["ScheduleFamily"], str] = _none


_PLACE, _HINT = "tuner.budget.families", "; install the plugin that adds it, or name the study file that registers it"
SHAPES = Registry("the shape of a schedule", Shape, package=_PLACE, error=DeclarationError, hint=_HINT)
SCHEDULES = Registry("a schedule", ScheduleKind, package=_PLACE, error=DeclarationError, hint=_HINT)


@dataclass(frozen=True, slots=True)
class Piece:
    """`steps` updates of one shape (its name), from the fraction `start` towards `end`, a fraction too, mostly.

    values: what else the shape reads, as the power of a polynomial.
    """

    shape: str
    steps: int
    start: float = 1.0
    end: float = 1.0
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        fault = SHAPES.get(self.shape).fault(self)
        if fault:
            raise DeclarationError(fault)

    @property
    def kind(self) -> Shape:
        """The record of the shape."""
        return SHAPES.get(self.shape)

    def fraction(self, step: int) -> float:
        """The fraction at the piece's own step, 0 <= step < steps."""
        return self.kind.fraction(self, step)

    @property
    def decays(self) -> bool:
        return self.kind.role == "decay"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Pieces one after the other. Two schedules are equal when their pieces are."""

    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        for piece in self.pieces:
            if piece.steps < 1:
                raise DeclarationError(f"each piece of a schedule needs at least 1 step, got {piece}")

    def __len__(self) -> int:
        """The number of steps; also the `max_train_steps` this schedule was made for."""
        return sum(piece.steps for piece in self.pieces)

    def fraction(self, step: int) -> float:
        """The fraction of the base learning rate that update number `step` uses, 0 <= step < len(self)."""
        position = step
        for piece in self.pieces:
            if 0 <= position < piece.steps:
                return piece.fraction(position)
            position -= piece.steps
        raise DeclarationError(f"step {step} lies outside this schedule of {len(self):,} steps")

    def fractions(self) -> tuple[float, ...]:
        """All fractions, one for each step."""
        return _fractions(self)

    @property
    def warmup_steps(self) -> int:
        return sum(piece.steps for piece in self.pieces if piece.kind.role == "warmup")

    @property
    def decay_start(self) -> int | None:
        """The first step of the first decaying piece; None where the rate never falls. The trunk ends there."""
        position = 0
        for piece in self.pieces:
            if piece.decays:
                return position
            position += piece.steps
        return None

    @property
    def ends_at_zero(self) -> bool:
        """Whether the rate decays to less than a tenth of the base rate, which makes best steps late (D9)."""
        last = self.pieces[-1]
        return last.decays and last.kind.reaches_end and last.end < NEAR_ZERO


@dataclass(frozen=True, slots=True)
class PlannedPiece:
    """A piece before its length is known: a shape, its share of the steps after the warmup, its end.

    end, values: as those of a Piece.
    """

    shape: str
    share: float
    end: float = 1.0
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleFamily:
    """What a study file declares; `schedule` makes it concrete for a budget.

    name: of a ScheduleKind.
    decay: a fraction of the steps (a float below 1) or a number of steps (an int), for the families that have one.
    final: the fraction of the base rate at the end of a decay.
    decay_shape: the name of the Shape of a decay after a constant part.
    timescale: in steps, for inverse_sqrt.
    settings: what else a family declares, by name.
    parts: of a family that is declared piece by piece, in order.
    curve: of a function of the share of training (see `budget.by_share`): ascending shares of the steps after the
        warmup, then as many fractions of the base rate; straight lines between them.
    """

    name: str
    decay: float | int | None = None
    final: float = 0.0
    decay_shape: str = "linear"
    timescale: int | None = None
    settings: tuple[tuple[str, Setting], ...] = ()
    parts: tuple[PlannedPiece, ...] = ()
    curve: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        kind = SCHEDULES.get(self.name)
        if not isinstance(self.final, int | float) or not 0.0 <= self.final <= 1.0:
            raise DeclarationError(f"final must be a fraction of the base rate in 0..1, got {self.final}")
        if self.decay_shape not in SHAPES or not SHAPES.get(self.decay_shape).after_hold:
            shapes = ", ".join(shape.name for shape in SHAPES if shape.after_hold)
            raise DeclarationError(f"a decay's shape is {shapes}, got {self.decay_shape!r}")
        if self.timescale is not None and self.timescale < 1:
            raise DeclarationError(f"timescale must be at least 1 step, got {self.timescale}")
        if kind.declares_decay != (self.decay is not None):
            having = ", ".join(each.name for each in SCHEDULES if each.declares_decay)
            raise DeclarationError(f"{having} alone has a decay and needs it; {self.name} got {self.decay}")
        self._check_decay()
        fault = kind.fault(self)
        if fault:
            raise DeclarationError(fault)

    def _check_decay(self) -> None:
        decay = self.decay
        if decay is not None and not isinstance(decay, int | float):
            raise DeclarationError(f"decay is a fraction of the run, like 0.2, or an int, its steps; got {decay!r}")
        if isinstance(decay, float) and not 0.0 < decay < 1.0:
            raise DeclarationError(f"decay as a fraction must lie between 0 and 1, got {decay}; steps are an int")
        if isinstance(decay, int) and decay < 1:
            raise DeclarationError(f"decay in steps must be at least 1, got {decay}")

    @property
    def kind(self) -> ScheduleKind:
        """The record of the family."""
        return SCHEDULES.get(self.name)

    def __str__(self) -> str:
        """The declaration as it is compared with that under which a budget was chosen."""
        decay = "" if self.decay is None else f" {self.decay:g}"
        more = [f"{name} {value}" for name, value in self.settings]
        more += [f"{part.shape} {part.share:g} to {part.end:g}" for part in self.parts]
        more += [f"curve {_digest(self.curve)}"] if self.curve else []
        return ", ".join([f"{self.name}{decay} to {self.final:g}", *more])

    def schedule(self, max_train_steps: int, warmup_steps: int = 0) -> Schedule:
        """The schedule of a run of `max_train_steps`, the warmup inside it (D23). Raises DeclarationError."""
        if max_train_steps < 1:
            raise DeclarationError(f"max_train_steps must be at least 1, got {max_train_steps}")
        if not 0 <= warmup_steps < max_train_steps:
            raise DeclarationError(
                f"warmup_steps must lie in 0..{max_train_steps - 1} (below max_train_steps), got {warmup_steps}"
            )
        warmup = [Piece("warmup", warmup_steps)] if warmup_steps else []
        pieces = (*warmup, *self.kind.pieces(self, max_train_steps, warmup_steps))
        schedule = Schedule(tuple(piece for piece in pieces if piece.steps))
        if len(schedule) != max_train_steps:
            raise DeclarationError(
                f"{self.name} made {len(schedule):,} steps of {max_train_steps:,}; correct its pieces"
            )
        return schedule

    def decay_steps(self, max_train_steps: int) -> int:
        """The length of the declared decay in a run of `max_train_steps`, at least 1 step."""
        decay = self.decay if self.decay is not None else 0.0
        return decay if isinstance(decay, int) else max(1, round(decay * max_train_steps))


def _digest(values: Sequence[float]) -> str:
    return hashlib.sha256(repr(tuple(values)).encode()).hexdigest()[:8]


@lru_cache(maxsize=16)
def _fractions(schedule: Schedule) -> tuple[float, ...]:
    """Kept, because the trials of a study have a schedule in common."""
    return tuple(
        fraction
        for piece in schedule.pieces
        for fraction in map(piece.kind.fraction, [piece] * piece.steps, range(piece.steps))
    )


def learning_rates(schedule: Schedule, base: float) -> tuple[float, ...]:
    """The realised learning rate of every step: `base` times the fraction."""
    return tuple(base * fraction for fraction in schedule.fractions())
