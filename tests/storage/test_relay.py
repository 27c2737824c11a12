"""The relay: one connection for many clients, the answers of the server itself, nothing left of a client that dies."""

import math
import os
import socket
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from storage.conftest import empty_database
from support.patience import STILL, wait_for

from tuner.errors import Unreachable
from tuner.records import Measurement, State, TrialUpdate
from tuner.storage import server as servers
from tuner.storage.relay import opened_relay
from tuner.storage.server import Turns
from tuner.storage.store import open_ledger


@pytest.fixture
def host(server):
    """The Ledger whose connection is lent."""
    with open_ledger(empty_database(server.url)) as ledger:
        yield ledger


@pytest.fixture
def relay(host):
    with closing(host.relay()) as opened:
        yield opened


@pytest.fixture
def through(host, relay):
    """Opens a Ledger that goes through the relay."""
    opened = []

    def ledger():
        opened.append(open_ledger(host.url, create=False, relay=str(relay.folder)))
        return opened[-1]

    yield ledger
    for one in opened:
        one.close()


@pytest.fixture
def planned(host, study, make_trial):
    row = host.start_study("digits", study, "code and data")
    host.plan_trials(row.study_id, [make_trial(number) for number in range(12)])
    return row.study_id


@contextmanager
def raw(relay, **options):
    address = f"host={relay.folder} port=5432 user=x dbname=x sslmode=disable"
    with psycopg.connect(address, **{"prepare_threshold": None, **options}) as connection:
        yield connection


