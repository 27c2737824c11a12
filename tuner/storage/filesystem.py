"""Files around an SQLite database: private folders, the lock under which it is created, and where it must not lie."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner import system
from tuner.errors import Paused, StorageError
from tuner.security import make_private_folder

ALLOW_NETWORK = "TUNER_SQLITE_ON_NETWORK"
_MOUNTS = Path("/proc/mounts")
# Filesystems of other machines, whose locks SQLite cannot rely on (sqlite.org/howtocorrupt.html).
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs")
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone")


def make_storage_folder(folder: Path) -> None:
    """Create `folder` and those above it that are missing, readable by their owner only. Raises StorageError."""
    try:
        make_private_folder(folder)
    except OSError as error:
        raise StorageError(
            f"cannot create the folder {folder}: {error.strerror}; give another place with --storage or TUNER_STORAGE"
        ) from error


def create_empty(database: Path) -> None:
    """Create the file where there is none. One that is there is not touched: closing it would end SQLite's locks."""
    with suppress(FileExistsError):
        os.close(_created(database, database, os.O_EXCL, 0o644))


def _created(path: Path, database: Path, flags: int, mode: int) -> int:
    """The descriptor of a file of a database. Raises Paused or StorageError."""
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR | system.BINARY | flags, mode)
    except FileExistsError:
        raise
    except OSError as error:
        told = f"cannot write beside the storage {database}: {error.strerror}"
        if error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise Paused(f"{told}; mend the disk or make room, then run again to continue") from error
        raise StorageError(f"{told}; the Ledger needs a folder it may write to") from error


@contextmanager
def creation_lock(database: Path) -> Iterator[None]:
    """Hold the lock file of `database`: one process at a time creates or migrates it. It ends with the process."""
    descriptor = _created(Path(f"{database}.lock"), database, 0, 0o600)
    try:
        system.lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def refuse_network(database: Path) -> None:
    """Raise StorageError when an SQLite file would lie on a network filesystem, unless forced by environment."""
    filesystem = _filesystem_of(database)
    if filesystem in _NETWORK + _NETWORK_FUSE and os.environ.get(ALLOW_NETWORK) != "1":
        raise StorageError(
            f"{database} lies on a network filesystem ({filesystem}), where SQLite's locks do not hold and trials get "
            "lost; use a local disk, or a server with --storage postgresql://... "
            f"({ALLOW_NETWORK}=1 for one single machine, at your own risk)"
        )


def _filesystem_of(path: Path) -> str | None:
    """The type of the filesystem that holds `path`; None where the system does not tell (no /proc)."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    holding: tuple[int, str] | None = None
    for line in lines:
        _, mounted, filesystem, *_ = line.split(" ")
        folder = Path(mounted.replace("\\040", " "))
        depth = len(folder.parts)
        if path.is_relative_to(folder) and (holding is None or depth >= holding[0]):
            holding = (depth, filesystem)
    return holding and holding[1]
