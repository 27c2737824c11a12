"""Tables for a terminal: numbers and names stay whole, and what has no room is left out and said."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from tuner.shown import shortened, shown

PROSE = 32  # characters: a column of longer texts may be folded to this width
LONGEST_CELL = 500  # characters
KEPT = 2  # the first columns say which row it is and stay
_GAP = 2  # between columns


def table_of(frame: pd.DataFrame, title: str = "", folded: bool = False) -> Table:
    """A rich table; user text is never read as markup. `folded` breaks long texts over several lines."""
    table = Table(
        title=Text(shown(title)) if title else None, title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    table.padding = (0, _GAP, 0, 0)
    for name in frame.columns:
        justify = "right" if pd.api.types.is_numeric_dtype(frame[name]) else "left"
        if folded and _width(frame, name) > PROSE:
            table.add_column(Text(shown(str(name))), max_width=PROSE, overflow="fold")
        else:
            table.add_column(Text(shown(str(name))), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(readable(value)) for value in row))
    return table


def fitting(frame: pd.DataFrame, room: int, spare: Sequence[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """The columns that fit into `room` characters with long texts folded, and the names of those left out.

    Left out are first `spare`, in their order, then columns from the right; never the first two.
    """
    names = list(frame.columns)
    expendable = [name for name in spare if name in names[KEPT:]]
    expendable += [name for name in reversed(names[KEPT:]) if name not in expendable]
    widths = {name: min(_width(frame, name), max(PROSE, cell_len(shown(str(name))))) + _GAP for name in names}
    out: list[str] = []
    while expendable and sum(widths[name] for name in names if name not in out) - _GAP > room:
        out.append(expendable.pop(0))
    return frame[[name for name in names if name not in out]], [name for name in names if name in out]


def natural_width(frame: pd.DataFrame) -> int:
    """Characters of a table of which nothing is folded."""
    return sum(_width(frame, name) + _GAP for name in frame.columns)


def _width(frame: pd.DataFrame, name: str) -> int:
    return max([cell_len(shown(str(name))), *(cell_len(readable(value)) for value in frame[name])])


def readable(value: Any) -> str:
    """A value as a person reads it: four significant digits, a dash for nothing, text on one line."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return shortened(shown(str(value)), LONGEST_CELL)
