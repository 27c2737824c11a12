"""A study as tables that `tuner import table` reads back: points, curves and the space."""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Choice, Range
from tuner.errors import DeclarationError, StorageError
from tuner.interchange.cells import UNKNOWN, empty_means_a_choice, with_choice_cells
from tuner.interchange.table_files import TELL_NAN_APART
from tuner.interchange.table_space import space_text
from tuner.security import make_private_folder, safe_cell

FORMATS = ("csv", "parquet")


def export_tables(frames: StudyFrames, folder: Path, form: str) -> list[Path]:
    """Write points, curves (CSV or Parquet) and space.json into a folder; the same again writes the same bytes.

    Raises DeclarationError where pyarrow is missing, StorageError for a folder that cannot be written.
    """
    with pd.option_context(*TELL_NAN_APART):
        curves = _bytes(_curves(frames, form), form)
    contents = {
        folder / f"points.{form}": _bytes(_safe(_points(frames)), form),
        folder / f"curves.{form}": curves,
        folder / "space.json": space_text(frames.study.hyperparameters).encode(),
    }
    try:
        make_private_folder(folder)
        for path, content in contents.items():
            new = path.with_name(f".{path.name}.new")
            new.write_bytes(content)
            new.replace(path)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error}") from error
    return list(contents)


def _points(frames: StudyFrames) -> pd.DataFrame:
    """The table of trials with cells that the space file reads back to the same values."""
    table = with_choice_cells(frames.trials, frames.study.hyperparameters)
    for hyperparameter in frames.study.hyperparameters:
        name, domain = hyperparameter.name, hyperparameter.domain
        if isinstance(domain, Range) and domain.integer:
            table[name] = table[name].astype("Int64")  # 16 stays 16 where other trials do not have it
        elif isinstance(domain, Choice) and hyperparameter.condition is None and empty_means_a_choice(domain.choices):
            table[name] = table[name].map(lambda cell: UNKNOWN if cell is None else cell)
    return table


def _curves(frames: StudyFrames, form: str) -> pd.DataFrame:
    """NaN is written as a value, since an empty cell means that nothing was measured."""
    table = frames.curves.assign(metric=frames.curves["metric"].astype(str).map(safe_cell))
    values = table["value"].to_numpy(dtype=np.float64)
    if form == "csv":
        cells = pd.Series(values, index=table.index, dtype=object)
        return table.assign(value=cells.where(~np.isnan(values), "nan"))
    return table.assign(value=pd.arrays.FloatingArray(values.copy(), np.zeros(len(values), dtype=bool)))


def _bytes(table: pd.DataFrame, form: str) -> bytes:
    if form == "csv":
        return table.to_csv(index=False).encode()
    buffer = io.BytesIO()
    try:
        table.to_parquet(buffer, index=False, engine="pyarrow")
    except ImportError:
        raise DeclarationError("Parquet needs pyarrow: pip install 'tuner[parquet]'; CSV needs nothing") from None
    return buffer.getvalue()


def _safe(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(safe_cell).rename(columns=safe_cell)
