"""A study as tables that `tuner import table` reads back: points, curves and the space."""

import io
from pathlib import Path

import pandas as pd

from tuner.analysis.study_frames import StudyFrames
from tuner.errors import DeclarationError, StorageError
from tuner.interchange.table_space import space_text

FORMATS = ("csv", "parquet")


def export_tables(frames: StudyFrames, folder: Path, form: str) -> list[Path]:
    """Write points, curves (CSV or Parquet) and space.json into a folder; the same again writes the same bytes.

    Raises DeclarationError where pyarrow is missing, StorageError for a folder that cannot be written.
    """
    contents = {
        folder / f"points.{form}": _bytes(frames.trials.map(_safe), form),
        folder / f"curves.{form}": _bytes(frames.curves.astype({"metric": str}), form),
        folder / "space.json": space_text(frames.study.hyperparameters).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
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


def _safe(value: object) -> object:
    """Keep a spreadsheet from running user text as a formula (RELIABILITY 59)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
