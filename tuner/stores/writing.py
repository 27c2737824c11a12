"""Writing a file or an object so that a kill leaves the old one or the new one, or nothing, and never a part.

In a folder: temporary file, fsync, rename, fsync of the folder. In an object store: see `stores.uploads`. Either way
the sha256 is that of what was written, taken on the way.
"""

import os
from pathlib import Path

from tuner import system
from tuner.failpoints import failpoint
from tuner.security import make_private_folder
from tuner.stores.digesting import DigestingFile, Write, fill
from tuner.stores.places import ObjectPath, StoredPath
from tuner.stores.uploads import upload


def write_durably(path: StoredPath, write: Write, digits: str = "", *, replace: bool = False) -> DigestingFile:
    """Write a file so that after any crash there is the old content or the new, never a part.

    Whether the name of a file in a folder is durable is decided by `sync_folder`; an object is when this returns.
    Returns the closed file, which knows its digest and size. `digits` tell apart who writes a file at the same time:
    two machines may have a process of the same id. An object is never overwritten, unless by `replace`, for names that
    are made of what is in them: one of other content raises Paused.
    """
    if isinstance(path, ObjectPath):
        return upload(path, write, replace=replace)
    for made in make_private_folder(path.parent):
        sync_folder(made.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{digits}.tmp")
    try:
        with DigestingFile(temporary) as written:
            failpoint("ck-open")
            fill(written, write)
            os.fsync(written.fileno())
        failpoint("ck-synced")
        temporary.replace(path)
        failpoint("ck-renamed")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return written


def sync_folder(path: StoredPath) -> None:
    """Make the names in a folder durable: from now on its new files are there after any crash."""
    if isinstance(path, Path):
        system.sync_folder(path)
    failpoint("ck-dirsynced")
