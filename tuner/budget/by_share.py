"""A function of the share of training as a schedule, and torch's schedulers, which are answered with our words.

A function is measured once, where it is declared, and becomes data: shares of training and the fractions of the base
rate there, with straight lines between them. Training, resume, replay, reports and longer rounds read these numbers
and never call the function again. So the rates are those that are stored, whatever becomes of the code, and a
function that was changed is another declaration exactly where it gives other values.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from numbers import Real
from typing import Any

from tuner.budget import families
from tuner.budget.schedules import ScheduleFamily
from tuner.errors import DeclarationError

EVEN = 1024  # shares at equal distances that a function is measured at first
RELATIVE, ABSOLUTE = 1e-4, 1e-7  # [P] how far a straight line may lie from the function: of its value, and at least
MOST_CALLS, MOST_KNOTS = 50_000, 5_000  # a function that still bends after so many is no curve that can be stored


def by_share(function: Callable[[float], float]) -> ScheduleFamily:
    """The schedule of a function: of the share of the steps after the warmup (0 at the first of them, below 1), the
    fraction of the base rate, in 0..1. `schedule=function` in a Campaign says the same.

    The stored curve lies within 0.05 % of the function, and its jumps are exact. Raises DeclarationError, naming
    the share, where the function raises, or gives no number in 0..1.
    """
    calls: dict[float, float] = {}

    def at(share: float) -> float:
        if share not in calls:
            if len(calls) >= MOST_CALLS:
                raise DeclarationError(f"{name} {_WILD}, around the share {share:g} of training")
            calls[share] = _checked(function, share, name)
        return calls[share]

    name = f"the schedule function {getattr(function, '__name__', type(function).__name__)}"
    even = [place / EVEN for place in range(EVEN)]
    for share in even:
        if at(share) != _checked(function, share, name):
            raise DeclarationError(
                f"{name} gives another value at a second call with the share {share:g}; a schedule is the same "
                "at each call: draw no random numbers, and count nothing"
            )
    measured = _measured(at, [*even, 1.0 - 2.0**-24])  # no run has a step beyond that share
    if not any(fraction for _, fraction in measured):
        raise DeclarationError(f"{name} gives 0 at every share of training, which trains nothing")
    knots = _knots(measured)
    if len(knots) > MOST_KNOTS:
        raise DeclarationError(f"{name} {_WILD}")
    curve = (*(share for share, _ in knots), *(fraction for _, fraction in knots))
    return ScheduleFamily(families.BY_SHARE.name, final=knots[-1][1], curve=curve)


def declared_schedule(declared: object) -> ScheduleFamily:
    """A schedule as a study file may write it: a family, or a function. Raises DeclarationError for anything else."""
    if isinstance(declared, ScheduleFamily):
        return declared
    word = getattr(declared, "__name__", "")
    if getattr(families, word, None) is declared and callable(declared):
        raise DeclarationError(f"schedule={word} is the function itself; call it: schedule={word}(...)")
    _refuse_torch(declared)
    if callable(declared):
        return by_share(declared)
    raise DeclarationError(
        "schedule is made by constant(), linear(), cosine(), ..., or is a function of the share of training, "
        f"got {declared!r}"
    )


def _checked(function: Callable[[float], float], share: float, name: str) -> float:
    """One value of a function. Raises DeclarationError."""
    try:
        value: Any = function(share)
    except Exception as error:  # whatever it is: the function is the user's
        raise DeclarationError(f"{name} fails at the share {share:g} of training: {error!r}") from error
    if not isinstance(value, Real) or isinstance(value, bool):
        raise DeclarationError(f"{name} must give a number, and gives {value!r} at the share {share:g} of training")
    fraction = float(value)
    if not math.isfinite(fraction):
        raise DeclarationError(f"{name} gives {value} at the share {share:g} of training, which is no learning rate")
    if not 0.0 <= fraction <= 1.0:
        raise DeclarationError(
            f"{name} gives {value} at the share {share:g} of training; it is a fraction of the base rate in 0..1, so "
            "let learning_rate be the highest rate and divide the function by its largest value"
        )
    return fraction


def _tolerance(value: float) -> float:
    return RELATIVE * value + ABSOLUTE


def _measured(at: Callable[[float], float], shares: list[float]) -> list[tuple[float, float]]:
    """The function at the shares, and between them wherever a straight line is not near it.

    A jump ends up between two neighbouring floats, so that no step lies inside it.
    """
    found = {share: at(share) for share in shares}
    left = list(pairwise(shares))
    while left:
        low, high = left.pop()
        middle = (low + high) / 2.0
        if low < middle < high and _is_off(at(middle), (at(low) + at(high)) / 2.0):
            found[middle] = at(middle)
            left += [(low, middle), (middle, high)]
    return sorted(found.items())


def _is_off(value: float, line: float) -> bool:
    return abs(value - line) > _tolerance(value)


def _knots(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that are needed: every other one lies on the line between its neighbours, nearly (Douglas-Peucker)."""
    kept = {0, len(points) - 1}
    left = [(0, len(points) - 1)]
    while left:
        first, last = left.pop()
        (low, start), (high, end) = points[first], points[last]
        slope = (end - start) / (high - low)
        furthest, place = 1.0, 0
        for between in range(first + 1, last):
            share, value = points[between]
            off = abs(value - start - slope * (share - low)) / _tolerance(value)
            if off > furthest:
                furthest, place = off, between
        if place:
            kept.add(place)
            left += [(first, place), (place, last)]
    return [points[place] for place in sorted(kept)]


