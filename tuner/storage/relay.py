"""One connection to a server for all worker processes of a machine: their coordinator lends them its own.

To a worker the relay is a PostgreSQL server on a socket in a folder that only this user may enter. It takes what the
worker's driver sends, has it done over a connection of the coordinator's Ledger by libpq, and hands the answers back
as they are, with codes and all fields of errors. The connection is lent for one transaction; what a worker that dies
leaves unfinished is rolled back. So no password reaches the workers, and whatever libpq can do to reach the server
(TLS, SCRAM, a service file) works. As behind a pgbouncer that pools transactions, nothing may be left in a session:
isolation levels are those of a transaction, statements are not prepared, locks end with their transaction.
"""

import errno
import logging
import secrets
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from tuner.errors import ServerFull, TunerError
from tuner.storage.engine import Database
from tuner.storage.server import POOLED, is_pooled
from tuner.storage.wire import (
    CANCEL,
    GSS,
    TLS,
    VERSION,
    HungUp,
    Messages,
    NotTaken,
    Query,
    completed,
    failed,
    failure,
    greeting,
    message,
    older_version,
    query_of,
    ready,
    rows,
)

_log = logging.getLogger(__name__)
_NAME = ".s.PGSQL.5432"  # of the socket, as libpq looks for it
_LONGEST = 100  # characters of a socket's path, which the kernel limits to 107 (macOS: 103)
_PREFIX = "tuner-relay-"
_PARAMETERS = (
    "server_version", "server_encoding", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone",
    "integer_datetimes", "standard_conforming_strings",
)  # fmt: skip
_STATUS = {0: "I", 2: "T", 3: "E"}  # libpq's PQTRANS_IDLE, PQTRANS_INTRANS, PQTRANS_INERROR
_CLOSE_SECONDS = 2.0
_CANCEL_SECONDS = 5.0


class Lost(Exception):
    """The connection to the server ended, or holds what cannot be brought to an end."""


class Relay:
    """Lends the connection of a Ledger to other processes, one transaction at a time. Made by `opened_relay`."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.folder = folder
        self.database = database
        database.take_turns()  # in this thread: two sessions that begin at once would make two rows of them
        self._sessions: dict[int, _Session] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / "new"))
        self._listener.listen(128)
        (folder / "new").rename(folder / _NAME)  # whoever finds it may connect
        threading.Thread(target=self._accept, name="tuner relay", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            session = _Session(self, client)
            with self._lock:  # who closes joins every session that is listed, so each of them has begun
                if self._closed:
                    client.close()
                    return
                self._sessions[session.pid] = session
                session.thread.start()

    def forget(self, session: "_Session") -> None:
        with self._lock:
            self._sessions.pop(session.pid, None)

    def cancel(self, pid: int, secret: int) -> None:
        """Cancel the statement of the client that was given this pid and secret."""
        with self._lock:
            session = self._sessions.get(pid)
        if session is not None and session.secret == secret:
            session.cancel()

    def close(self) -> None:
        """Hang up. What clients left unfinished is rolled back."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._closed = True
            sessions = list(self._sessions.values())
        for session in sessions:
            session.hang_up()
        for session in sessions:
            session.thread.join(_CLOSE_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)


def opened_relay(database: Database) -> Relay | None:
    """A relay to the server of `database`; None for a file, and where there can be no socket: connect directly."""
    if database.file is not None or not hasattr(socket, "AF_UNIX"):
        return None
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 - mkdtemp gives it to this user alone
        if len(parent) + len(_PREFIX) + len(_NAME) + 10 > _LONGEST:
            continue
        with suppress(OSError):
            _sweep(Path(parent))
            return Relay(database, Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)))
    _log.warning("no folder for temporary files takes a socket: each worker opens a connection of its own")
    return None


