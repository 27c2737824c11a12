"""The commands of the manifests as pods run them: as process 1 of a PID namespace, by a user without a name.

And on machines whose clocks differ: leases are in the database's time.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from support.needs import NAMESPACE, NOBODY, compiler
from support.patience import all_said, wait_for
from support.slow_study import TRIALS, new_database, records, rows, steps, write_slow

ROOT = Path(__file__).parents[2]
RUNNING = "select worker from trial where state = 'running' and step > 0"
# Shows a process another time of day. (libfaketime makes Python's `time.sleep` fail.)
CLOCK = """
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

extern "C" int clock_gettime(clockid_t id, struct timespec *t) noexcept {
    int failed = syscall(SYS_clock_gettime, id, t);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += atol(getenv("CLOCK_AHEAD"));
    return failed;
}
extern "C" time_t time(time_t *t) noexcept {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
extern "C" int gettimeofday(struct timeval *t, void *zone) noexcept {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


class Pods:
    """Processes with the command, environment and user of a manifest; nothing of it is changed but the places."""

    def __init__(self, server, folder, name):
        self.folder = folder
        for place in ("app", "shared", "home"):
            (folder / place).mkdir()
        write_slow(folder / "app")
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
        command = [*(NAMESPACE + NOBODY if as_pod else []), sys.executable, "-m", "tuner", *words]
        pipe = subprocess.PIPE
        self.started.append(subprocess.Popen(command, cwd=self.folder, env=values, text=True, stdout=pipe, stderr=pipe))
        return self.started[-1]

    def _here(self, word):
        return word.replace("/app/", f"{self.folder}/app/").replace("/shared/", f"{self.folder}/shared/")

    def moves(self):
        return steps(self.url)

    def ends(self, process, code):
        """Wait for its end, which has this exit code."""
        _, err = all_said(process, self.moves)
        assert process.returncode == code, err

    def close(self):
        for one in self.started:
            one.kill()
            one.communicate()


@pytest.fixture
def pods(server, tmp_path):
    made = Pods(server, tmp_path, tmp_path.name)
    yield made
    made.close()


@pytest.mark.needs("namespaces")
def test_pods_under_one_host_name_are_stopped_and_replaced(pods, alone):
    run, workers = pods.start("run", SLOWLY="0.5"), [pods.start("workers", SLOWLY="0.5") for _ in range(2)]
    wait_for(lambda: len(set(rows(pods.url, RUNNING))) >= 3, alive=[run, *workers], moves=pods.moves)
    for place, pod in enumerate(workers):
        (first,) = psutil.Process(pod.pid).children()  # of `unshare`: process 1 of its namespace
        os.kill(first.pid, signal.SIGTERM)
        pods.ends(pod, 130)
        workers[place] = pods.start("workers")
    for pod in (run, *workers):
        pods.ends(pod, 0)
    assert records(pods.url) == alone
    assert rows(pods.url, "select max(attempt), max(fence) from trial") == [(1, 2)], "nothing was taken from the living"


@pytest.fixture
def clock(tmp_path):
    """The environment of a process whose clock is so many seconds ahead."""
    source, library = tmp_path / "clock.cpp", tmp_path / "clock.so"
    source.write_text(CLOCK)
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", library, source], check=True)
    ahead = lambda seconds: {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(seconds)}  # noqa: E731
    seen = [sys.executable, "-c", "import time; print(time.time())"]
    shown = subprocess.run(seen, env=os.environ | ahead(3600), capture_output=True, text=True, check=True).stdout
    assert float(shown) > time.time() + 3500
    return ahead


@pytest.mark.needs("compiler")
def test_an_hour_between_two_clocks_changes_nothing(pods, clock, alone):
    run = pods.start("run", as_pod=False, SLOWLY="0.5")
    workers = [pods.start("workers", as_pod=False, SLOWLY="0.5", **clock(ahead)) for ahead in (3600, -3600)]
    for pod in (run, *workers):
        pods.ends(pod, 0)
    assert records(pods.url) == alone
    assert rows(pods.url, "select fence, attempt from trial") == [(1, 1)] * (2 * TRIALS), "each was claimed once"
    claimed = {int(worker.split(":")[1]) for (worker,) in rows(pods.url, "select worker from launch")}
    assert claimed == {pod.pid for pod in (run, *workers)}, "not by one process alone"
