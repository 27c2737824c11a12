"""The fraction of the base learning rate at each step, as data.

Steps count from 0; `fraction(s)` is the rate of update number s. One convention, tested at its ends (D22):
a warmup of W steps takes (s + 1) / W, so no update is wasted at rate 0 and its last step is at the base rate;
a decay of D steps starts at the rate before it and reaches its end *after* its last update, so no update is
wasted at the end either. Nothing here remembers anything: the rate of a step is a closed form of the step (F8).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from tuner.errors import DeclarationError

Shape = Literal["warmup", "constant", "linear", "cosine", "one_minus_sqrt", "inverse_sqrt"]
DecayShape = Literal["linear", "cosine", "one_minus_sqrt"]
FamilyName = Literal["constant", "linear", "cosine", "constant_then_decay", "inverse_sqrt", "decaying", "unknown"]
# Of trials that were run elsewhere: only that the rate falls is known, or not even that. Nothing is trained with these.
UNKNOWN_SHAPES = ("decaying", "unknown")
NEAR_ZERO = 0.1  # [P] of the base rate

# How much of the way from `start` to `end` is done at relative progress p in [0, 1).
_PROGRESS: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 0.0,
    "linear": lambda p: p,
    "cosine": lambda p: 0.5 * (1.0 - math.cos(math.pi * p)),
    "one_minus_sqrt": math.sqrt,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """`steps` updates of one shape, from the fraction `start` towards `end` (reached after the last one)."""

    shape: Shape
    steps: int
    start: float = 1.0
    end: float = 1.0

    def fraction(self, step: int) -> float:
        """The fraction at the piece's own step, 0 <= step < steps."""
        if self.shape == "warmup":
            return self.end * (step + 1) / self.steps
        if self.shape == "inverse_sqrt":  # `end` holds the time scale in steps
            return self.start * math.sqrt(self.end / (self.end + step))
        done = _PROGRESS[self.shape](step / self.steps)
        return self.start + (self.end - self.start) * done

    @property
    def decays(self) -> bool:
        return self.shape in ("linear", "cosine", "one_minus_sqrt", "inverse_sqrt")


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
        """All fractions, one per step: what is drawn, compared and stored."""
        return _fractions(self)

    @property
    def warmup_steps(self) -> int:
        return sum(piece.steps for piece in self.pieces if piece.shape == "warmup")

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
        return last.decays and last.shape != "inverse_sqrt" and last.end < NEAR_ZERO


@dataclass(frozen=True, slots=True)
class ScheduleFamily:
    """What a study file declares; `schedule` makes it concrete for a budget.

    `decay` is a fraction of the steps (a float below 1) or a number of steps (an int); only
    constant_then_decay has one. `final` is the fraction of the base rate at the end of a decay.
    """

    name: FamilyName
    decay: float | int | None = None
    final: float = 0.0
    decay_shape: DecayShape = "linear"
    timescale: int | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(FamilyName):
            raise DeclarationError(f"a schedule is one of {', '.join(get_args(FamilyName))}, got {self.name!r}")
        if not 0.0 <= self.final <= 1.0:
            raise DeclarationError(f"final must be a fraction of the base rate in 0..1, got {self.final}")
        if self.decay_shape not in get_args(DecayShape):
            raise DeclarationError(f"a decay's shape is {', '.join(get_args(DecayShape))}, got {self.decay_shape!r}")
        if self.timescale is not None and self.timescale < 1:
            raise DeclarationError(f"timescale must be at least 1 step, got {self.timescale}")
        if (self.name == "constant_then_decay") != (self.decay is not None):
            raise DeclarationError(f"constant_then_decay alone has a decay and needs it; {self.name} got {self.decay}")
        self._check_decay()

    def _check_decay(self) -> None:
        decay = self.decay
        if isinstance(decay, float) and not 0.0 < decay < 1.0:
            raise DeclarationError(f"decay as a fraction must lie between 0 and 1, got {decay}; steps are an int")
        if isinstance(decay, int) and decay < 1:
            raise DeclarationError(f"decay in steps must be at least 1, got {decay}")

    def schedule(self, max_train_steps: int, warmup_steps: int = 0) -> Schedule:
        """The schedule of a run of `max_train_steps`, the warmup inside it (D23). Raises DeclarationError."""
        if max_train_steps < 1:
            raise DeclarationError(f"max_train_steps must be at least 1, got {max_train_steps}")
        if not 0 <= warmup_steps < max_train_steps:
            raise DeclarationError(
                f"warmup_steps must lie in 0..{max_train_steps - 1} (below max_train_steps), got {warmup_steps}"
            )
        after_warmup = self._after_warmup(max_train_steps, warmup_steps)
        warmup = [Piece("warmup", warmup_steps)] if warmup_steps else []
        return Schedule(tuple(piece for piece in (*warmup, *after_warmup) if piece.steps))

    def _after_warmup(self, max_train_steps: int, warmup_steps: int) -> list[Piece]:
        steps = max_train_steps - warmup_steps
        if self.name == "constant":
            return [Piece("constant", steps)]
        if self.name == "inverse_sqrt":
            return [Piece("inverse_sqrt", steps, 1.0, float(self.timescale or max(warmup_steps, 1)))]
        if self.name == "constant_then_decay":
            decay = self.decay_steps(max_train_steps)
            if decay > steps:
                raise DeclarationError(
                    f"a decay of {decay:,} steps and a warmup of {warmup_steps:,} do not fit in {max_train_steps:,} "
                    "steps"
                )
            return [Piece("constant", steps - decay), Piece(self.decay_shape, decay, 1.0, self.final)]
        shape: Shape = "cosine" if self.name == "cosine" else "linear"
        return [Piece(shape, steps, 1.0, self.final)]

    def decay_steps(self, max_train_steps: int) -> int:
        """The length of the declared decay in a run of `max_train_steps`, at least 1 step."""
        decay = self.decay if self.decay is not None else 0.0
        return decay if isinstance(decay, int) else max(1, round(decay * max_train_steps))


def constant() -> ScheduleFamily:
    """The base learning rate at every step after the warmup."""
    return ScheduleFamily("constant")


def linear(final: float = 0.0) -> ScheduleFamily:
    """A straight line from the base rate to `final` (a fraction of it) over all steps after the warmup."""
    return ScheduleFamily("linear", final=final)


def cosine(final: float = 0.0) -> ScheduleFamily:
    """Half a cosine from the base rate to `final` (a fraction of it) over all steps after the warmup."""
    return ScheduleFamily("cosine", final=final)


def constant_then_decay(
    decay: float | int = 0.2,
    final: float = 0.0,
    shape: DecayShape = "linear",
) -> ScheduleFamily:
    """The base rate, then a decay over the last `decay` of the run: a fraction (float) or a count of steps (int).

    The default: its constant part is shared by runs of every length (also called WSD, trapezoidal).
    """
    return ScheduleFamily("constant_then_decay", decay, final, shape)


def inverse_sqrt(timescale: int | None = None) -> ScheduleFamily:
    """1 / sqrt(1 + s / timescale) after the warmup; `timescale` in steps, by default the warmup's length."""
    return ScheduleFamily("inverse_sqrt", timescale=timescale)


@lru_cache(maxsize=16)
def _fractions(schedule: Schedule) -> tuple[float, ...]:
    """Kept, because the trials of a study have a schedule in common."""
    return tuple(piece.fraction(step) for piece in schedule.pieces for step in range(piece.steps))


def learning_rates(schedule: Schedule, base: float) -> tuple[float, ...]:
    """The realised learning rate of every step: `base` times the fraction."""
    return tuple(base * fraction for fraction in schedule.fractions())
