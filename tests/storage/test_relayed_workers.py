"""Worker processes on PostgreSQL: one connection for all, and the bits of one process, whatever happens meanwhile."""

import threading
from contextlib import contextmanager

import psutil
import psycopg
import pytest
from storage.conftest import empty_database
from storage.postgres import Server
from support import needs
from support.bench import Bench
from support.patience import wait_for

from tuner.errors import Paused
from tuner.storage.store import open_ledger

pytestmark = pytest.mark.slow
OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
    "AND datname = current_database()"
)


def curves(url):
    """All trials and all that was measured, to the bit."""
    with open_ledger(url, create=False) as ledger:
        row = ledger.study("tiny", "round-1")
        found = ledger.measurements(row.study_id)
        columns = zip(found.trial_numbers, found.metrics, found.steps, found.values, strict=True)
        ends = [(one.number, one.state, one.step) for one in ledger.trials(row.study_id)]
        return ends, [(*which, value.hex()) for *which, value in columns]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds in an SQLite file."""
    bench = Bench(tmp_path_factory.mktemp("alone"), trials=8, steps=200)
    bench.run(0)
    return curves(bench.url)


@pytest.fixture
def bench(tmp_path, server):
    made = Bench(tmp_path, trials=8, steps=200)
    made.url = empty_database(server.url)
    return made


@contextmanager
def meanwhile(work):
    """Have a thread repeat `work` until the block is left; what it raises is raised at the end."""
    over, raised = threading.Event(), []

    def repeat():
        try:
            while not over.is_set():
                work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if raised:
        raise raised[0]


def workers():
    """The processes that train: children of the fork server."""
    own = psutil.Process()
    return [one for child in own.children() for one in child.children()]


def test_four_workers_and_their_coordinator_have_one_connection(bench, server, alone):
    seen = []
    with psycopg.connect(server.url, autocommit=True) as watching:
        with meanwhile(lambda: seen.append(watching.execute(OTHERS).fetchone()[0])):
            bench.run(4)
        wait_for(lambda: watching.execute(OTHERS).fetchone()[0] == 0)
    assert curves(bench.url) == alone
    assert max(seen) <= 2, "a second one for a moment only"
    assert seen.count(2) < len(seen) / 2


def test_killed_workers_leave_no_lock_and_change_no_bit(bench, server, alone):
    killed = []

    def kill():
        with psycopg.connect(server.url, autocommit=True) as watching:
            wait_for(lambda: over(watching) or len(workers()) == 2)
            begun = "SELECT count(*) FROM trial WHERE state = 'running'"
            wait_for(lambda: over(watching) or watching.execute(begun).fetchone()[0] > 0)
            if len(killed) < 4 and (found := workers()):
                found[0].kill()
                killed.append(found[0].pid)
                wait_for(lambda: over(watching) or not found[0].is_running())

    def over(watching):
        tables = watching.execute("SELECT to_regclass('trial')").fetchone()[0]
        left = "SELECT count(*) FROM trial WHERE state NOT IN ('complete', 'failed')"
        return len(killed) >= 4 or (tables is not None and watching.execute(left).fetchone()[0] == 0)

    with meanwhile(kill):
        bench.run(2)
    assert len(killed) >= 1
    assert curves(bench.url) == alone


def test_a_server_that_is_killed_during_the_training_changes_no_bit(bench, server, alone):
    restarts = []

    def crash():
        if len(restarts) < 2:
            with psycopg.connect(server.url, autocommit=True) as watching:
                begun = "SELECT coalesce(sum(step), 0) > %s FROM trial"
                wait_for(lambda: watching.execute("SELECT to_regclass('trial')").fetchone()[0] is not None)
                wait_for(lambda: watching.execute(begun, (len(restarts) * 400,)).fetchone()[0])
            server.stop("immediate")
            server.start()
            restarts.append(server.port)

    with meanwhile(crash):
        while True:
            try:
                bench.run(2)
                break
            except Paused:  # a command says that it is to be run again
                continue
    assert len(restarts) == 2
    assert curves(bench.url) == alone


@pytest.fixture(scope="module")
def full(request):
    """A server for 4 clients, and a role of one."""
    needs.require("postgresql")
    server = Server(max_connections=5, superuser_reserved_connections=1, max_wal_senders=0)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for statement in ("CREATE ROLE single LOGIN CONNECTION LIMIT 1", "CREATE DATABASE ours OWNER single"):
                connection.execute(statement)
        yield server
    finally:
        server.close()


def test_a_role_of_one_connection_is_enough_for_a_launch_with_workers(full, tmp_path, alone):
    bench = Bench(tmp_path, trials=8, steps=200)
    bench.url = f"postgresql://single@127.0.0.1:{full.port}/ours"
    bench.run(4)
    assert curves(bench.url) == alone
