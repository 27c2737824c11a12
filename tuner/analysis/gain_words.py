"""A difference with its sign in words: better or worse, gained or lost, never better by a negative number."""

import math


def better_or_worse(gain: float) -> str:
    """`gain`: positive for better, in the metric's units. "better by 0.0224", "worse by 0.042" or "no better"."""
    if gain == 0.0 or math.isnan(gain):
        return "no better"
    return f"{'better' if gain > 0.0 else 'worse'} by {abs(gain):.3g}"


def with_interval(gain: float, low: float, high: float, level: float) -> str:
    """`better_or_worse` with its interval from `low` to `high`, which are positive for better, too.

    The ends are in the words of the gain where they have its sign; else each end says which way it points. An endless
    interval is left out.
    """
    told = better_or_worse(gain)
    if not (math.isfinite(low) and math.isfinite(high)):
        return told
    if low >= 0.0 and gain > 0.0:
        return f"{told} ({level:.0%} interval {low:.3g} to {high:.3g})"
    if high <= 0.0 and gain < 0.0:
        return f"{told} ({level:.0%} interval {abs(high):.3g} to {abs(low):.3g})"
    return f"{told} ({level:.0%} interval from {abs(low):.3g} worse to {abs(high):.3g} better)"


def gained_or_lost(gain: float) -> str:
    """As `better_or_worse`: "gained 0.00277", "lost 0.0152" or "gained nothing"."""
    if gain == 0.0 or math.isnan(gain):
        return "gained nothing"
    return f"{'gained' if gain > 0.0 else 'lost'} {abs(gain):.3g}"
