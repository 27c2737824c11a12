"""Writing an object: a spool file on the disk of this machine, then one request, or several parts that appear as one.

An object store has no rename, and needs none: an object is there whole or not at all. What a kill leaves is a spool
file, which the next process deletes, an object that no record names, which is swept, or parts that were never put
together, which the bucket's own rule has to delete (docs/how-to/object-storage.md).
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner import system
from tuner.errors import Paused
from tuner.failpoints import failpoint
from tuner.stores.digesting import DigestingFile, Write, fill
from tuner.stores.places import OWNER_FILE, ObjectPath, StoredPath

_SPOOL = "tuner-spool"  # in the folder for temporary files
_swept: set[Path] = set()  # spool folders that this process has cleared of what killed ones left


def upload(target: ObjectPath, write: Write, *, replace: bool) -> DigestingFile:
    """Write a spool file, send it, and delete it. Raises OSError, Paused where another object has the name."""
    with spool_file() as spool:
        with _named(spool.parent), DigestingFile(spool) as written:
            failpoint("ck-open")
            fill(written, write)
        failpoint("ck-spooled")
        if replace:
            target.store.replace(target.key, spool)
        else:
            _create(target, spool, written.digest)
        failpoint("ck-uploaded")
    return written


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """An error of writing a file knows no name: it is this machine's disk that is full, and not the store."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        words = f"{error.strerror} (for files on their way to the object store; TMPDIR names another place)"
        raise OSError(error.errno, words, str(folder)) from error


def _create(target: ObjectPath, spool: Path, digest: str) -> None:
    """Send a new object. One of the same content is ours: an answer was lost on the way, and we asked again."""
    try:
        target.store.create(target.key, spool)
    except FileExistsError:
        if hashlib.sha256(target.read_bytes()).hexdigest() != digest:
            raise Paused(
                f"{target} is there already with other content, and no object is overwritten; run the same command "
                "again: what it writes then has another name"
            ) from None


def spool_folder() -> Path:
    """The folder of this user for files on their way to an object store, below that for temporary files.

    Raises PermissionError where it is not of this user alone.
    """
    return system.own_temporary_folder(_SPOOL)


def local_folder(root: StoredPath, place: str) -> Path:
    """The folder `place` below a folder; for a place in a bucket one on the disk of this machine.

    What is written there stays on this machine. It is the same folder at every call, as long as the same storage owns
    the place: another one that has the bucket later finds none of its files. Raises OSError.
    """
    if isinstance(root, Path):
        return root / place
    path = root / place
    named = f"{path.parent} of {_owner_of(root)}"
    return spool_folder() / "files" / hashlib.sha256(named.encode()).hexdigest()[:16] / path.name


def _owner_of(root: ObjectPath) -> str:
    """The identity of the storage that owns a place; "" before one does."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        return str(json.loads((root / OWNER_FILE).read_bytes())["storage"])
    return ""


@contextmanager
def spool_file() -> Iterator[Path]:
    """An empty file that is deleted with the block, and by another process where this one is killed.

    It is locked while it is used: a lock ends with its process, which a number of a process does not show where
    containers share the folder.
    """
    folder = spool_folder()
    if folder not in _swept:
        _swept.add(folder)
        clear_spool(folder)
    descriptor, name = _locked_file(folder)
    try:
        yield Path(name)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(name)


def _locked_file(folder: Path) -> tuple[int, str]:
    """A new file, open and locked, and its name; another one where a sweep took it before it was locked."""
    while True:
        descriptor, name = tempfile.mkstemp(".part", f"{os.getpid()}-", folder)
        system.lock(descriptor)
        if os.path.exists(name):
            return descriptor, name
        os.close(descriptor)


def clear_spool(folder: Path) -> int:
    """Delete the spool files of processes that have ended; returns how many."""
    cleared = 0
    for path in folder.glob("*.part"):
        with suppress(OSError):  # somebody else was faster, or uses it
            descriptor = os.open(path, os.O_RDWR | system.NO_LINKS)
            try:
                if system.locked_now(descriptor):
                    path.unlink()
                    cleared += 1
            finally:
                os.close(descriptor)
    return cleared
