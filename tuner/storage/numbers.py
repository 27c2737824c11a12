"""Floats that survive the database exactly.

SQLite turns NaN into NULL and -0.0 into 0.0, and PostgreSQL sorts NaN as the largest number. So a number is
stored as (kind, value): kind says "finite", or names the value that SQL cannot be trusted with, whose `value` is
NULL (for -0.0 it is 0.0, which is what sums and orders the same). Every NaN comes back as the one NaN of Python.
"""

import math

FINITE = "finite"
UNUSUAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-0.0": -0.0}


def stored(value: float) -> tuple[str, float | None]:
    """What goes into the database for `value`."""
    if value:
        if math.isfinite(value):
            return FINITE, value
        return ("nan" if math.isnan(value) else str(value)), None
    return ("-0.0" if math.copysign(1.0, value) < 0 else FINITE), 0.0


def restored(kind: str, value: float | None) -> float:
    """The number that was stored as (kind, value). What nobody of us stored is no number, and wins nothing."""
    if kind == FINITE and isinstance(value, int | float):
        return value
    return UNUSUAL.get(kind, math.nan) if kind != FINITE else math.nan
