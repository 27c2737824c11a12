"""The wider range to search next, where the optimum lies beyond an edge, and the ends that cannot be moved (B20)."""

import math

from tuner.analysis.known_ends import counts_things, known_end
from tuner.analysis.positions import Axis, next_level, ordered_levels
from tuner.design.hyperparameters import Choice, Range, Value


def next_bound(domain: Range, edge: str, end: float | None = None) -> float | int:
    """A bound further out at `edge` ("low" or "high"), not beyond `end`, which is known to be the last value.

    Log scale: half the range's decades further, at least half a decade and at most one. Linear scale: half the
    width further, but not below 0 where the range is positive, nor past halfway to 1 where it lies below 1
    (momentum, dropout). Whole numbers for integers, at least 1 where they were, and not negative where they were not.
    """
    wider = _wider_log(domain, edge) if domain.log else _wider_linear(domain, edge)
    if end is not None and (not domain.log or end > 0.0):
        wider = max(wider, end) if edge == "low" else min(wider, end)
    if not domain.integer:
        return wider
    whole = math.floor(wider) if edge == "low" else math.ceil(wider)
    return max(1, whole) if domain.low >= 1 else max(0, whole) if domain.low >= 0 else whole


def further(axis: Axis, edge: str) -> float | int:
    """The next bound of an axis, or the next choice; the bound itself where there is nothing beyond."""
    end = known_end(axis.hyperparameter.short_name, edge)
    if not axis.levels:
        return next_bound(axis.scale, edge, end)
    wider = next_level(axis.levels, edge)
    if edge == "low" and axis.levels[0] >= 0:  # what was never negative is not made so
        least = 1 if axis.scale.integer and axis.levels[0] >= 1 else 0
        wider = axis.levels[0] if wider < least else wider
    if end is not None and (wider < end if edge == "low" else wider > end):
        return axis.bound(edge)
    return wider


def closed_because(axis: Axis, edge: str) -> str | None:
    """Why an edge cannot be moved, as a sentence without its full stop; None where it can."""
    domain, bound, name = axis.hyperparameter.domain, axis.bound(edge), axis.hyperparameter.short_name
    if isinstance(domain, Range) and domain.limits in (edge, "both"):
        return f"the {edge} edge is a declared limit"
    off = domain.off
    if isinstance(off, int | float) and not isinstance(off, bool) and off == bound:
        return f"{bound:g} switches {name} off, and there is nothing beyond"
    end = known_end(name, edge)
    size = "smallest" if edge == "low" else "largest"
    if end is not None and (bound <= end if edge == "low" else bound >= end):
        return f"{bound:g} is the {size} {name} possible"
    if edge == "low" and bound == 1 and (axis.scale.integer or counts_things(name)):
        return f"1 is the smallest {name} possible"
    if edge == "low" and bound == 0 and axis.scale.integer:
        return f"0 is the smallest {name} possible"
    if further(axis, edge) == bound:
        return f"nothing lies beyond {bound:g}"
    return None


def wider_choices(domain: Choice, *added: float) -> tuple[Value, ...]:
    """The choices of an ordered domain with more of them, each at the end where it belongs in the declared order."""
    choices: tuple[Value, ...] = domain.choices
    levels = ordered_levels(domain)
    ascending = list(domain.choices) == list(levels)
    whole = all(isinstance(level, int) for level in levels)
    for value in (int(one) if whole else float(one) for one in added):
        first = (value < levels[0]) == ascending
        choices = (value, *choices) if first else (*choices, value)
    return choices


def _wider_log(domain: Range, edge: str) -> float:
    decades = min(1.0, max(0.5, 0.5 * math.log10(domain.high / domain.low)))
    wider = domain.low / 10**decades if edge == "low" else domain.high * 10**decades
    return float(f"{wider:.2g}")


def _wider_linear(domain: Range, edge: str) -> float:
    half = 0.5 * (domain.high - domain.low)
    if edge == "low":
        wider = max(0.0, domain.low - half) if domain.low > 0 else domain.low - half
    else:
        wider = domain.high + half
        if domain.low >= 0 and domain.high < 1:
            wider = min(wider, 0.5 * (domain.high + 1.0))
    return float(f"{wider:.6g}")
