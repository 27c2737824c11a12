"""Opening a database by URL, and guarding its use.

SQLite: write-ahead log, every commit on disk (synchronous=FULL), a minute's patience for locks, and BEGIN
IMMEDIATE, so that a transaction that will write is alone from its first statement on.
"""

import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from tuner.errors import Paused, RecordsGone, ServerFull, StorageError, TunerError, Unreachable
from tuner.failpoints import failpoint
from tuner.storage.faults import translated
from tuner.storage.opened_file import OpenedFile
from tuner.storage.server import PATIENCE, Turns, is_pooled, postgresql_engine, settle

T = TypeVar("T")
_log = logging.getLogger(__name__)
DEFAULT_FILE = Path("runs/tuner.sqlite")
FULL_SECONDS = 60.0  # to wait for a connection of a server that has none
RETRY_SECONDS = 2.0  # a hiccup of the database may last so long before its caller hears of it
_PRAGMAS = (
    f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}",
    "PRAGMA page_size = 1024",  # of a new file: a commit writes the whole page in which the curve of each trial ends
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 8000",  # pages: the log is up to 8 MB, and copied back as seldom as is worth it
    "PRAGMA foreign_keys = ON",
)


def default_url() -> str:
    """The default URL of the Ledger: TUNER_STORAGE, or one SQLite file under ./runs."""
    return os.environ.get("TUNER_STORAGE") or f"sqlite:///{DEFAULT_FILE}"


