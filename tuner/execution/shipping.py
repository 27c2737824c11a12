"""The code of a study for other machines: an archive of the study file's folder, without what is no code.

Nothing else is shipped, and nothing of it is installed: packages, and data that are large, are the machines' own.
"""

import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from tuner import system
from tuner.errors import InputError
from tuner.shown import counted, readable_bytes, shown

MOST_BYTES = 100 * 2**20  # each node copies it, and the command's keeps it in memory
NAMED = 5  # largest files, where it is too much
# Folders of records, of version control, and of what tools make; hidden ones are left out, too.
LEFT_OUT = ("runs", "checkpoints", "__pycache__", "venv", "node_modules")
FOLDER_ENDING = ".code"  # of what was unpacked
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


def pack(folder: Path, archive: Path) -> str:
    """Write what is shipped of a folder to a zip file; returns what that is, in words.

    Raises InputError, before anything is written, for more than `MOST_BYTES`, with the largest files.
    """
    try:
        return _pack(folder, archive)
    except (PermissionError, FileNotFoundError) as error:
        raise InputError(
            f"the folder of the study file, {folder}, would be sent to each machine, and {error.filename} in it cannot "
            f"be read: {error.strerror}. Give the study file a folder of its own, with only what the study needs"
        ) from error


def _pack(folder: Path, archive: Path) -> str:
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
    with ZipFile(archive, "w", strict_timestamps=False) as written:
        for one in files:
            written.write(folder / one.path, one.path)
    return f"sent to the machines: {counted(len(files), 'file')} of {folder}, {readable_bytes(size)}"


def unpacked(archive: bytes, parent: Path, name: str) -> Path:
    """The folder of this machine with what `pack` wrote, which all who name the same archive share.

    It stays as long as a process that called this lives: each holds a lock of it, which ends with the process. The next
    one that comes removes what nobody holds (`sweep`). Raises OSError where it cannot be written.
    """
    place = parent / f"{name}-{hashlib.sha256(archive).hexdigest()[:16]}{FOLDER_ENDING}"
    with _guarded(parent):
        _remove_unused(parent, but=place)
        if not place.exists():
            part = place.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            with ZipFile(io.BytesIO(archive)) as read:
                for one in read.infolist():
                    file = Path(read.extract(one, part))
                    file.chmod(0o700 if one.external_attr >> 16 & stat.S_IXUSR else 0o600)
            part.mkdir(exist_ok=True)  # of an archive without files
            part.rename(place)
        system.lock_shared(os.open(place, os.O_RDONLY))
    return place


def sweep(parent: Path) -> None:
    """Remove the unpacked folders that no process uses any more."""
    with suppress(OSError), _guarded(parent):
        _remove_unused(parent)


@contextmanager
def _guarded(parent: Path) -> Iterator[None]:
    with open(parent / "unpacked.lock", "wb") as guard:
        system.lock(guard.fileno())
        yield


def _remove_unused(parent: Path, but: Path | None = None) -> None:
    for place in set(parent.glob(f"*{FOLDER_ENDING}")) - {but}:
        descriptor = os.open(place, os.O_RDONLY)
        try:
            if system.locked_now(descriptor):
                shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(descriptor)