def count(watching):
    """Connections that others have to this server."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return watching.execute(query).fetchone()[0]


def test_many_clients_share_one_connection_and_each_gets_what_is_its_own(host, through, planned, server):
    taken, most, done = [], [0], threading.Event()

    def work(ledger, worker):
        while held := ledger.claim(planned, worker=worker, lease_seconds=60.0):
            (claim,) = held
            for step in (1, 2, 3):
                loss = Measurement(step, "validation/loss", claim.trial.number + step / 7)
                state = State.COMPLETE if step == 3 else State.RUNNING
                ledger.record([TrialUpdate(claim.trial_id, claim.fence, step, [loss], state=state)])
            taken.append(claim.trial.number)

    def watch():
        with psycopg.connect(server.url, autocommit=True) as watching:
            while not done.is_set():
                most[0] = max(most[0], count(watching))

    threads = [threading.Thread(target=work, args=(through(), f"host:{n}:a")) for n in range(4)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert sorted(taken) == list(range(12))
    curves = host.measurements(planned)
    assert curves.values == [number + step / 7 for number in range(12) for step in (1, 2, 3)]
    assert 1 <= most[0] <= 2


def test_answers_are_those_of_the_server_itself(relay, server):
    """Values of each kind, many rows, no rows, no columns, several statements at once, and errors with all they say."""
    asked = [
        ("SELECT %s::float8, %s::text, %s::bytea, %s::int8, %s::bool", (0.1 + 0.2, "é\n", b"\0\xff", 2**62, None)),
        ("SELECT %s::float8", (math.inf,)),
        ("SELECT g, repeat('x', g %% 50) FROM generate_series(1, %s) g", (20_000,)),
        ("SELECT 1 WHERE false", None),
        ("SELECT", None),
        ("SELECT 1; SELECT 2, 'b'", None),
        ("", None),
        ("CREATE TEMPORARY TABLE one (n int PRIMARY KEY) ON COMMIT DROP", None),
        ("SELECT 1 / %s", (0,)),
        ("SELECT 'unfinished", None),
        ("SELECT * FROM nothing_there", None),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '57P01', DETAIL = 'd', HINT = 'h'; END $$", None),
    ]

    def answers(connection):
        for sql, values in asked:
            for binary in (False, True):
                try:
                    cursor = connection.execute(sql, values, binary=binary)
                    columns = [(one.name, one.type_code) for one in cursor.description or ()]
                    rows = cursor.fetchall() if cursor.description else None
                    yield columns, rows, cursor.rowcount, cursor.statusmessage, cursor.nextset()
                except psycopg.Error as error:
                    told = error.diag
                    yield type(error), error.sqlstate, str(error), told.message_hint, told.statement_position
                yield connection.info.transaction_status
                connection.rollback()

    with raw(relay) as relayed, psycopg.connect(server.url) as direct:
        assert relayed.info.server_version == direct.info.server_version
        for given, expected in zip(answers(relayed), answers(direct), strict=True):
            assert given == expected


def test_many_rows_at_once_stop_at_the_first_that_is_wrong(relay):
    with raw(relay) as connection:
        connection.execute("CREATE TEMPORARY TABLE one (n int PRIMARY KEY, x float8) ON COMMIT DROP")
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO one VALUES (%s, %s)", [(n, n / 7) for n in range(5_000)])
        assert cursor.rowcount == 5_000
        assert connection.execute("SELECT sum(x) FROM one WHERE n < 3").fetchone() == (3 / 7,)
        with pytest.raises(psycopg.errors.UniqueViolation) as raised:
            cursor.executemany("INSERT INTO one VALUES (%s, %s)", [(n, 0.0) for n in (6_000, 1, 7_000)])
        assert raised.value.diag.constraint_name == "one_pkey"
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_after_an_error_nothing_is_done_until_the_end_of_a_pipeline(relay, server):
    """Also of what comes after answers were awaited in the midst of it."""

    def told(connection):
        with suppress(psycopg.Error), connection.pipeline():
            for sql in ("SELECT 1", "SELECT * FROM nothing_there", "SELECT 2", "SELECT 3"):
                try:
                    yield connection.execute(sql).fetchone()
                except psycopg.Error as error:
                    yield type(error)
        connection.rollback()
        yield connection.execute("SELECT 4").fetchone()

    with raw(relay) as relayed, psycopg.connect(server.url, prepare_threshold=None) as direct:
        found = list(told(relayed))
        assert found == list(told(direct))
    assert found[:3] == [(1,), psycopg.errors.UndefinedTable, psycopg.errors.PipelineAborted]


def test_what_a_dead_client_has_locked_is_free_and_what_it_did_undone(relay, host, planned):
    with raw(relay) as connection:
        connection.execute("UPDATE trial SET attempt = 7")
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as inside:
            inside.shutdown(socket.SHUT_RDWR)  # as the kernel does for a process that is killed
        assert len(host.claim(planned, worker="host:1:a", lease_seconds=60.0)) == 1
        assert [record.attempt for record in host.trials(planned)] == [1, *[0] * 11]
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_statement_whose_client_is_gone_does_not_wait_for_its_lock(relay, server, planned):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(server.url, autocommit=True) as watching, psycopg.connect(server.url) as other:
        other.execute("UPDATE trial SET attempt = 3")
        with raw(relay) as connection:
            asking = threading.Thread(target=fails, args=(connection, "UPDATE trial SET attempt = 7"))
            asking.start()
            wait_for(lambda: watching.execute(waiting).fetchone()[0] == 1)
            with socket.socket(fileno=os.dup(connection.pgconn.socket)) as inside:
                inside.shutdown(socket.SHUT_RDWR)
            asking.join()
            wait_for(lambda: watching.execute(waiting).fetchone()[0] == 0)


def fails(connection, sql):
    with pytest.raises(psycopg.Error):
        connection.execute(sql)


def test_a_client_cancels_its_own_statement_alone(relay):
    with raw(relay) as first, raw(relay) as second:
        first.execute("SELECT 1")
        second.execute("SELECT 1")
        timer = threading.Timer(0.5, first.cancel_safe)  # `cancel` lets no other thread of this process work
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            first.execute("SELECT pg_sleep(600)")
        timer.join()
        assert second.execute("SELECT 2").fetchone() == (2,)


def test_what_would_stay_in_a_session_is_refused_in_words(relay):
    for sql, options in (("SELECT %s::int", {"prepare_threshold": 0}), ("COPY trial TO STDOUT", {})):
        with pytest.raises(psycopg.Error, match="tuner's relay"), raw(relay, **options) as connection:
            connection.execute(sql, (1,) if "%s" in sql else None)
    with raw(relay) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.slow
def test_a_server_that_crashes_under_a_relay_loses_and_doubles_nothing(server, host, through, planned):
    worker = through()
    (claimed,) = worker.claim(planned, worker="host:1:a", lease_seconds=60.0)
    done = threading.Event()

    def crash():
        try:
            for _ in range(3):
                server.stop("immediate")
                server.start()
        finally:
            done.set()

    crashing = threading.Thread(target=crash)
    crashing.start()
    step = 0
    while not done.is_set() or step < 20:
        step += 1
        update = TrialUpdate(claimed.trial_id, claimed.fence, step, [Measurement(step, "validation/loss", step / 7)])
        while True:
            try:
                worker.record([update])
                break
            except Unreachable:
                continue
    crashing.join()
    assert host.measurements(planned).values == [number / 7 for number in range(1, step + 1)]


@pytest.fixture
def short_folder():
    """A temporary folder whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_the_folder_is_closed_to_others_and_goes_with_the_relay(host, monkeypatch, short_folder):
    tmp_path = short_folder
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    relay = host.relay()
    assert relay.folder.stat().st_mode & 0o777 == 0o700
    killed = tmp_path / "tuner-relay-killed"
    killed.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(killed / ".s.PGSQL.5432"))
    (tmp_path / "tuner-relay-begins").mkdir()
    second = host.relay()
    assert {path.name for path in tmp_path.iterdir()} == {"tuner-relay-begins", relay.folder.name, second.folder.name}
    second.close()
    relay.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tuner-relay-begins"]


