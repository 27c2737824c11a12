"""A PostgreSQL server that is full, refuses, or is reached through pgbouncer: what is said, and what is waited for."""

import logging
import threading
import time
from contextlib import ExitStack, closing

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from storage.bouncer import bounced
from storage.postgres import Server
from support import needs
from support.patience import STILL, Patience, wait_for

from tuner.cli.given import GIVEN, note_storage, place_options
from tuner.errors import NoServer, Paused, ServerFull, StorageError, Unreachable
from tuner.security import without_password
from tuner.storage import engine
from tuner.storage.faults import translated
from tuner.storage.store import open_ledger

FULL = (
    'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  sorry, too many clients already'
)
SLOTS = "connection failed: FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute"
REFUSALS = [
    (FULL, ServerFull, "all connections of the server are in use"),
    (SLOTS, ServerFull, "all connections"),
    ('connection failed: FATAL:  too many connections for role "u"', ServerFull, "all connections"),
    ("connection failed: FATAL: no more connections allowed (max_client_conn)", ServerFull, "all connections"),
    ('connection failed: FATAL:  password authentication failed for user "u"', StorageError, "password of this role"),
    ("connection failed: fe_sendauth: no password supplied", StorageError, "PGPASSWORD"),
    ('connection failed: FATAL:  database "d" does not exist', StorageError, "createdb"),
    ('connection failed: FATAL:  role "u" does not exist', StorageError, "createuser"),
    ("connection failed: failed to resolve host 'nowhere'", StorageError, "no host of this name"),
    ('connection failed: FATAL:  no pg_hba.conf entry for host "10.0.0.1"', StorageError, "pg_hba.conf"),
    ("connection failed: FATAL:  the database system is starting up", Unreachable, "when the server is up"),
    ("connection failed: FATAL:  the database system is not yet accepting connections", Unreachable, "server is up"),
    ('connection failed: FATAL:  role "u" is not permitted to log in', StorageError, "ALTER ROLE"),
    ('connection failed: FATAL:  permission denied for database "d"', StorageError, "GRANT CONNECT"),
    ('connection failed: FATAL:  database "d" is not currently accepting connections', StorageError, "GRANT CONNECT"),
    ("connection failed: Connection refused", NoServer, "check the address"),
    ("connection failed: Connection refused\n\tIs the server running?", NoServer, r"refused Is the server running\?:"),
    ("connection failed: connection timeout expired", NoServer, "check the address"),
    ("connection failed: server does not support SSL, but SSL was required", StorageError, "check the address"),
]


@pytest.mark.parametrize(("told", "kind", "advice"), REFUSALS, ids=[told[:60] for told, _, _ in REFUSALS])
def test_a_refusal_says_what_it_is_and_what_helps(told, kind, advice):
    with pytest.raises(kind, match=advice) as raised, translated("postgresql://u:***@h/d"):
        raise OperationalError("SELECT secret", {}, psycopg.OperationalError(told))
    assert "SELECT" not in str(raised.value)
    assert type(raised.value) is kind
    assert isinstance(raised.value, Paused) == (kind in (ServerFull, Unreachable))


def test_a_password_in_the_address_is_told_of_once_and_never_repeated(capsys, monkeypatch):
    monkeypatch.setattr(GIVEN, "warned", False)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    url = "postgresql://u:se-cret@h:5432/d?sslmode=require"
    for _ in range(2):
        note_storage(url)
    told = capsys.readouterr().err
    assert told.count("PGPASSWORD, ~/.pgpass or TUNER_STORAGE") == 1
    assert "se-cret" not in told + place_options("check")
    assert place_options("check") == " --storage 'postgresql://u@h:5432/d?sslmode=require'"
    monkeypatch.setenv("TUNER_STORAGE", url)
    monkeypatch.setattr(GIVEN, "warned", False)
    note_storage(url)
    assert capsys.readouterr().err == "", "what the environment holds is not shown by ps"
    assert place_options("check") == ""
    monkeypatch.setattr(GIVEN, "storage", None)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("postgresql://u:p@h/d", "postgresql://u@h/d"),
        ("postgresql://:p@h/d", "postgresql://@h/d"),
        ("postgresql://h/d?user=u&password=p&sslmode=off", "postgresql://h/d?user=u&sslmode=off"),
        ("postgresql://h/d?password=p", "postgresql://h/d"),
        ("postgresql://u@h/d?sslkey=k&sslpassword=p", "postgresql://u@h/d?sslkey=k"),
        ("postgresql+psycopg://u:p:@w@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("runs/a@b:c.sqlite", "runs/a@b:c.sqlite"),
        ("sqlite:////tmp/a:b@c.sqlite", "sqlite:////tmp/a:b@c.sqlite"),
    ],
)
def test_an_address_without_its_password(url, plain):
    assert without_password(url) == plain


def test_the_password_of_a_clients_key_is_told_nowhere():
    url = engine.parsed_url("postgresql://u:hush@h/d?sslkey=k&sslpassword=hush")
    assert engine.Database(url).safe_url == "postgresql+psycopg://u:***@h/d?sslkey=k"