def _sweep(parent: Path) -> None:
    """Remove the folders of relays whose process was killed: nobody listens there any more."""
    for name in parent.glob(f"{_PREFIX}*/{_NAME}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.setblocking(False)
            if trial.connect_ex(str(name)) == errno.ECONNREFUSED:
                shutil.rmtree(name.parent, ignore_errors=True)


class _Session:
    """One client, in a thread of its own."""

    _pids = iter(range(1, 2**31))

    def __init__(self, relay: Relay, client: socket.socket) -> None:
        self.relay = relay
        self.client = client
        self.pid, self.secret = next(self._pids), secrets.randbits(32)
        self.thread = threading.Thread(target=self._serve, name="tuner relay session", daemon=True)
        self._held = ExitStack()  # of the connection, while it is lent
        self._lent: Connection | None = None
        self._failed = False  # since the last Sync
        self._asking: Any = None  # the driver's connection, while a statement runs

    def hang_up(self) -> None:
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)

    def cancel(self) -> None:
        asking = self._asking
        if asking is not None:
            asking.cancel_safe(timeout=_CANCEL_SECONDS)

    def _serve(self) -> None:
        messages = Messages(self.client)
        try:
            if self._let_in(messages):
                for queries, synced in _batches(messages):
                    self.client.sendall(self._answer(queries, synced))
        except (HungUp, OSError):
            pass
        except NotTaken as error:
            with suppress(OSError):
                self.client.sendall(failure("FATAL", "0A000", f"tuner's relay takes no {error}"))
        except Lost as error:
            with suppress(OSError):
                self.client.sendall(failure("FATAL", "08006", str(error)))
        finally:
            self._give_back()
            self.relay.forget(self)
            messages.close()
            self.client.close()

    def _let_in(self, messages: Messages) -> bool:
        """Greet the client. The folder has let it in: nothing is asked. False where it only wants to cancel."""
        number, rest = messages.start()
        while number in (TLS, GSS):
            self.client.sendall(b"N")
            number, rest = messages.start()
        if number == CANCEL:
            self.relay.cancel(int.from_bytes(rest[:4]), int.from_bytes(rest[4:8]))
            return False
        if number >> 16 != VERSION >> 16:
            raise HungUp
        self.client.sendall((older_version() if number > VERSION else b"") + self._greeting())
        return True

    def _greeting(self) -> bytes:
        """With what the server said of itself to us."""
        try:
            connection = self._borrowed()
            told = {name: _libpq(connection).parameter_status(name.encode()) for name in _PARAMETERS}
            pooled = is_pooled(connection)
        except TunerError as error:
            self.client.sendall(failure("FATAL", _code_of(error), str(error)))
            raise HungUp from error
        finally:
            self._give_back()
        parameters = {name: value.decode() for name, value in told.items() if value is not None}
        return greeting(parameters | {POOLED: "on" if pooled else "off"}, self.pid, self.secret)

    def _answer(self, queries: list[Query], synced: bool) -> bytes:
        """The answers to queries up to a Flush or a Sync. After an error nothing more is done up to the Sync.

        Raises Lost where their transaction is lost.
        """
        said: list[bytes] = []
        if queries and not self._failed:
            said = self._done(queries)
            self._failed = any(one.startswith(b"E") for one in said)
        if synced:
            self._failed = False
            said.append(ready(self._settled()))
        return b"".join(said)

    def _done(self, queries: list[Query]) -> list[bytes]:
        """The answer to each query."""
        try:
            connection = self._borrowed()
        except TunerError as error:
            return [failure("ERROR", _code_of(error), str(error))]
        driver: Any = connection.dialect.dbapi
        self._asking = asking = connection.connection.driver_connection
        try:
            return list(_asked(asking, queries, driver.pq, self.client))
        except driver.Error as error:
            connection.invalidate()
            raise Lost(f"the connection to the server is lost: {error}") from error
        except (HungUp, Lost):
            connection.invalidate()
            raise
        finally:
            self._asking = None

    def _settled(self) -> str:
        """The status of the transaction; after its end the connection is given back."""
        if self._lent is None:
            return "I"
        status = _STATUS.get(_libpq(self._lent).transaction_status)
        if status is None:
            self._lent.invalidate()
            raise Lost("the connection to the server is lost")
        if status == "I":
            self._give_back()
        return status

    def _borrowed(self) -> Connection:
        if self._lent is None:
            self._lent = self._held.enter_context(self.relay.database.lent())
        return self._lent

    def _give_back(self) -> None:
        self._lent = None
        with suppress(TunerError):  # of the rollback, on a connection that is lost
            self._held.close()


