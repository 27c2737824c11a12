"""Writing a file or an object so that a kill leaves the old one or the new one, or nothing, and never a part.

In a folder: temporary file, fsync, rename, fsync of the folder. In an object store: a spool file on the disk of this
machine, then one request, or one upload in parts that is visible when it is complete; there is no rename. Either way
the sha256 is that of what was written, taken on the way.
"""

import errno
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuner import system
from tuner.errors import Paused
from tuner.failpoints import failpoint
from tuner.security import make_private_folder
from tuner.stores.places import ObjectPath, StoredPath

Write = Callable[["DigestingFile"], object]
_SPOOL = "tuner-spool"  # in the folder for temporary files
_swept: set[Path] = set()  # spool folders that this process has cleared of what killed ones left


class DigestingFile(io.FileIO):
    """A new file that is written from its beginning to its end, and digested on the way.

    A full disk is kept as `fault` and not raised: torch's writer in C++, which calls us, would hide it in another
    error, and a full disk must be known as one.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb", opener=_without_links)
        self.num_bytes = 0
        self.fault: OSError | None = None
        self._sha256 = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The sha256 of what was written so far."""
        return self._sha256.hexdigest()

    def write(self, content: Any, /) -> int:
        """Write all of it: the operating system may take less at a time."""
        whole = left = memoryview(content).cast("B")
        try:
            while left and self.fault is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.fault = error
        self._sha256.update(whole)
        self.num_bytes += len(whole)
        return len(whole)


def _without_links(path: str, flags: int) -> int:
    """Open a file for its owner only, and not what a link of its name points to."""
    return os.open(path, flags | system.NO_LINKS, 0o600)


def write_durably(path: StoredPath, write: Write, digits: str = "", *, replace: bool = False) -> DigestingFile:
    """Write a file so that after any crash there is the old content or the new, never a part.

    Whether the name of a file in a folder is durable is decided by `sync_folder`; an object is when this returns.
    Returns the closed file, which knows its digest and size. `digits` tell apart who writes a file at the same time:
    two machines may have a process of the same id. An object is never overwritten, unless by `replace`, for names that
    are made of what is in them: one of other content raises Paused.
    """
    if isinstance(path, ObjectPath):
        return _upload(path, write, replace=replace)
    for made in make_private_folder(path.parent):
        sync_folder(made.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{digits}.tmp")
    try:
        with DigestingFile(temporary) as written:
            failpoint("ck-open")
            _filled(written, write)
            os.fsync(written.fileno())
        failpoint("ck-synced")
        temporary.replace(path)
        failpoint("ck-renamed")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return written


def _filled(file: DigestingFile, write: Write) -> None:
    write(file)
    if file.fault is not None:
        raise file.fault
    failpoint("ck-written")


def sync_folder(path: StoredPath) -> None:
    """Make the names in a folder durable: from now on its new files are there after any crash."""
    if isinstance(path, Path):
        system.sync_folder(path)
    failpoint("ck-dirsynced")


def _upload(target: ObjectPath, write: Write, *, replace: bool) -> DigestingFile:
    """Write a spool file, send it, and delete it."""
    with spool_file() as spool:
        with DigestingFile(spool) as written:
            failpoint("ck-open")
            _filled(written, write)
        failpoint("ck-spooled")
        if replace:
            target.store.replace(target.key, spool)
        else:
            _create(target, spool, written.digest)
        failpoint("ck-uploaded")
    return written


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

    Raises OSError where somebody else has made it.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir(), f"{_SPOOL}-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
        raise PermissionError(errno.EPERM, "a link or somebody else's folder; set TMPDIR to a folder of yours", folder)
    return folder


def local_folder(path: StoredPath) -> Path:
    """The folder itself; for a place in a bucket one on the disk of this machine, which is the same at every call.

    What is written there stays on this machine.
    """
    if isinstance(path, Path):
        return path
    return spool_folder() / "files" / hashlib.sha256(str(path.parent).encode()).hexdigest()[:16] / path.name


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
    descriptor, name = tempfile.mkstemp(".part", f"{os.getpid()}-", folder)
    try:
        system.lock(descriptor)
        yield Path(name)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(name)


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
