"""What databases complain about, in our words.

Paused: the machine gave way. StorageError: the database cannot be used as it is.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from tuner.errors import Paused, StorageError, TunerError, Unreachable
from tuner.shown import quoted

# Beginnings of SQLite's error names: the machine gave way, and running again continues.
_PAUSES = {
    "SQLITE_FULL": "the disk is full; make room",
    "SQLITE_READONLY": "it cannot be written to; check its permissions, and that the disk is not mounted read-only",
    "SQLITE_IOERR": "the disk does not answer as it should; look at the system's log",
}
_BUSY = "somebody else has held its lock for a minute; find out who (fuser FILE)"
_UNUSABLE = {
    "SQLITE_CANTOPEN": "it cannot be opened; check that the folder exists and may be written to",
    "SQLITE_NOTADB": "it is not an SQLite database; give another --storage",
    "SQLITE_CORRUPT": "it is damaged; restore a backup (an SQLite file must not be copied while it is written)",
}


@contextmanager
def translated(where: str, *, answered_before: bool = False) -> Iterator[None]:
    """Raise Paused or StorageError, naming the database, for faults of the machine and of the file.

    A server that cannot be connected to is a wrong address, unless it `answered_before`: then it is away.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        known = _in_our_words(where, error, answered_before)
        if known is None:
            raise
        raise known from error


def _in_our_words(where: str, error: DBAPIError | sqlite3.Error, answered_before: bool) -> TunerError | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _sqlite_fault(where, cause)
    return _postgresql_fault(where, error, answered_before) if isinstance(error, DBAPIError) else None


def _sqlite_fault(where: str, error: sqlite3.Error) -> TunerError | None:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY"):
        return Unreachable(f"storage {where}: {error}: {_BUSY}, then run again to continue")
    for known, advice in _PAUSES.items():
        if name.startswith(known):
            return Paused(f"storage {where}: {error}: {advice}, then run again to continue")
    for known, advice in _UNUSABLE.items():
        if name.startswith(known):
            return StorageError(f"storage {where}: {error}: {advice}")
    if isinstance(error, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.OperationalError):
        return StorageError(
            f"storage {where}: {quoted(str(error), 200)}: its tables hold what tuner did not write; `tuner verify` "
            "names it, a backup brings it back"
        )
    return None


def _postgresql_fault(where: str, error: DBAPIError, answered_before: bool) -> TunerError | None:
    """Class 53: out of disk, memory or connections; 57: shut down; 40: deadlock; 25006: read-only; none: no answer."""
    code = getattr(error.orig, "sqlstate", None) or ""
    if not code and not answered_before and "connection failed" in str(error.orig):
        return StorageError(f"storage {where}: {error.orig}: check the address, and that the server runs")
    if code[:2] == "53" or code == "25006":
        return Paused(f"storage {where}: {error.orig}: when the server is well, run again to continue")
    if code[:2] in ("08", "40", "57") or isinstance(error, OperationalError | InterfaceError):
        return Unreachable(f"storage {where}: {error.orig}: when the server is well, run again to continue")
    return None
