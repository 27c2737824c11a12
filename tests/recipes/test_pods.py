"""The commands of the manifests as pods run them: as process 1 of a PID namespace, under one host name, as nobody known.

And on machines whose clocks differ: leases are in the database's time.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import yaml
from support.needs import NAMESPACE, faketime
from support.patience import all_said, wait_for
from support.slow_study import TRIALS, new_database, records, rows, steps, write_slow

ROOT = Path(__file__).parents[2]
UNKNOWN = 12345  # a user that has no name
RUNNING = "select worker from trial where state = 'running' and step > 0"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


class Pods:
    """Processes with the command, environment and user of a manifest; nothing of it is changed but the places."""

    def __init__(self, server, name):
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-pods-"))  # pytest's own can be read by its user only
        self.folder.chmod(0o755)
        for place in ("app", "shared", "home"):
            (self.folder / place).mkdir()
        (self.folder / "shared").chmod(0o777)
        (self.folder / "home").chmod(0o777)
        write_slow(self.folder / "app")
        self.url = new_database(server, name)
        self.started = []

    def start(self, kind, *, as_pod=True, **environment):
        """A process of `kubernetes-{kind}.yaml`; as_pod: in a PID namespace of its own, by an unknown user."""
        job = yaml.safe_load((ROOT / f"docs/recipes/kubernetes-{kind}.yaml").read_text(encoding="utf-8"))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        values = {one["name"]: one.get("value", self.url) for one in container["env"]}
        values |= {"HOME": str(self.folder / "home"), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        values |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
        _, *words = [self._here(word) for word in container["command"]]
        user = ["setpriv", f"--reuid={UNKNOWN}", f"--regid={UNKNOWN}", "--clear-groups", "--"]
        command = [*(NAMESPACE + user if as_pod else []), sys.executable, "-m", "tuner", *words]
        pipe = subprocess.PIPE
        self.started.append(
            subprocess.Popen(command, cwd=self.folder, env=values, text=True, stdout=pipe, stderr=pipe)
        )
        return self.started[-1]

    def _here(self, word):
        return word.replace("/app/", f"{self.folder}/app/").replace("/shared/", f"{self.folder}/shared/")

    def moves(self):
        return steps(self.url)

    def end(self, process):
        """Its exit code; also what it said, where a test fails."""
        out, err = all_said(process, self.moves)
        print(shlex.join(map(str, process.args)), out, err)
        return process.returncode

    def close(self):
        for one in self.started:
            one.kill()
            one.communicate()
        subprocess.run(["rm", "-rf", self.folder], check=True)


@pytest.fixture
def pods(server, request):
    made = Pods(server, f"pods_{abs(hash(request.node.name)) % 10**8}")
    yield made
    made.close()


@pytest.mark.needs("namespaces", "other users")
def test_pods_under_one_host_name_are_stopped_and_replaced(pods, alone):
    run, workers = pods.start("run", SLOWLY="0.5"), [pods.start("workers", SLOWLY="0.5") for _ in range(2)]
    wait_for(lambda: len(set(rows(pods.url, RUNNING))) >= 3, alive=[run, *workers], moves=pods.moves)
    for place, pod in enumerate(workers):
        (first,) = psutil.Process(pod.pid).children()  # of `unshare`: process 1 of its namespace
        assert first.uids().real == UNKNOWN
        os.kill(first.pid, signal.SIGTERM)
        assert pods.end(pod) == 130
        workers[place] = pods.start("workers")
    assert [pods.end(pod) for pod in (run, *workers)] == [0, 0, 0]
    assert records(pods.url) == alone
    assert rows(pods.url, "select max(attempt), max(fence) from trial") == [(1, 2)], "nothing was taken from the living"


@pytest.mark.needs("faketime")
def test_an_hour_between_two_clocks_changes_nothing(pods, alone):
    run = pods.start("run", as_pod=False, SLOWLY="0.5")
    clock = {"LD_PRELOAD": str(faketime()), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "SLOWLY": "0.5"}
    workers = [pods.start("workers", as_pod=False, FAKETIME=shift, **clock) for shift in ("+1h", "-1h")]
    assert [pods.end(pod) for pod in (run, *workers)] == [0, 0, 0]
    assert records(pods.url) == alone
    assert rows(pods.url, "select fence, attempt from trial") == [(1, 1)] * (2 * TRIALS), "each was claimed once"
    (hosts,) = rows(pods.url, "select count(distinct worker) from launch")
    assert hosts[0] >= 2, "not by one process alone"
