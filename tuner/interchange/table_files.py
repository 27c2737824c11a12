"""Reads tables from files: CSV as text cells, Parquet with its types; any other file is one clear error."""

import difflib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.errors import DeclarationError
from tuner.security import original_cell

TELL_NAN_APART = ("future.distinguish_nan_and_na", True)  # of a number that is missing, in Parquet
SUFFIXES = (".csv", ".parquet", ".pq")
_INDEX = re.compile(r"Unnamed: \d+")  # the index that pandas wrote, read and written again
_SHOWN = 400  # characters of a list of columns in a message


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file as text cells, or a Parquet file. Raises DeclarationError.

    Rows in which every cell is empty, and columns without a heading (the index that pandas writes), are left out.
    """
    refuse_no_file(path)
    try:
        table = _parquet(path) if path.suffix in (".parquet", ".pq") else _csv(path)
    except ImportError:
        raise DeclarationError(f"{path} is Parquet, which needs pyarrow: pip install 'tuner[parquet]'") from None
    except (ValueError, OSError, OverflowError) as error:
        reason = " ".join(f"{error!s:.200}".split())
        raise DeclarationError(
            f"{path} cannot be read as a table: {reason}; a table is UTF-8 text with a heading and commas between cells"
        ) from error
    table = table.rename(columns=lambda name: original_cell(str(name)))
    doubled = table.columns[table.columns.duplicated()]
    if len(doubled):
        raise DeclarationError(f"{path} has two columns {doubled[0]!r:.80}; rename one")
    if len(table.columns) < 2:
        _refuse_one_column(path, table)
    return table


def refuse_no_file(path: Path) -> None:
    """Raise DeclarationError for a path that is not a file, with files of similar names beside it."""
    if path.is_dir():
        raise DeclarationError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise DeclarationError(f"{path} is no regular file (a pipe, or a device); write it into a file first")
    if not path.is_file():
        beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=3)
        meant = f"; did you mean {' or '.join(str(path.with_name(name)) for name in near)}?" if near else ""
        raise DeclarationError(f"there is no file {path}{meant}")


def text_of(path: Path) -> str:
    """The text of a file. Raises DeclarationError where it cannot be read, or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DeclarationError(f"{path} cannot be read as UTF-8 text: {error!s:.200}") from error


def check_columns(table: pd.DataFrame, wanted: Sequence[str], path: Path) -> None:
    """Raise DeclarationError for columns that a table lacks, with those it has."""
    missing = [name for name in wanted if name not in table]
    if missing:
        raise DeclarationError(
            f"{path} has no column {', '.join(missing)}; it has: {columns_of(table)} (a heading, and commas between "
            "cells)"
        )


def columns_of(table: pd.DataFrame) -> str:
    """The names of the columns, for a message."""
    text = ", ".join(map(str, table.columns))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _csv(path: Path) -> pd.DataFrame:
    """The heading is read as a row, so that pandas renames nothing."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, encoding="utf-8-sig")
    heading = [str(name).strip() for name in rows.iloc[0]]
    named = [name != "" and not _INDEX.fullmatch(name) for name in heading]
    table = rows.iloc[1:].set_axis(heading, axis=1).loc[:, named]
    whole = ~(table == "").all(axis=1) if len(table.columns) else slice(None)
    return table[whole].reset_index(drop=True)


def _parquet(path: Path) -> pd.DataFrame:
    """A NaN becomes the text nan, because pandas would take it for an empty cell."""
    with warnings.catch_warnings(), pd.option_context(*TELL_NAN_APART):
        warnings.simplefilter("ignore")
        table = pd.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
        for name in table.columns[~table.columns.duplicated(keep=False)]:
            if pd.api.types.is_float_dtype(table[name]):
                empty = table[name].isna().to_numpy(dtype=bool)
                nan = np.isnan(table[name].to_numpy(dtype=np.float64, na_value=0.0)) & ~empty
                table[name] = (
                    table[name].astype(object).mask(empty, None).mask(nan, "nan") if nan.any() else table[name]
                )
    return table


def _refuse_one_column(path: Path, table: pd.DataFrame) -> None:
    heading = str(table.columns[0]) if len(table.columns) else ""
    between = next(
        (f"{name} ({mark!r})" for mark, name in ((";", "semicolons"), ("\t", "tabs")) if mark in heading), ""
    )
    told = f"its cells seem to be separated by {between}" if between else f"it has one column: {heading!r:.80}"
    raise DeclarationError(
        f"{path} cannot be read as a table: {told}; a table is UTF-8 text with a heading and commas between cells"
    )
