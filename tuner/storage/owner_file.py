"""The owner file of a checkpoint folder: which storage may write and delete there.

It appears whole or not at all, and only one of two storages that claim a folder at the same moment creates it.
"""

import errno
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner import system
from tuner.errors import Paused, StorageError
from tuner.security import make_private_folder
from tuner.storage.identity import StorageSite
from tuner.stores.contact import ensure_reachable
from tuner.stores.places import OWNER_FILE, ObjectPath, StoredPath
from tuner.system import sync_folder

NOTE = "tuner: this folder belongs to one storage; others are refused (tuner adopt-storage -h)"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class Owner:
    """The content of the owner file. site: where the storage was when it last claimed the folder.

    folder, folder_key: where the folder was then, and what tells it from a copy. generation: see `StorageIdentity`.
    """

    identity: str
    site: StorageSite
    folder: str
    folder_key: str
    generation: int


def read_owner(root: StoredPath) -> Owner | None:
    """The owner of a folder; None without one. Raises StorageError for an owner file that cannot be read."""
    ensure_reachable(root)
    path = root / OWNER_FILE
    try:
        told = json.loads(_content(path))
        site = StorageSite(str(told["address"]), str(told["host"]), str(told["key"]))
        return Owner(str(told["storage"]), site, str(told["folder"]), str(told["folder_key"]), int(told["generation"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Paused:  # a store that does not answer says nothing of the owner
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path}, which says whose the checkpoint folder is, cannot be read ({type(error).__name__}: {error}); put "
            "it back, or let `tuner adopt-storage` write it again"
        ) from error


def _content(path: StoredPath) -> bytes:
    if isinstance(path, ObjectPath):
        return path.read_bytes()
    with os.fdopen(os.open(path, os.O_RDONLY | system.NO_LINKS | system.NO_WAIT | system.BINARY), "rb") as file:
        return file.read(100_000)


def owner_or_none(root: StoredPath) -> Owner | None:
    """The owner; None also where the owner file cannot be read."""
    with suppress(StorageError, Paused):
        return read_owner(root)
    return None


def folder_key(root: StoredPath) -> str:
    """What tells a folder from a copy of it: the inodes of the folder and of its owner file; of a place its address."""
    if isinstance(root, ObjectPath):
        return str(root)
    return f"{root.stat().st_ino}:{(root / OWNER_FILE).stat().st_ino}"


def write_owner(root: StoredPath, identity: str, site: StorageSite, generation: int, *, new: bool) -> bool:
    """Write the owner file durably. new: only where there is none; False when another process was first.

    Raises Paused for a full or broken disk, StorageError for a folder that may not be written.
    """
    if isinstance(root, ObjectPath):
        return _write_object(root, _words_of(root, identity, site, generation, folder_key(root)), new)
    try:
        return _write(root, identity, site, generation, new)
    except OSError as error:
        told = f"cannot write to the checkpoint folder {root}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise Paused(f"{told}; make room or mend the disk, then run the same command again to continue") from error
        raise StorageError(f"{told}; name another folder with --checkpoints") from error


def _write(root: Path, identity: str, site: StorageSite, generation: int, new: bool) -> bool:
    for made in make_private_folder(root):
        sync_folder(made.parent)
    temporary = root / f"{OWNER_FILE}.{secrets.token_hex(4)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.NO_LINKS | system.BINARY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            key = f"{root.stat().st_ino}:{os.fstat(file.fileno()).st_ino}"
            file.write(_words_of(root, identity, site, generation, key))
            file.flush()
            os.fsync(file.fileno())
        if not new:
            temporary.replace(root / OWNER_FILE)
        elif not _named(temporary, root / OWNER_FILE):
            return False
        sync_folder(root)
        return True
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _words_of(root: StoredPath, identity: str, site: StorageSite, generation: int, key: str) -> str:
    told = {
        "note": NOTE,
        "storage": identity,
        "address": site.address,
        "host": site.host,
        "key": site.key,
        "folder": str(root.resolve()),
        "folder_key": key,
        "generation": generation,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps(told, indent=1)


def _write_object(root: ObjectPath, words: str, new: bool) -> bool:
    """Of two that create it only one does: the store refuses the other."""
    owner = root / OWNER_FILE
    if not new:
        owner.store.replace(owner.key, words.encode())
        return True
    try:
        owner.store.create_from(owner.key, words.encode())
    except FileExistsError:
        return owner.read_bytes() == words.encode()  # ours, whose answer was lost on the way
    return True


def _named(temporary: Path, name: Path) -> bool:
    """Give the file its name, unless another has it: whole, and in one step."""
    try:
        os.link(temporary, name)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:  # a filesystem without hard links: one creates the name, and then replaces its own file
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.NO_LINKS | system.BINARY, 0o600))
        except FileExistsError:
            return False
        temporary.replace(name)
    return True
