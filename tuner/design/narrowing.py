"""The search space around a winner for the next, longer round: values that transfer are fixed (A36)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tuner.design.hyperparameters import Constant, Domain, Hyperparameter, Limits, Range, Value, as_number
from tuner.design.space import SearchSpace
from tuner.errors import DeclarationError

SHARE = 1 / 3  # [P] of a range, on its sampling scale, is left around the winner
# Families by how likely a good value stays good in longer training: likely; to be confirmed; not at all.
CARRIED = ("warmup", "initialization")
CONFIRMED = ("architecture",)
TUNED_AGAIN = ("schedule",)


def narrowed_space(space: SearchSpace, winner: Mapping[str, Value]) -> SearchSpace:
    """The space of the next round: values that transfer are fixed, and ranges that may transfer are narrower.

    Warmup, initialization and architecture keep the winner's value. The schedule keeps its whole range. Every other
    range is narrowed to a third of its width around the winner, and every other choice is fixed. Raises
    DeclarationError where nothing is left to search.
    """
    varied: list[Hyperparameter] = []
    fixed: dict[str, Constant] = {name: constant for name, constant in space.fixed if name in winner}
    for hyperparameter, value in _existing(space, winner):
        domain = hyperparameter.domain
        if hyperparameter.family in TUNED_AGAIN:
            varied.append(hyperparameter)
        elif hyperparameter.family in (*CARRIED, *CONFIRMED) or not isinstance(domain, Range):
            fixed[hyperparameter.name] = fixed_at(hyperparameter, value)
        else:
            number = as_number(value, hyperparameter.name)
            varied.append(replace(hyperparameter, domain=narrowed_range(domain, number)))
    if not varied:
        raise DeclarationError(
            "nothing is left to search around the winner: every hyperparameter of the round before keeps its value "
            "(A36); leave trials out, and promote points only"
        )
    return SearchSpace.of(tuple(varied), tuple(fixed.items()))


def narrowed_range(domain: Range, value: float) -> Range:
    """A third of the range around a value; near an end of the range it is moved so that it lies inside."""
    place = min(max(domain.unit_of(value), 0.0), 1.0)
    start = min(max(place - SHARE / 2, 0.0), 1.0 - SHARE)
    low, high = domain.value_at(start), domain.value_at(start + SHARE)
    if domain.integer:
        low, high = _whole(domain, low, high, value)
    at_low = low == domain.low and domain.limits in ("low", "both")
    at_high = high == domain.high and domain.limits in ("high", "both")
    limits: Limits = "both" if at_low and at_high else "low" if at_low else "high" if at_high else "none"
    return replace(domain, low=low, high=high, limits=limits)


def _whole(domain: Range, low: float, high: float, value: float) -> tuple[int, int]:
    """The ends of at least two whole numbers, `value` among them."""
    first, last = math.floor(min(low, value)), math.ceil(max(high, value))
    if first == last:
        first, last = max(int(domain.low), first - 1), min(int(domain.high), last + 1)
    return first, last


def _existing(space: SearchSpace, winner: Mapping[str, Value]) -> Iterator[tuple[Hyperparameter, Value]]:
    """The hyperparameters that exist at the winner, without those of other branches."""
    known = dict(winner)
    for hyperparameter in space:
        if hyperparameter.name in known:
            yield hyperparameter, known[hyperparameter.name]


def fixed_at(hyperparameter: Hyperparameter, value: Value) -> Constant:
    """The hyperparameter as a value that does not vary, with its family and off value."""
    off, has_off = _off(hyperparameter.domain)
    return Constant(value, hyperparameter.family, off, has_off)


def _off(domain: Domain) -> tuple[Value, bool]:
    return (domain.off, domain.off is not None) if isinstance(domain, Range) else (domain.off, domain.has_off)
