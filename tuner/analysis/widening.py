"""The wider range to search next, where the optimum lies beyond an edge (B20)."""

import math

from tuner.design.hyperparameters import Range


def next_bound(domain: Range, edge: str) -> float | int:
    """A bound further out at `edge` ("low" or "high").

    Log scale: half the range's decades further, at least half a decade and at most one. Linear scale: half the
    width further, but not below 0 where the range is positive, nor past halfway to 1 where it lies below 1
    (momentum, dropout). Whole numbers for integers, at least 1 where they were.
    """
    wider = _wider_log(domain, edge) if domain.log else _wider_linear(domain, edge)
    if not domain.integer:
        return wider
    whole = math.floor(wider) if edge == "low" else math.ceil(wider)
    return max(1, whole) if domain.low >= 1 else whole


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
