"""Connections to a PostgreSQL server: how many, through what, and whose turn it is."""

import importlib
import logging
import threading
import time
from collections import deque
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from tuner.errors import StorageError, Unreachable

PATIENCE = 60.0  # seconds to wait for the write of another process
POOLED = "tuner.pooled"  # a parameter of a relayed connection: whether a pooler stands before the server
BESIDE_SECONDS = 1.0  # to wait for a turn, until a second connection is opened
REST_SECONDS = 30.0  # a connection to a server that rested so long may have been cut meanwhile
LANES = 2  # connections that relayed transactions may have at once
# What libpq is asked for on the way to a relay: no encryption, nothing that proves who is who.
_PLAIN = (
    dict.fromkeys(("sslmode", "sslcertmode", "gssencmode", "channel_binding"), "disable")
    | dict.fromkeys(("hostaddr", "requirepeer", "require_auth", "sslrootcert", "options"), "")
    | dict.fromkeys(("min_protocol_version", "max_protocol_version"), "3.0")
    | {"sslnegotiation": "postgres", "target_session_attrs": "any"}
)
_POOLED = "pooled"  # in the `info` of a connection


def postgresql_engine(url: URL, relay: str = "") -> Engine:
    """An engine of few connections. relay: the folder of a relay's socket, through which the server is reached."""
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it warns of is raised too, and told in our words
    # One connection is kept for a process, because a server has a hundred; one more is opened, and closed again, where
    # a thread must not wait for another one's. No prepared statements: behind what pools transactions (pgbouncer, a
    # relay) they would be those of another client. A relay looks itself whether its connection lives.
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 4, "pool_timeout": PATIENCE}
    options["connect_args"] = {"connect_timeout": 5, "prepare_threshold": None}
    try:
        if relay:
            options["connect_args"] |= _through(relay) | {"connect_timeout": int(PATIENCE)}
            url = URL.create(url.drivername, username=url.username or "tuner", database=url.database)
        engine = create_engine(url, **options)
    except ImportError as error:
        raise StorageError("PostgreSQL needs its driver: pip install 'psycopg[binary]'") from error
    event.listen(engine, "connect", _note_pooler)
    if not relay:
        _ping_after_a_rest(engine)
    return engine


def _ping_after_a_rest(engine: Engine) -> None:
    """Ask before its next use whether a connection still stands that was not used for a while.

    Asking each time costs a round trip, and the server 0.1 ms: a fifth of a heartbeat, a third of a worker's question.
    A connection that was cut within the while fails in its transaction, which `_again` then tries on a new one.
    """

    def used(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    def ask(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        now = time.monotonic()
        if now - record.info.get("used", now) <= REST_SECONDS:
            return
        driver: Any = engine.dialect.dbapi
        try:
            engine.dialect.do_ping(connection)
        except driver.Error as error:
            raise InvalidatePoolError from error  # the pool opens another

    event.listen(engine, "checkin", used)
    event.listen(engine, "checkout", ask)


def _through(relay: str) -> dict[str, str]:
    """What makes libpq take the relay's socket, whatever PGHOSTADDR, PGSSLMODE and others say of the server.

    What a version of libpq does not know yet, its environment cannot ask for, and it takes no such word.
    """
    known = {one.keyword.decode() for one in importlib.import_module("psycopg").pq.Conninfo.get_defaults()}
    return {"host": relay, "port": "5432"} | {name: value for name, value in _PLAIN.items() if name in known}


def _note_pooler(connection: Any, entry: ConnectionPoolEntry) -> None:
    """A pooler gives a client a process id of its own, and not that of the server's process behind it."""
    told = connection.pgconn.parameter_status(POOLED.encode())
    if told is not None:
        entry.info[_POOLED] = told == b"on"
        return
    ((pid,),) = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchall()
    connection.rollback()
    entry.info[_POOLED] = pid != connection.pgconn.backend_pid


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands between this process and the server."""
    return bool(connection.info.get(_POOLED))


def settle(connection: Connection) -> None:
    """At the beginning of a transaction behind a pooler: what another client set for its session is not ours.

    pg_dump empties the search path of its session, and a pooler of transactions hands that session on to us.
    """
    if is_pooled(connection):
        connection.exec_driver_sql("SET LOCAL search_path TO DEFAULT")


class Turns:
    """One transaction after the other, in the order of their coming, so that one connection is enough.

    Who has waited for BESIDE_SECONDS goes in beside the others: one of the guests, and always the host, whose threads
    may also begin a transaction within another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._inside = 0
        self._own = threading.local()

    def enter(self, *, guest: bool) -> None:
        """Wait for a turn. Raises Unreachable where a guest has none within a minute."""
        nested = not guest and self._nested(1) > 1
        end = time.monotonic() + PATIENCE
        with self._lock:
            if self._inside == 0 or nested:
                self._inside += 1
                return
            mine = threading.Event()
            self._waiting.append(mine)
        while not mine.wait(BESIDE_SECONDS):
            with self._lock:
                if mine.is_set():
                    return
                if self._inside < LANES or not guest:
                    self._waiting.remove(mine)
                    self._inside += 1
                    return
                if time.monotonic() > end:
                    self._waiting.remove(mine)
                    raise Unreachable("the transactions of other workers of this machine take longer than a minute")

    def leave(self, *, guest: bool) -> None:
        """Give the turn to who has waited the longest."""
        if not guest:
            self._nested(-1)
        with self._lock:
            if self._waiting and self._inside <= LANES:
                self._waiting.popleft().set()
            else:
                self._inside -= 1

    def _nested(self, more: int) -> int:
        self._own.depth = getattr(self._own, "depth", 0) + more
        return int(self._own.depth)