def test_a_relay_may_be_closed_while_a_client_comes(host, monkeypatch):
    relay = host.relay()
    start, closed, faults = threading.Thread.start, threading.Event(), []

    def close():
        try:
            relay.close()
        except RuntimeError as error:
            faults.append(error)
        closed.set()

    def starts(thread):
        if thread.name == "tuner relay session":
            start(threading.Thread(target=close))
            closed.wait(0.2)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(relay.folder / ".s.PGSQL.5432"))
        assert closed.wait(STILL)
    assert faults == []
    assert not relay.folder.exists()


def test_a_long_temporary_folder_takes_no_socket_and_a_file_needs_none(host, monkeypatch, tmp_path):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with closing(host.relay()) as relay:
        assert not relay.folder.is_relative_to(tmp_path)
    with open_ledger(f"sqlite:///{tmp_path}/one.sqlite") as ledger:
        assert opened_relay(ledger._database) is None


def test_what_the_environment_asks_of_the_server_is_not_asked_of_the_relay(host, relay, monkeypatch, tmp_path):
    told = {
        "PGREQUIREAUTH": "scram-sha-256", "PGSSLNEGOTIATION": "direct", "PGSSLCERTMODE": "require",
        "PGSSLROOTCERT": "system", "PGSSLMODE": "verify-full", "PGMINPROTOCOLVERSION": "3.2",
        "PGCHANNELBINDING": "require", "PGHOSTADDR": "192.0.2.1", "PGOPTIONS": "-c search_path=nowhere",
        "PGREQUIREPEER": "nobody", "PGTARGETSESSIONATTRS": "standby", "PGHOST": "a,b", "PGPORT": "1",
    }  # fmt: skip
    service = tmp_path / "services"
    service.write_text("[theirs]\nrequire_auth=scram-sha-256\nsslrootcert=system\nhostaddr=192.0.2.1\n")
    for names in (told, {"PGSERVICE": "theirs", "PGSERVICEFILE": str(service)}):
        with monkeypatch.context() as changed:
            for name, value in names.items():
                changed.setenv(name, value)
            with open_ledger(host.url, create=False, relay=str(relay.folder)) as through:
                assert through.identity() == host.identity()


def test_turns_come_in_order_and_who_waited_long_goes_beside(monkeypatch):
    monkeypatch.setattr(servers, "BESIDE_SECONDS", STILL)
    turns, order, threads = Turns(), [], []
    turns.enter(guest=True)

    def take(number):
        turns.enter(guest=True)
        order.append(number)
        turns.leave(guest=True)

    for number in range(5):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
        wait_for(lambda wanted=number + 1: len(turns._waiting) == wanted)
    turns.leave(guest=True)
    for thread in threads:
        thread.join()
    assert order == list(range(5))
    assert turns._inside == 0
    monkeypatch.setattr(servers, "BESIDE_SECONDS", 0.01)
    monkeypatch.setattr(servers, "PATIENCE", 0.1)
    turns.enter(guest=True)
    turns.enter(guest=True)  # the second, beside the first
    with pytest.raises(Unreachable, match="longer than a minute"):
        turns.enter(guest=True)
    turns.enter(guest=False)  # the host always comes in
    turns.enter(guest=False)  # within its own transaction at once
    assert turns._inside == 4
    for guest in (False, False, True, True):
        turns.leave(guest=guest)
    assert turns._inside == 0
