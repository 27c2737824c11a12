"""A study as tables that `tuner import table` reads back: points, curves and the space."""

import io
from pathlib import Path

import pandas as pd

from tuner.analysis.study_frames import StudyFrames
from tuner.errors import DeclarationError, StorageError
from tuner.interchange.table_space import space_text
from tuner.security import make_private_folder, safe_cell

FORMATS = ("csv", "parquet")


def export_tables(frames: StudyFrames, folder: Path, form: str) -> list[Path]:
    """Write points, curves (CSV or Parquet) and space.json into a folder; the same again writes the same bytes.

    Raises DeclarationError where pyarrow is missing, StorageError for a folder that cannot be written.
    """
    contents = {
        folder / f"points.{form}": _bytes(_safe(frames.trials), form),
        folder / f"curves.{form}": _bytes(_safe(frames.curves.astype({"metric": str})), form),
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