def parsed_url(url: str) -> URL:
    """`url`, or the path of an SQLite file, as an absolute and complete URL. Raises StorageError."""
    if "://" not in url:
        return URL.create("sqlite", database=_absolute(url))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        scheme = url.partition("://")[0]
        raise StorageError(
            f"a storage URL that starts with {scheme}:// cannot be read; write sqlite:///runs/tuner.sqlite or "
            "postgresql://user:password@host/database (special characters of a password as %XX)"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return URL.create("sqlite", database=_absolute(parsed.database or ""))
    if backend in ("postgresql", "postgres"):
        return _with_password_in_its_place(parsed.set(drivername="postgresql+psycopg"))
    raise StorageError(f"storage is sqlite or postgresql, got {backend!r}; write sqlite:///runs/tuner.sqlite")


def complete_url(url: str) -> str:
    """`url` as it is to be given to another process: absolute, and with its password."""
    return parsed_url(url).render_as_string(hide_password=False)


def _with_password_in_its_place(url: URL) -> URL:
    """?password= is taken by the driver too, and would be shown where the password before the @ is hidden."""
    given = url.query.get("password")
    if not isinstance(given, str):
        return url
    user = url.username or url.query.get("user", "")
    return url.difference_update_query(["password", "user"]).set(username=str(user), password=given)


def _absolute(path: str) -> str:
    if path in ("", ":memory:") or path.startswith("file:") or "\0" in path:
        raise StorageError(
            f"the Ledger is a file that several processes open, got {path or 'no path'!r}; "
            "write sqlite:///runs/tuner.sqlite"
        )
    return str(Path(path).expanduser().absolute())


class Database:
    """An engine for one process; its transactions speak our errors.

    relay: the folder of the relay through which a server is reached; see `relay.py`.

    An SQLite file must exist. It is looked at in every transaction: raises RecordsGone where it is another one by now.
    """

    def __init__(self, url: URL, relay: str = "") -> None:
        self.url = url  # where it is, with the password; never for a log
        self.safe_url = url.difference_update_query(["sslpassword"]).render_as_string(hide_password=True)
        self._process = os.getpid()
        self._answered = False
        self._turns: Turns | None = None  # once a relay lends the connection out
        self._opened: OpenedFile | None = None
        if url.get_backend_name() == "sqlite":
            with translated(self.safe_url):
                self._opened = OpenedFile(Path(url.database or ""))
            self._engine = _sqlite_engine(url, self._opened)
        else:
            self._engine = postgresql_engine(url, relay)
        isolation = {"isolation_level": "REPEATABLE READ"} if self.file is None else {}
        self._reader = self._engine.execution_options(**isolation)
        alone = {"isolation_level": "AUTOCOMMIT"} if self.file is None else {}  # each statement of SQLite is, anyway
        self._glancer = self._engine.execution_options(**alone)

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return None if self._opened is None else self._opened.path

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that writes: all of it is durable afterwards, in the file there, or nothing happened."""
        self._refuse_fork()
        with self._told():
            with self._turn(), self._connected(self._engine) as connection, connection.begin():
                self._begin(connection, "BEGIN IMMEDIATE")
                self._look()
                failpoint("tx-begun")
                yield connection
                failpoint("tx-written")
            self._answered = True
            failpoint("tx-committed")
            if self._opened is not None:
                self._opened.look_at_path()  # a look costs as much as a row: the log is looked at by the next one

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one transaction; again after a deadlock or a lost answer, for a short while.

        It may have been committed although its answer was lost, so `work` must allow being done twice.
        Raises Unreachable when the database stays away.
        """
        return _again(self.writing, work)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do `work`, which only reads, in one transaction; again when the answer is lost, for a short while."""
        return _again(self.reading, work)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read transaction: a consistent snapshot that blocks no writer."""
        self._refuse_fork()
        with self._told(), self._turn(), self._connected(self._reader) as connection, connection.begin():
            self._begin(connection, "BEGIN")
            self._look()
            yield connection

    def glance(self, work: Callable[[Connection], T]) -> T:
        """Do `work`, one statement that reads, with no transaction around it: one round trip to a server.

        Again when the answer is lost, for a short while.
        """
        return _again(self._glancing, work)

    @contextmanager
    def _glancing(self) -> Iterator[Connection]:
        self._refuse_fork()
        with self._told(), self._turn(), self._connected(self._glancer) as connection:
            pooled = is_pooled(connection)
            if not pooled:
                self._look()
                yield connection
        if pooled:  # its session may be that of another client, and is settled within a transaction
            with self.reading() as connection:
                yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Faults in our words. Of a file that is not at its path any more the records are saved first."""
        try:
            with translated(self.safe_url, answered_before=self._answered):
                yield
        except (Paused, StorageError) as error:
            if self._opened is None or (self._opened.is_there() and not isinstance(error, RecordsGone)):
                raise
            raise self._opened.gone(self._alone) from None

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection for the transaction of another process; what it leaves unfinished is rolled back.

        Raises what `writing` raises of the server.
        """
        turns = self.take_turns()
        with self._told():
            turns.enter(guest=True)
            try:
                with self._connected(self._engine) as connection:
                    yield connection
            finally:
                turns.leave(guest=True)

    def take_turns(self) -> Turns:
        """Let the transactions of all threads take turns from now on; called before the first other process comes."""
        self._turns = self._turns or Turns()
        return self._turns

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        """A connection; a server that has none is waited for, also by what is not tried again."""
        waiting = _Waiting()
        while True:
            try:
                with translated(self.safe_url, answered_before=self._answered):
                    connection = engine.connect()
                break
            except ServerFull as error:
                waiting.after(error)
        with connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        turns = self._turns
        if turns is None:
            yield
            return
        turns.enter(guest=False)
        try:
            yield
        finally:
            turns.leave(guest=False)

    def _look(self) -> None:
        """Raise RecordsGone where the SQLite file is not the opened one any more."""
        if self._opened is not None:
            self._opened.watch_log()
            self._opened.look()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out, as far as that can be had."""
        with ExitStack() as held:
            with suppress(DBAPIError, TunerError, sqlite3.Error):
                self._begin(held.enter_context(self._engine.connect()), "BEGIN IMMEDIATE")
            yield

    def _begin(self, connection: Connection, statement: str) -> None:
        """Begin a transaction in SQLite; a server's driver begins it itself, with the first statement."""
        if connection.dialect.name != "sqlite":
            settle(connection)
        else:
            driver_connection: Any = connection.connection.driver_connection  # exec_driver_sql takes five times as long
            driver_connection.execute(statement).close()

    def close(self) -> None:
        if os.getpid() == self._process:
            self._engine.dispose()
            if self._opened is not None:
                self._opened.close()

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise StorageError(
                f"this Ledger was opened in process {self._process} and is used in process {os.getpid()}: a database "
                "connection does not survive a fork; call open_ledger again in the new process (or start it by spawn)"
            )


def _again(transaction: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], T]) -> T:
    """What `work` makes of a transaction, tried for a short while."""
    waiting = _Waiting()
    while True:
        try:
            with transaction() as connection:
                return work(connection)
        except Unreachable as error:
            waiting.after(error)


class _Waiting:
    """Growing pauses between tries: for a moment, and longer for a server that has no free connection."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._failed: float | None = None  # since when; what came before was work, and waiting for a turn
        self._pause = 0.02
        self._told = False

    def after(self, error: Unreachable) -> None:
        """Wait for the next try; raises the error where there is none left."""
        is_full = isinstance(error, ServerFull)
        self._failed = self._failed or time.monotonic()
        end = self._began + FULL_SECONDS if is_full else self._failed + RETRY_SECONDS
        if time.monotonic() >= end:
            raise error
        if is_full and not self._told:
            self._told = True
            _log.warning("the database server has no free connection: waiting for one, for %g s", FULL_SECONDS)
        time.sleep(self._pause * random.SystemRandom().uniform(0.5, 1.5))  # the other generator is that of users' code
        self._pause = min(2 * self._pause, 0.5 if not self._told else 2.0)


def _sqlite_engine(url: URL, opened: OpenedFile) -> Engine:
    engine = create_engine(url, creator=lambda: opened.connected(PATIENCE))
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    connection.text_factory = _decoded
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _decoded(data: bytes) -> str:
    """Text of a damaged file may be no UTF-8: its row is unreadable then, and not all that are read with it."""
    return data.decode("utf-8", "surrogateescape")
