"""What databases complain about, in our words.

Paused: the machine gave way. StorageError: the database cannot be used as it is.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tuner.errors import NoServer, Paused, ServerFull, StorageError, TunerError, Unreachable
from tuner.shown import quoted, shortened, shown_lines

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

_FULL = (
    "all connections of the server are in use: end other clients, raise its max_connections, or put pgbouncer before "
    "it, then run again to continue"
)
_WELL = "when the server is well, run again to continue"
_FOREIGN = "its tables hold what tuner did not write; give another --storage, or restore a backup"
_READS_ONLY = (
    "the role of the address may read, and not write: let its owner grant it SELECT, INSERT, UPDATE, DELETE and "
    "CREATE, or give another role, then run again to continue"
)
# Beginnings of PostgreSQL's error codes, what they are here, and what helps; the first that fits.
_BY_CODE: tuple[tuple[str, type[TunerError], str], ...] = (
    ("53300", ServerFull, _FULL),
    ("42501", Paused, _READS_ONLY),
    ("53", Paused, _WELL),  # out of disk or memory
    ("25006", Paused, _WELL),  # read-only
    ("08", Unreachable, _WELL),
    ("40", Unreachable, _WELL),  # deadlock
    ("57", Unreachable, _WELL),  # shut down
    ("22", StorageError, _FOREIGN),
    ("42P01", StorageError, _FOREIGN),
    ("42703", StorageError, _FOREIGN),
)
_NO_ANSWER = re.compile(
    "Connection refused|timeout expired|timed out|No route to host|Network is unreachable|No such file"
)
_RECOVERS = "when the server is up, run again to continue"
# What PostgreSQL, pgbouncer and libpq say where no connection is made, and what helps; the first that fits.
_REFUSALS: tuple[tuple[re.Pattern[str], type[TunerError], str], ...] = (
    (re.compile("too many clients|connection slots are reserved|too many connections|no more connections"), ServerFull,
     _FULL),
    (re.compile("starting up|shutting down|in recovery mode|system is not (yet )?accepting|server_login|"
                "pgbouncer cannot connect"), Unreachable, _RECOVERS),
    (re.compile("password authentication failed|no password supplied|[Aa]uthentication failed|auth failed|"
                "wrong password type"), StorageError,
     "the password of this role is wrong or missing: give it in PGPASSWORD, in ~/.pgpass, or in the address "
     "(special characters as %XX)"),
    (re.compile(r"role \".*\" does not exist|no such user"), StorageError,
     "the server has no such role: correct the user of the address, or create it (createuser NAME)"),
    (re.compile(r"database \".*\" does not exist|no such database"), StorageError,
     "the server has no such database: correct the address, or create it (createdb NAME)"),
    (re.compile("could not translate host name|failed to resolve host|Name or service not known|nodename nor servname"),
     StorageError, "there is no host of this name: correct the address"),
    (re.compile("no pg_hba.conf entry|pg_hba.conf rejects"), StorageError,
     "the server does not let this user in from this machine: its pg_hba.conf decides that"),
    (re.compile("is not permitted to log in|permission denied for database|not currently accepting connections"),
     StorageError,
     "the role may not use this database: it needs LOGIN (ALTER ROLE NAME LOGIN) and CONNECT (GRANT CONNECT ON "
     "DATABASE NAME TO ROLE)"),
)  # fmt: skip


@contextmanager
def translated(where: str, *, answered_before: bool = False) -> Iterator[None]:
    """Raise Paused or StorageError, naming the database, for faults of the machine and of the file.

    A server that cannot be connected to is a wrong address, unless it `answered_before`: then it is away.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unreachable(f"storage {where}: other threads of this process hold its connection; run again") from error
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
    if isinstance(error, sqlite3.DataError | sqlite3.OperationalError):
        return StorageError(
            f"storage {where}: {quoted(str(error), 200)}: its tables hold what tuner did not write; `tuner verify` "
            "names it, a backup brings it back"
        )
    return None


def _postgresql_fault(where: str, error: DBAPIError, answered_before: bool) -> TunerError | None:
    """The fault by its error code, or by its text where a server refuses a connection without a code."""
    code = getattr(error.orig, "sqlstate", None) or ""
    said = f"storage {where}: {_first_lines(error)}"
    if not code and "connection failed" in str(error.orig):
        refused = _refused_connection(said, str(error.orig))
        if refused is not None:
            return refused
        if not answered_before:
            kind = NoServer if _NO_ANSWER.search(str(error.orig)) else StorageError
            return kind(f"{said}: check the address (host, port and TLS), and that the server runs")
    for beginning, make, advice in _BY_CODE:
        if code.startswith(beginning):
            return make(f"{said}: {advice}")
    no_answer = isinstance(error, OperationalError | InterfaceError)
    return Unreachable(f"{said}: {_WELL}") if no_answer else None


def _first_lines(error: DBAPIError) -> str:
    """The message of the driver on one line of some hundred characters, without the SQL."""
    return shortened(" ".join(shown_lines(str(error.orig).expandtabs(1)).split()), 400)


def _refused_connection(said: str, told: str) -> TunerError | None:
    """Why a server, or the network, refused a connection, which is known from the text alone."""
    for words, make, advice in _REFUSALS:
        if words.search(told):
            return make(f"{said}: {advice}")
    return None
