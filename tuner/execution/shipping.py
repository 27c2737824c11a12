"""The code of a study for other machines: a copy of the study file's folder, without what is no code.

Nothing else is shipped, and nothing of it is installed: packages, and data that are large, are the machines' own.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import InputError
from tuner.shown import counted, readable_bytes, shown

MOST_BYTES = 100 * 2**20  # of Ray; each node copies it, and the head keeps it in memory
NAMED = 5  # largest files, where it is too much
# Folders of records, of version control, and of what tools make; hidden ones are left out, too.
LEFT_OUT = ("runs", "checkpoints", "__pycache__", "venv", "node_modules")
ENDINGS = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal", ".pyc", ".pyo", ".db")


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """A file of the study's folder; path: relative to it."""

    path: Path
    num_bytes: int


def shipped_files(folder: Path) -> Iterator[ShippedFile]:
    """The files of a study's folder that other machines get. Links to folders are not followed."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not (name in LEFT_OUT or name.startswith(".")))
        for name in sorted(names):
            path = Path(where) / name
            if not name.startswith(".") and not name.endswith(ENDINGS) and path.is_file():
                yield ShippedFile(path.relative_to(folder), path.stat().st_size)


def ship(folder: Path, copy: Path) -> str:
    """Copy what is shipped of a folder to an empty one; returns what that is, in words.

    Raises InputError, before anything is copied, for more than `MOST_BYTES`, with the largest files.
    """
    try:
        return _ship(folder, copy)
    except (PermissionError, FileNotFoundError) as error:
        raise InputError(
            f"the folder of the study file, {folder}, would be sent to each machine, and {error.filename} in it cannot "
            f"be read: {error.strerror}. Give the study file a folder of its own, with only what the study needs"
        ) from error


def _ship(folder: Path, copy: Path) -> str:
    files = list(shipped_files(folder))
    size = sum(one.num_bytes for one in files)
    if size > MOST_BYTES:
        largest = sorted(files, key=lambda one: -one.num_bytes)[:NAMED]
        named = ", ".join(f"{shown(str(one.path))} ({readable_bytes(one.num_bytes)})" for one in largest)
        raise InputError(
            f"the folder of the study file, {folder}, would be sent to each machine, and holds {readable_bytes(size)}, "
            f"where {readable_bytes(MOST_BYTES)} are the most; the largest: {named}. Give the study file a folder of "
            "its own, and keep data where each machine finds them by an absolute path"
        )
    for one in files:
        target = copy / one.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / one.path, target)
    return f"sent to the machines: {counted(len(files), 'file')} of {folder}, {readable_bytes(size)}"
