"""Values as the database keeps them: floats that come back exactly, and columns that are checked when they are read.

SQLite turns NaN into NULL and -0.0 into 0.0, and PostgreSQL sorts NaN as the largest number. So a number is
stored as (kind, value): kind is "finite", or names the value that SQL cannot be trusted with, whose `value` is
NULL (for -0.0 it is 0.0, which sums and orders the same). Every NaN comes back as the one NaN of Python. SQLite
keeps anything in any column, and files get damaged, so each row is checked.
"""

import math
from typing import Any

from sqlalchemy import Column, Double, Row, Table, Text

from tuner.errors import StorageError
from tuner.shown import quoted

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
    """The number that was stored as (kind, value); NaN for damaged values, which never win."""
    if kind == FINITE and isinstance(value, int | float):
        return value
    return UNUSUAL.get(kind, math.nan) if kind != FINITE else math.nan


MOST_STEPS = 2**53  # more cannot be counted in a float
_COUNTED = ("step", "farthest", "inherited_steps", "attempt", "fence", "number", "num_bytes", "round", "generation")


def refuse_strange(row: Row[Any], table: Table) -> None:
    """Raise StorageError, which names the column, where a row has a damaged value."""
    for column in table.columns:
        told = strange(column, getattr(row, column.name))
        if told:
            raise StorageError(f"{column.name}: {told}")


def strange(column: Column[Any], value: object) -> str:
    """What is wrong with a value of a column, in words; "" where nothing is."""
    if value is None:
        return "" if column.nullable else "nothing is stored"
    if isinstance(column.type, Text):
        return "" if isinstance(value, str) else f"text was stored, got {quoted(value)}"
    if isinstance(column.type, Double):
        return "" if is_number(value) else f"a number was stored, got {quoted(value)}"
    if not isinstance(value, int) or isinstance(value, bool):
        return f"a whole number was stored, got {quoted(value)}"
    if column.name in _COUNTED and not 0 <= value <= MOST_STEPS:
        return f"a count from 0 to 2^53 was stored, got {value}"
    return ""


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
