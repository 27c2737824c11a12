"""The shapes and the families of learning rate schedules, and the functions that declare them in a study file.

A new one is a record here; a function that declares it becomes a word of study files in `tuner/__init__`.
"""

import math
from collections.abc import Callable, Sequence

from tuner.budget.schedules import Piece, ScheduleFamily, ScheduleKind, Shape
from tuner.errors import DeclarationError


def _between(done: Callable[[float], float]) -> Callable[[Piece, int], float]:
    """From `start` to `end`; done: the share of the way at relative progress p in [0, 1)."""

    def fraction(piece: Piece, step: int) -> float:
        return piece.start + (piece.end - piece.start) * done(step / piece.steps)

    return fraction


def _warmup_fraction(piece: Piece, step: int) -> float:
    return piece.end * (step + 1) / piece.steps


def _inverse_sqrt_fraction(piece: Piece, step: int) -> float:
    """`end` is the time scale in steps."""
    return piece.start * math.sqrt(piece.end / (piece.end + step))


WARMUP = Shape("warmup", _warmup_fraction, role="warmup", words="warmup over {over}")
CONSTANT_SHAPE = Shape(
    "constant", _between(lambda p: 0.0), role="hold", words="constant for {over}", reaches_end=True, alone="rescale"
)
LINEAR_SHAPE = Shape(
    "linear",
    _between(lambda p: p),
    role="decay",
    words="linear decay over {over} to {goal}",
    reaches_end=True,
    alone="hold_then_decay",
    after_hold=True,
)
COSINE_SHAPE = Shape(
    "cosine",
    _between(lambda p: 0.5 * (1.0 - math.cos(math.pi * p))),
    role="decay",
    words="cosine decay over {over} to {goal}",
    reaches_end=True,
    alone="rescale",
    after_hold=True,
)
ONE_MINUS_SQRT_SHAPE = Shape(
    "one_minus_sqrt",
    _between(math.sqrt),
    role="decay",
    words="one minus square root decay over {over} to {goal}",
    reaches_end=True,
    after_hold=True,
)
INVERSE_SQRT_SHAPE = Shape(
    "inverse_sqrt",
    _inverse_sqrt_fraction,
    role="decay",
    words="inverse square root decay over {over}",
    scales_end=True,
)


def _one_piece(shape: Shape) -> Callable[[ScheduleFamily, int, int], Sequence[Piece]]:
    """One piece from the base rate to the declared end over all steps after the warmup."""

    def pieces(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
        return [Piece(shape.name, max_train_steps - warmup_steps, 1.0, declared.final)]

    return pieces


def _constant_pieces(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
    return [Piece(CONSTANT_SHAPE.name, max_train_steps - warmup_steps)]


def _constant_then_decay_pieces(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
    steps, decay = max_train_steps - warmup_steps, declared.decay_steps(max_train_steps)
    if decay > steps:
        raise DeclarationError(
            f"a decay of {decay:,} steps and a warmup of {warmup_steps:,} do not fit in {max_train_steps:,} steps"
        )
    return [Piece(CONSTANT_SHAPE.name, steps - decay), Piece(declared.decay_shape, decay, 1.0, declared.final)]


def _inverse_sqrt_pieces(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
    timescale = float(declared.timescale or max(warmup_steps, 1))
    return [Piece(INVERSE_SQRT_SHAPE.name, max_train_steps - warmup_steps, 1.0, timescale)]


CONSTANT = ScheduleKind("constant", _constant_pieces, importable=True)
LINEAR = ScheduleKind("linear", _one_piece(LINEAR_SHAPE))
COSINE = ScheduleKind("cosine", _one_piece(COSINE_SHAPE))
CONSTANT_THEN_DECAY = ScheduleKind(
    "constant_then_decay", _constant_then_decay_pieces, declares_decay=True, shares_trunk=True
)
INVERSE_SQRT = ScheduleKind("inverse_sqrt", _inverse_sqrt_pieces)
# Of trials that were run elsewhere: only that the rate falls is known, or not even that. Nothing is trained with these.
DECAYING = ScheduleKind(
    "decaying",
    _one_piece(LINEAR_SHAPE),
    importable=True,
    unknown="falling, as its log shows; the shape is not known",
    falls=True,
)
UNKNOWN = ScheduleKind("unknown", _one_piece(LINEAR_SHAPE), importable=True, unknown="not known")


def constant() -> ScheduleFamily:
    """The base learning rate at every step after the warmup."""
    return ScheduleFamily(CONSTANT.name)


def linear(final: float = 0.0) -> ScheduleFamily:
    """A straight line from the base rate to `final` (a fraction of it) over all steps after the warmup."""
    return ScheduleFamily(LINEAR.name, final=final)


def cosine(final: float = 0.0) -> ScheduleFamily:
    """Half a cosine from the base rate to `final` (a fraction of it) over all steps after the warmup."""
    return ScheduleFamily(COSINE.name, final=final)


def constant_then_decay(decay: float | int = 0.2, final: float = 0.0, shape: str = "linear") -> ScheduleFamily:
    """The base rate, then a decay over the last `decay` of the run: a fraction (float) or a count of steps (int).

    The default: its constant part is shared by runs of every length (also called WSD, trapezoidal). shape: "linear",
    "cosine" or "one_minus_sqrt".
    """
    return ScheduleFamily(CONSTANT_THEN_DECAY.name, decay, final, shape)


def inverse_sqrt(timescale: int | None = None) -> ScheduleFamily:
    """1 / sqrt(1 + s / timescale) after the warmup; `timescale` in steps, by default the warmup's length."""
    return ScheduleFamily(INVERSE_SQRT.name, timescale=timescale)