@pytest.fixture(scope="module")
def small():
    """A server for 5 clients, on which the role `reader` may read alone and `secretive` needs a password."""
    needs.require("postgresql")
    server = Server(max_connections=5, superuser_reserved_connections=1, max_wal_senders=0)
    try:
        run(server, "CREATE ROLE secretive LOGIN PASSWORD 'right'", "CREATE ROLE reader LOGIN", "CREATE DATABASE ours",
            "CREATE ROLE idle", "CREATE ROLE worker LOGIN", "ALTER DATABASE ours OWNER TO worker")  # fmt: skip
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"host all secretive 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        run(server, "SELECT pg_reload_conf()")
        yield server
    finally:
        server.close()


def run(server, *statements, database="postgres"):
    with psycopg.connect(f"{server.url.rpartition('/')[0]}/{database}", autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def address(server, user, database="ours"):
    return f"postgresql://{user}@127.0.0.1:{server.port}/{database}"


@pytest.mark.slow
def test_a_server_says_which_part_of_the_address_is_wrong(small):
    for user, database, advice in (
        ("secretive:wrong", "ours", "password of this role is wrong"),
        ("secretive", "ours", "password of this role is wrong or missing"),
        ("nobody", "ours", "no such role"),
        ("idle", "ours", "it needs LOGIN"),
        ("worker", "nothing", "no such database"),
    ):
        with pytest.raises(StorageError, match=advice) as raised:
            open_ledger(address(small, user, database))
        assert "wrong@" not in str(raised.value)


@pytest.mark.slow
def test_a_role_that_may_only_read_reads_and_is_told_that_it_cannot_write(small, study):
    with open_ledger(address(small, "worker")) as ledger:
        ledger.start_study("digits", study, "f")
    run(small, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database="ours")
    with open_ledger(address(small, "reader"), create=False) as ledger:
        assert ledger.campaigns() == ["digits"]
        with pytest.raises(Paused, match="may read, and not write") as raised:
            ledger.next_generation()
        assert "UPDATE storage" not in str(raised.value)


@pytest.mark.slow
def test_a_full_server_is_waited_for_and_then_a_pause(small, monkeypatch, caplog):
    monkeypatch.setattr(engine, "FULL_SECONDS", 1.0)
    held = [psycopg.connect(address(small, "worker")) for _ in range(4)]
    try:
        with caplog.at_level(logging.WARNING), pytest.raises(ServerFull, match="raise its max_connections"):
            open_ledger(address(small, "worker"))
        assert caplog.text.count("waiting for one, for 1 s") == 1
        monkeypatch.setattr(engine, "FULL_SECONDS", STILL)
        release = threading.Timer(1.0, held.pop().close)
        release.start()
        with open_ledger(address(small, "worker")):
            release.join()
    finally:
        for connection in held:
            connection.close()


@pytest.mark.slow
def test_a_process_keeps_one_connection_whatever_its_threads_did(small, study):
    with open_ledger(address(small, "worker")) as ledger:
        ledger.start_study("digits", study, "f")
        threads = [threading.Thread(target=ledger.campaigns) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with psycopg.connect(small.url) as watching:
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'worker'"
            wait_for(lambda: watching.execute(query).fetchone()[0] == 1)  # a closed one is seen for a moment


@pytest.mark.slow
@pytest.mark.needs("pgbouncer")
def test_pgbouncer_that_pools_transactions_serves_many_clients(small, study):
    with bounced(small) as address:
        url = f"{address.format(user='worker')}/ours"
        first = opened_soon(url)
        others = [open_ledger(url) for _ in range(5)]
        for turn in range(12):  # a statement is prepared by the fifth time
            for ledger in (first, *others):
                assert ledger.start_study("digits", study, "f").study == study, turn
                ledger.next_generation()
        for ledger in (first, *others):
            ledger.close()


@pytest.mark.slow
@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("relayed", [False, True])
def test_what_another_client_of_pgbouncer_set_for_its_session_is_not_ours(small, study, relayed):
    """pg_dump empties the search path before its transaction begins, and pgbouncer hands that session on."""
    with bounced(small, pool_size=1) as address:
        url = f"{address.format(user='worker')}/ours"
        with opened_soon(url) as ledger, ExitStack() as opened:
            if relayed:
                relay = opened.enter_context(closing(ledger.relay()))
                ledger = opened.enter_context(open_ledger(url, relay=str(relay.folder)))
            ledger.start_study("digits", study, "f")
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("SELECT pg_catalog.set_config('search_path', '', false)")
                assert other.execute("SHOW search_path").fetchone() == ("",)
                assert ledger.start_study("digits", study, "f").study == study
                assert ledger.campaigns() == ["digits"]
                with open_ledger(url, create=False) as late:
                    assert late.campaigns() == ["digits"]


def opened_soon(url):
    patience = Patience()
    while True:
        try:
            return open_ledger(url)
        except (StorageError, Unreachable):
            patience.left()
            time.sleep(0.1)
