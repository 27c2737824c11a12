"""Worker processes on PostgreSQL: one connection for all, and the bits of one process, whatever happens meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import psycopg
import pytest
from storage.bouncer import bounced
from storage.conftest import empty_database
from storage.postgres import Server
from support import needs
from support.bench import Bench
from support.patience import wait_for
from support.study_files import write_study

from tuner.errors import Paused
from tuner.storage.store import open_ledger

pytestmark = pytest.mark.slow
KEPT = ("--checkpoints", "kept")
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
def full():
    """A server for 4 clients, and a role of one."""
    needs.require("postgresql")
    server = Server(max_connections=5, superuser_reserved_connections=1, max_wal_senders=0)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name, limit in (("single", 1), ("few", 2), ("many", -1)):
                connection.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {limit}")
                connection.execute(f"CREATE DATABASE {name} OWNER {name}")
        yield server
    finally:
        server.close()


def test_a_role_of_one_connection_is_enough_for_a_launch_with_workers(full, tmp_path, alone):
    bench = Bench(tmp_path, trials=8, steps=200)
    bench.url = f"postgresql://single@127.0.0.1:{full.port}/single"
    bench.run(4)
    assert curves(bench.url) == alone


@pytest.mark.parametrize("role", ["few", "many"])
def test_more_launchers_than_connections_wait_for_each_other(full, tmp_path, alone, role):
    """A role of two connections, and a server of four, for four launchers of two workers each."""
    bench = Bench(tmp_path, trials=8, steps=200)
    bench.url = f"postgresql://{role}@127.0.0.1:{full.port}/{role}"
    launchers = [launched(bench) for _ in range(4)]
    codes = []
    while launchers:
        code = wait_for_one(launchers)
        codes.append(code)
        if code == 75:  # nothing became free for a minute: a scheduler starts it again
            launchers.append(launched(bench))
    assert set(codes) <= {0, 75}
    assert codes.count(0) == 4
    assert curves(bench.url) == alone


def launched(bench):
    return commanded(
        bench.folder, bench.url, "launch", bench.file.name, "--workers", "2", "--fuse", "off", "--quiet", *KEPT
    )


def test_a_launcher_that_was_stopped_for_a_while_goes_on(server, tmp_path, alone):
    """Its workers wait for it with their transactions, and no one takes that for a death."""
    bench = Bench(tmp_path, trials=8, steps=200)
    bench.url = empty_database(server.url)
    launcher = launched(bench)
    with psycopg.connect(server.url, autocommit=True) as watching:
        begun = "SELECT count(*) FROM trial WHERE step > 0"
        for _ in range(3):
            wait_for(lambda: watching.execute("SELECT to_regclass('trial')").fetchone()[0] is not None)
            wait_for(lambda: watching.execute(begun).fetchone()[0] > 0)
            launcher.send_signal(signal.SIGSTOP)
            time.sleep(6.0)  # longer than what the launcher takes for a pause
            launcher.send_signal(signal.SIGCONT)
    assert finished(launcher) == 0
    assert curves(bench.url) == alone


def commanded(folder, url, *words):
    """A command in a process of its own."""
    command = [sys.executable, "-m", "tuner", *words]
    environment = os.environ | {"TUNER_STORAGE": url}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


def finished(process):
    """The exit code of a command that says nothing wrong."""
    said = process.communicate()[1]
    assert process.returncode in (0, 75), said
    return process.returncode


def wait_for_one(launchers):
    """The exit code of the first that ends, which is taken out."""
    wait_for(lambda: any(one.poll() is not None for one in launchers))
    ended = next(one for one in launchers if one.poll() is not None)
    launchers.remove(ended)
    return finished(ended)


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("pool_size", [1, 2])
def test_a_whole_campaign_through_pgbouncer(server, tmp_path, pool_size):
    """Its commands, with backups while workers train."""
    empty_database(server.url)
    file = write_study(tmp_path, steps=60).name
    with bounced(server, pool_size=pool_size) as address:
        url = f"{address.format(user='postgres')}/postgres"
        trains = commanded(tmp_path, url, "run", file, "--workers", "2", "--quiet", *KEPT)
        with psycopg.connect(server.url, autocommit=True) as watching:
            wait_for(lambda: watching.execute("SELECT to_regclass('trial')").fetchone()[0] is not None)
        for number in range(2):
            assert finished(commanded(tmp_path, url, "backup", f"dump-{number}")) == 0
        assert finished(trains) == 0
        for command in (["status"], ["report"], ["verify", *KEPT]):
            assert finished(commanded(tmp_path, url, command[0], file, *command[1:])) == 0, command
