"""Frames as tables of text: numbers are aligned right, and long tables are cut and count what is missing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tuner.report.wording import in_words, readable

# Whole numbers that are names and not amounts are written without groups of three.
_NAMES = ("trial", "seed", "data_seed", "rank")


@dataclass(frozen=True, slots=True)
class Column:
    """numeric: cells are aligned right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text. marked: places of highlighted rows. hidden: how many rows were left out."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    hidden: int = 0


def table_of(
    frame: pd.DataFrame,
    *,
    most: int = 100,
    marked: Collection[int] = (),
    titles: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
) -> Table:
    """The first `most` rows of a frame.

    titles: replace column names. names: columns (hyperparameters) that keep their names to the letter.
    """
    shown = frame.head(most)
    renamed = {str(name): in_words(str(name)) for name in frame.columns if name not in names} | dict(titles or {})
    columns = tuple(
        Column(renamed.get(str(name), str(name)), pd.api.types.is_numeric_dtype(frame[name])) for name in frame.columns
    )
    cells = [_texts(shown[name]) for name in shown.columns]
    return Table(columns, tuple(zip(*cells, strict=True)), frozenset(marked), len(frame) - len(shown))


def _texts(column: pd.Series) -> list[str]:
    if column.name in _NAMES:
        return [str(value) for value in column]
    return [readable(value) for value in column]
