"""What a row holds, looked at before it is believed: SQLite keeps anything in any column, and files get damaged."""

from typing import Any

from sqlalchemy import Column, Double, Row, Table, Text

from tuner.errors import StorageError
from tuner.shown import quoted

MOST_STEPS = 2**53  # more cannot be counted in a float
_COUNTED = ("step", "farthest", "inherited_steps", "attempt", "fence", "number", "num_bytes", "round", "generation")


def refuse_strange(row: Row[Any], table: Table) -> None:
    """Raise StorageError, which names the column, where a row holds what nobody of us wrote there."""
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
