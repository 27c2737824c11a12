"""The shapes and the families of learning rate schedules, and the functions that declare them in a study file.

A new one is a record here; a function that declares it becomes a word of study files in `tuner/__init__`.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from tuner.budget.schedules import SHAPES, Piece, PlannedPiece, ScheduleFamily, ScheduleKind, Shape
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


def _level_fraction(piece: Piece, step: int) -> float:
    return piece.end


def _exponential_fraction(piece: Piece, step: int) -> float:
    fraction: float = piece.start * (piece.end / piece.start) ** (step / piece.steps)
    return fraction


def _exponential_fault(piece: Piece) -> str:
    return _exponential_end_fault(min(piece.start, piece.end))


def _exponential_end_fault(end: float) -> str:
    return "" if end > 0.0 else f"an exponential decay never reaches 0: its end must be above 0, like 0.01, got {end:g}"


def _polynomial_fraction(piece: Piece, step: int) -> float:
    """`values`: the power."""
    left: float = (1.0 - step / piece.steps) ** piece.values[0]
    return piece.end + (piece.start - piece.end) * left


def _polynomial_fault(piece: Piece) -> str:
    return "" if len(piece.values) == 1 else _power_fault(None)


def _power_fault(power: object) -> str:
    if isinstance(power, int | float) and not isinstance(power, bool) and 0.0 < power < math.inf:
        return ""
    return f"the power of a polynomial decay is a number above 0, got {power!r}"


def _curve_fraction(piece: Piece, step: int) -> float:
    """`values`: the curve of a ScheduleFamily."""
    values, share, count = piece.values, step / piece.steps, len(piece.values) // 2
    place = bisect_right(values, share, 0, count)
    if place == count:
        return values[-1]
    low, high = values[place - 1], values[place]
    start, end = values[count + place - 1], values[count + place]
    return start + (end - start) * ((share - low) / (high - low))


def _curve_fault(piece: Piece) -> str:
    return curve_fault(piece.values)


def curve_fault(values: Sequence[float]) -> str:
    """Why numbers are not the curve of a ScheduleFamily; "" where they are."""
    shares, fractions = values[: len(values) // 2], values[len(values) // 2 :]
    rising = all(low < high for low, high in pairwise(shares)) and shares[:1] == (0.0,) and shares[-1] < 1.0
    if len(shares) == len(fractions) and rising and all(0.0 <= fraction <= 1.0 for fraction in fractions):
        return ""
    return "a curve is ascending shares of training from 0 on, then as many fractions of the base rate in 0..1"


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
LEVEL_SHAPE = Shape(
    "level", _level_fraction, role="decay", words="{goal} for {over}", reaches_end=True
)  # a constant rate below the base rate: the rate has fallen there
EXPONENTIAL_SHAPE = Shape(
    "exponential",
    _exponential_fraction,
    role="decay",
    words="exponential decay over {over} to {goal}",
    reaches_end=True,
    fault=_exponential_fault,
)
POLYNOMIAL_SHAPE = Shape(
    "polynomial",
    _polynomial_fraction,
    role="decay",
    words="polynomial decay over {over} to {goal}",
    reaches_end=True,
    fault=_polynomial_fault,
)
CURVE_SHAPE = Shape(
    "curve",
    _curve_fraction,
    role="decay",
    words="a function of the share of training over {over}, to {goal}",
    reaches_end=True,
    fault=_curve_fault,
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


def _polynomial_pieces(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
    steps, power = max_train_steps - warmup_steps, float(dict(declared.settings)["power"])
    return [Piece(POLYNOMIAL_SHAPE.name, steps, 1.0, declared.final, (power,))]


def _polynomial_declared_fault(declared: ScheduleFamily) -> str:
    return _power_fault(dict(declared.settings).get("power"))


def _exponential_declared_fault(declared: ScheduleFamily) -> str:
    return _exponential_end_fault(declared.final)


def _curve_pieces(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
    curve = declared.curve
    start, end = curve[len(curve) // 2], curve[-1]
    return [Piece(CURVE_SHAPE.name, max_train_steps - warmup_steps, start, end, curve)]


def _curve_declared_fault(declared: ScheduleFamily) -> str:
    return curve_fault(declared.curve)


def _pieces_of_parts(declared: ScheduleFamily, max_train_steps: int, warmup_steps: int) -> Sequence[Piece]:
    """Whole steps by the largest remainder, so that their sum is exact; of equal remainders the first gets the step."""
    steps = max_train_steps - warmup_steps
    exact = [part.share * steps for part in declared.parts]
    lengths = [math.floor(length) for length in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: lengths[place] - exact[place])
    for place in by_remainder[: steps - sum(lengths)]:
        lengths[place] += 1
    ends = [1.0, *(part.end for part in declared.parts)]
    return [_piece_of(part, length, start) for part, length, start in zip(declared.parts, lengths, ends, strict=False)]


def _piece_of(part: PlannedPiece, steps: int, start: float) -> Piece:
    """A part with its length; a constant part below the base rate belongs to the decay."""
    if part.shape != CONSTANT_SHAPE.name:
        return Piece(part.shape, steps, start, part.end, part.values)
    shape = CONSTANT_SHAPE if part.end == 1.0 else LEVEL_SHAPE
    return Piece(shape.name, steps, part.end, part.end)


def _parts_fault(declared: ScheduleFamily) -> str:
    """The first fault of a schedule that is declared piece by piece. Raises DeclarationError for one of a shape."""
    ends = [1.0, *(part.end for part in declared.parts)]
    for number, (part, (before, end)) in enumerate(zip(declared.parts, pairwise(ends), strict=True), 1):
        fault = _part_fault(part, before, end)
        if fault:
            return f"piece {number} of the schedule, {part.shape}: {fault}"
        _piece_of(part, 1, before)
    total = sum(part.share for part in declared.parts)
    if abs(total - 1.0) > SHARES_SUM_TO_1:
        shares = " + ".join(f"{part.share:g}" for part in declared.parts) or "none"
        return f"the shares of a schedule's pieces sum to 1, all steps after the warmup; got {shares} = {total:g}"
    return ""


def _part_fault(part: PlannedPiece, before: float, end: float) -> str:
    if part.shape not in part_shapes():
        return f"a piece has one of the shapes {', '.join(part_shapes())}"
    if not 0.0 < part.share <= 1.0:
        return f"its share of the steps after the warmup must be above 0 and at most 1, got {part.share}"
    if not 0.0 <= end <= before:
        return (
            f"it ends at {end} of the base rate, and must end in 0..{before:g}: a rate that rises again is a restart, "
            "whose best steps show the cycles and not the budget (B48). The rise at the start is the warmup"
        )
    return ""


def part_shapes() -> tuple[str, ...]:
    """The shapes of `pieces`, those of plugins too."""
    inner = (WARMUP, LEVEL_SHAPE, CURVE_SHAPE)
    return tuple(shape.name for shape in SHAPES if shape.reaches_end and shape not in inner)


SHARES_SUM_TO_1 = 1e-9  # so far from 1 is rounding
CONSTANT = ScheduleKind("constant", _constant_pieces, importable=True, words="the base rate")
LINEAR = ScheduleKind("linear", _one_piece(LINEAR_SHAPE), words="a straight line from the base rate to `final` of it")
COSINE = ScheduleKind("cosine", _one_piece(COSINE_SHAPE), words="half a cosine from the base rate to `final` of it")
CONSTANT_THEN_DECAY = ScheduleKind(
    "constant_then_decay",
    _constant_then_decay_pieces,
    declares_decay=True,
    shares_trunk=True,
    words="the base rate, then a decay over the last share (or number) of the steps",
)
INVERSE_SQRT = ScheduleKind(
    "inverse_sqrt", _inverse_sqrt_pieces, words="1 / sqrt(1 + s / timescale) of the base rate at step s"
)
POLYNOMIAL = ScheduleKind(
    "polynomial",
    _polynomial_pieces,
    words="falls like a power of the share of training that is left, to `final` of the base rate",
    fault=_polynomial_declared_fault,
)
EXPONENTIAL = ScheduleKind(
    "exponential",
    _one_piece(EXPONENTIAL_SHAPE),
    words="falls by the same factor at each step, to `final` of the base rate",
    fault=_exponential_declared_fault,
)
STEP_DROPS = ScheduleKind(
    "step_drops",
    _pieces_of_parts,
    words="constant, and multiplied by `factor` at each of these shares of training",
    fault=_parts_fault,
)
PIECES = ScheduleKind("pieces", _pieces_of_parts, words="piece by piece: shape, share, end", fault=_parts_fault)
BY_SHARE = ScheduleKind(
    "by_share", _curve_pieces, words="your function of the share of training", fault=_curve_declared_fault
)
# Of trials that were run elsewhere: only that the rate falls is known, or not even that. Nothing is trained with these.
DECAYING = ScheduleKind(
    "decaying",
    _one_piece(LINEAR_SHAPE),
    importable=True,
    unknown="falling, as its log shows; the shape is not known",
    falls=True,
)
UNKNOWN = ScheduleKind("unknown", _one_piece(LINEAR_SHAPE), importable=True, unknown="not known")
# Of a loop that trains by rates of its own: the study's decide nothing.
OWN = ScheduleKind("own", _constant_pieces, unknown="that of the training itself")


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


def polynomial(power: float = 2.0, final: float = 0.0) -> ScheduleFamily:
    """(1 - p) ** power from the base rate to `final` (a fraction of it), p the share of the steps after the warmup."""
    fault = _power_fault(power)
    if fault:
        raise DeclarationError(fault)
    return ScheduleFamily(POLYNOMIAL.name, final=final, settings=(("power", float(power)),))


def exponential(final: float = 0.01) -> ScheduleFamily:
    """The rate falls by the same factor at each step, from the base rate to `final` (a fraction of it, above 0).

    torch's `ExponentialLR` with `gamma` over n steps is `exponential(gamma ** n)`.
    """
    return ScheduleFamily(EXPONENTIAL.name, final=final)


def step_drops(at: float | Sequence[float], factor: float = 0.1) -> ScheduleFamily:
    """A constant rate that is multiplied by `factor` at each of the shares `at` of the steps after the warmup.

    `step_drops((0.5, 0.75))` trains the second half at a tenth and the last quarter at a hundredth of the base rate.
    """
    places = [at] if isinstance(at, int | float) else list(at)
    if not places or not all(_is_number(place) and 0.0 < place < 1.0 for place in places):
        raise DeclarationError(f"step_drops takes shares of training between 0 and 1, like (0.5, 0.75), got {at!r}")
    if places != sorted(set(places)):
        raise DeclarationError(f"the shares of step_drops ascend, each once, got {at!r}")
    if not _is_number(factor) or not 0.0 < factor < 1.0:
        raise DeclarationError(f"the factor of a drop lies between 0 and 1, got {factor!r}")
    spans = [end - start for start, end in pairwise([0.0, *places, 1.0])]
    parts = tuple(PlannedPiece(CONSTANT_SHAPE.name, span, factor**drops) for drops, span in enumerate(spans))
    return ScheduleFamily(STEP_DROPS.name, final=parts[-1].end, parts=parts)


def pieces(*parts: Sequence[Any]) -> ScheduleFamily:
    """A schedule piece by piece: `pieces(("constant", 0.5), ("linear", 0.3, 0.1), ("constant", 0.2))`.

    Each piece is (shape, share, end): "constant", "linear", "cosine", "one_minus_sqrt", "exponential" or "polynomial",
    which takes its power as a fourth entry; its share of the steps after the warmup, all of which sum to 1; and the
    fraction of the base rate that it ends at, without which a constant piece keeps the rate it begins at. The rate
    does not rise.
    """
    made: list[PlannedPiece] = []
    for number, part in enumerate(parts, 1):
        made.append(_part(number, part, made[-1].end if made else 1.0))
    if not made:
        raise DeclarationError('pieces takes at least one piece, like ("linear", 1.0, 0.0)')
    return ScheduleFamily(PIECES.name, final=made[-1].end, parts=tuple(made))


def _part(number: int, given: object, level: float) -> PlannedPiece:
    """One piece as it was written. Raises DeclarationError."""
    usable = isinstance(given, tuple | list) and 2 <= len(given) <= 4 and isinstance(given[0], str)
    entries = list(given) if usable else []  # type: ignore[call-overload]
    if not usable or not all(map(_is_number, entries[1:])):
        raise DeclarationError(
            f'piece {number} of the schedule is (shape, share, end), like ("linear", 0.3, 0.1), got {given!r}'
        )
    shape, share, ends, values = entries[0], float(entries[1]), entries[2:3], tuple(map(float, entries[3:]))
    if not ends and shape != CONSTANT_SHAPE.name:
        raise DeclarationError(
            f"piece {number} of the schedule, {shape}, needs the fraction of the base rate that it ends at: "
            f'("{shape}", {share:g}, 0.1)'
        )
    wants = shape == POLYNOMIAL_SHAPE.name
    if wants != bool(values) or (wants and _power_fault(values[0])):
        raise DeclarationError(
            f'piece {number} of the schedule: polynomial takes its power, above 0, as fourth entry, ("polynomial", '
            f"0.5, 0.0, 2.0), and no other shape takes one; got {given!r}"
        )
    return PlannedPiece(shape, share, float(ends[0]) if ends else level, values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
