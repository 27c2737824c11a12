"""Launchers in PID namespaces of their own, with one host name and process ids that collide, on one storage."""

import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text
from storage.postgres import Server
from support.needs import NAMESPACE, require
from support.patience import all_said, wait_for
from support.records import rows_at
from support.study_files import write_study

from tuner.storage.engine import parsed_url
from tuner.storage.schema import metadata

TRIALS, STEPS = 4, 1500
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


@pytest.fixture(scope="module")
def unshare():
    """What starts a process as process 1 of a namespace, from which it forks."""
    require("namespaces")
    return NAMESPACE


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/runs/tuner.sqlite"
        return
    require("postgresql")
    server = Server()
    engine = create_engine(parsed_url(server.url))
    metadata.drop_all(engine)
    engine.dispose()
    yield server.url
    server.close()


class Launchers:
    def __init__(self, unshare, folder, url):
        self.unshare, self.folder, self.url = unshare, folder, url
        write_study(folder, trials=TRIALS, steps=STEPS)
        self.started = []

    def start(self, processes):
        """A launcher whose process id follows those of so many others, and which is told by a file."""
        before = "; ".join(["/bin/true"] * processes)
        python = f"{sys.executable} -m tuner launch tiny.py --round 1 --fuse off --checkpoints checkpoints"
        environment = os.environ | {"TUNER_STORAGE": self.url, "OMP_NUM_THREADS": "1"}
        command = [*self.unshare, "sh", "-c", f"{before}; {python}; exit $?"]
        pipe = subprocess.PIPE
        self.started.append(
            subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=pipe, stderr=pipe)
        )
        return self.started[-1]

    def rows(self, query):
        return rows_at(self.url, query)

    def wait_for_workers(self, count):
        running = "select worker from trial where state = 'running'"
        wait_for(lambda: len({worker for (worker,) in self.rows(running)}) >= count, alive=self.started)

    def steps(self):
        """What grows while they train."""
        return self.rows("select sum(step), sum(fence) from trial")

    def close(self):
        for one in self.started:
            one.kill()
            one.communicate()


@pytest.fixture
def launchers(unshare, tmp_path, url):
    made = Launchers(unshare, tmp_path, url)
    yield made
    made.close()


def test_no_trial_is_taken_from_a_live_worker(launchers):
    both = [launchers.start(20), launchers.start(3)]
    launchers.wait_for_workers(2)
    for one in both:
        _, err = all_said(one, launchers.steps)
        assert one.returncode == 0, err
    claims = launchers.rows("select state, fence from trial")
    assert claims == [("complete", 1)] * TRIALS, "each was claimed once"


def test_trials_of_a_namespace_that_was_killed_come_back_by_their_lease(launchers):
    dying, other = launchers.start(20), launchers.start(3)
    launchers.wait_for_workers(2)
    running = launchers.rows("select worker, id, fence from trial where state = 'running'")
    _, mine, fence = max(running, key=lambda row: int(row[0].split(":")[1]))  # the larger process id is that of `dying`
    dying.send_signal(signal.SIGKILL)
    dying.communicate()
    complete = "select count(*) from trial where state = 'complete'"
    wait_for(lambda: launchers.rows(complete) == [(TRIALS - 1,)], alive=[other], moves=launchers.steps)
    assert launchers.rows(f"select state, fence from trial where id = {mine}") == [("running", fence)], "not by a guess"
    engine = create_engine(parsed_url(launchers.url))
    with engine.begin() as connection:
        connection.execute(text("update trial set lease_until = lease_until - 120 where state = 'running'"))
    engine.dispose()
    _, err = all_said(other, launchers.steps)
    assert other.returncode == 0, err
    assert launchers.rows(f"select state, fence from trial where id = {mine}") == [("complete", fence + 1)]