def _code_of(error: TunerError) -> str:
    """The SQLSTATE by which the worker finds the same error again."""
    return "53300" if isinstance(error, ServerFull) else "08006"


def _libpq(connection: Connection) -> Any:
    """The connection as libpq has it."""
    driver_connection: Any = connection.connection.driver_connection
    return driver_connection.pgconn


def _batches(messages: Messages) -> Iterator[tuple[list[Query], bool]]:
    """What is asked until answers are awaited, and whether that is a Sync: else it is a Flush."""
    queries: list[Query] = []
    parsed = b""
    while True:
        kind, body = messages.message()
        if kind == b"Q":
            yield [Query(body.rstrip(b"\0"), simple=True)], True
        elif kind == b"P":
            parsed = body
        elif kind == b"B":
            queries.append(query_of(parsed, body))
        elif kind in (b"S", b"H"):
            yield queries, kind == b"S"
            queries = []
        elif kind == b"X":
            return
        elif kind not in (b"D", b"E") or body[:2] not in (b"P\0", b"\0\0"):  # what goes with each bound statement
            raise NotTaken(f"messages {kind.decode('ascii', 'replace')}")


def _asked(connection: Any, queries: list[Query], pq: Any, client: socket.socket) -> Iterator[bytes]:
    """The answers of the server to queries, without the last message. Raises the driver's error where it is lost."""
    server = connection.pgconn
    if len(queries) == 1:
        (query,) = queries
        _send(server, query)
        _flush(server)
        while (result := _result(connection, client)) is not None:
            yield _said(result, query, pq)
    else:
        with _pipeline(server):
            for query in queries:
                _send(server, query)
            server.pipeline_sync()
            _flush(server)
            for query in queries:
                while (result := _result(connection, client)) is not None:
                    yield _said(result, query, pq)
            _result(connection, client)  # of the Sync


@contextmanager
def _pipeline(server: Any) -> Iterator[None]:
    server.enter_pipeline_mode()
    yield
    server.exit_pipeline_mode()


def _send(server: Any, query: Query) -> None:
    if query.simple:
        server.send_query(query.sql)
    else:
        server.send_query_params(query.sql, query.values, query.types, query.formats, query.result_format)


def _flush(server: Any) -> None:
    """Send all, and take in what is answered meanwhile: neither side may wait for the other."""
    while server.flush():
        readable, _, _ = select.select([server.socket], [server.socket], [])
        if readable:
            server.consume_input()


def _result(connection: Any, client: socket.socket) -> Any:
    """The next result; None after the last one of a query. Raises HungUp where the client is gone before it comes."""
    server = connection.pgconn
    watched = [server.socket, client]
    while server.is_busy():
        readable, _, _ = select.select(watched, [], [])
        if client in readable:
            if _has_hung_up(client):
                connection.cancel_safe(timeout=_CANCEL_SECONDS)
                raise HungUp
            watched.remove(client)
        if server.socket in readable:
            server.consume_input()
    return server.get_result()


def _has_hung_up(client: socket.socket) -> bool:
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _said(result: Any, query: Query, pq: Any) -> bytes:
    """A result as messages."""
    kinds = pq.ExecStatus
    before = b"" if query.simple else message(b"1") + message(b"2")
    if result.status == kinds.TUPLES_OK:
        return before + rows(result) + completed(result.command_status or b"")
    if result.status in (kinds.COMMAND_OK, kinds.EMPTY_QUERY):
        described = b"" if query.simple else message(b"n")
        is_empty = result.status == kinds.EMPTY_QUERY
        return before + described + (message(b"I") if is_empty else completed(result.command_status or b""))
    if result.status == kinds.PIPELINE_ABORTED:
        return b""
    if result.status == kinds.FATAL_ERROR:
        told = {chr(field): result.error_field(field) for field in pq.DiagnosticField}
        return failed({name: value for name, value in told.items() if value is not None})
    raise Lost(f"tuner's relay passes on no {kinds(result.status).name}")