_WILD = "bends or jumps too often to be stored as a curve; give a function that does not depend on the single step"
_FUNCTION = "a function of the share of training: schedule=lambda share: 1.0 - share"
_RISES = (
    "is refused: the rate rises again after it fell, so best steps lie at the ends of its cycles whatever the budget "
    "is, and a longer run is another schedule (B48); write cosine(), or constant_then_decay()"
)
_TORCH = {
    "LambdaLR": f"is {_FUNCTION}",
    "MultiplicativeLR": f"is exponential(final), or {_FUNCTION}",
    "StepLR": "is step_drops((0.33, 0.67), factor=0.1), at shares of training",
    "MultiStepLR": "is step_drops((0.5, 0.75), factor=0.1), at shares of training",
    "ConstantLR": "is constant(), or pieces(...)",
    "LinearLR": "is linear(final), or warmup=0.05 where the rate rises",
    "ExponentialLR": "is exponential(final), with final = gamma ** steps",
    "PolynomialLR": "is polynomial(power)",
    "CosineAnnealingLR": "is cosine(final), with final = eta_min / lr",
    "OneCycleLR": "is cosine() with warmup=0.2, and learning_rate as its highest rate",
    "SequentialLR": 'is pieces(("constant", 0.5), ("linear", 0.5, 0.0)), with warmup=0.05 where the rate rises',
    "ChainedScheduler": f"is pieces(...), or {_FUNCTION}",
    "SWALR": 'is pieces(("constant", 0.75), ("cosine", 0.05, 0.5), ("constant", 0.2))',
    "ReduceLROnPlateau": (
        "is refused: it waits until validation stalls, so the rates depend on the noise of the evaluations, are not "
        "known before training, and cannot be carried to a longer run (B48); write step_drops((0.5, 0.75)), or "
        "constant_then_decay()"
    ),
    "CosineAnnealingWarmRestarts": _RISES,
    "CyclicLR": _RISES,
}


def _refuse_torch(declared: object) -> None:
    """Raise DeclarationError for a scheduler of torch: its class, an instance, or a partial; torch is not imported."""
    while isinstance(declared, partial):
        declared = declared.func
    kind = declared if isinstance(declared, type) else type(declared)
    for one in kind.__mro__:
        if one.__module__.startswith("torch.optim.") and one.__name__ in _TORCH:
            raise DeclarationError(
                f"schedule takes no scheduler of torch, because that counts its own steps: {one.__name__} "
                f"{_TORCH[one.__name__]}"
            )
    if any(one.__module__.startswith("torch.optim.") for one in kind.__mro__):
        raise DeclarationError(f"schedule takes no scheduler of torch, got {kind.__name__}; write {_FUNCTION}")
