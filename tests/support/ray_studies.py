"""A study that commands train on a Ray cluster of the test's own, and fixtures: the cluster, an empty server."""

import subprocess
import sys

import psutil
import pytest
from sqlalchemy import create_engine
from storage.postgres import Server

from support.bench import LOSS
from support.patience import all_said, wait_for
from support.ray_cluster import RayCluster
from support.records import rows_at
from support.study_files import write_study
from tuner.storage.engine import parsed_url
from tuner.storage.schema import metadata

TRIALS, STEPS = 4, 6000
CURVES = (
    "select t.number, m.step, n.name, m.value from measurement m join trial t on t.id = m.trial_id "
    "join metric n on n.id = m.metric_id order by t.number, m.step, n.name"
)
BEST = (
    "select t.number, c.step, f.digest from checkpoint c join checkpoint_file f on f.id = c.file_id "
    "join trial t on t.id = c.trial_id where c.kind = 'best' order by 1, 2, 3"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = RayCluster(tmp_path_factory.mktemp("ray"))
    try:
        made.add_node(3)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def url(server):
    engine = create_engine(parsed_url(server.url))
    metadata.drop_all(engine)
    engine.dispose()
    return server.url


class Study:
    """A study in a folder, and commands that train it on the cluster.

    Steps are slow from the start of a command until its end is awaited, so that what a test does meanwhile comes in the
    middle of the training, however quick the machine is. While the file `held` is there no step is made.
    """

    def __init__(self, folder, cluster, url, *, steps=STEPS, trials=TRIALS, replace=()):
        self.folder, self.cluster, self.url = folder, cluster, url
        folder.mkdir(exist_ok=True)
        self.slow, self.held = folder / "slow", folder / "held"
        waits = (
            f"if os.path.exists({str(self.slow)!r}):\n            time.sleep(0.005)\n"
            f"        while os.path.exists({str(self.held)!r}):\n            time.sleep(0.01)\n        {LOSS}"
        )
        write_study(
            folder,
            trials=trials,
            steps=steps,
            replace=[("import torch\n", "import os, time\nimport torch\n"), (LOSS, waits), *replace],
        )
        self.commands = []

    def start(self, *options, workers=2):
        on_ray = ["--engine", f"ray://{self.cluster.address}", "--workers", str(workers)] if workers else []
        command = [sys.executable, "-m", "tuner", "launch", "tiny.py", "--fuse", "off", "--checkpoints", "checkpoints"]
        command += [*on_ray, *options]
        environment = self.cluster.environment | {"TUNER_STORAGE": self.url}
        pipe = subprocess.PIPE
        if workers:
            self.slow.touch()
        made = subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=pipe, stderr=pipe)
        self.commands.append(made)
        return made

    def rows(self, query):
        return rows_at(self.url, query)

    def moves(self):
        return self.rows("select sum(step), sum(fence) from trial")

    def ended(self, process):
        self.slow.unlink(missing_ok=True)
        _, err = all_said(process, self.moves)
        return process.returncode, err

    def wait_for_steps(self, more=1, alive=()):
        begun = (self.moves() or [(0, 0)])[0][0] or 0
        wait_for(lambda: ((self.moves() or [(0, 0)])[0][0] or 0) >= begun + more, alive=alive, moves=self.moves)

    def seats(self):
        """The actors of this cluster: others on this machine are left alone."""
        found = [one for one in psutil.process_iter(["name", "cmdline"]) if _is_seat(one)]
        return [one for one in found if str(self.cluster.folder) in _command_of_parent(one)]

    def below(self):
        """Processes of seats and workers: what was forked on this machine."""
        words = "tuner.execution.fork_server_process --listen"
        return [one for one in psutil.process_iter(["cmdline"]) if words in " ".join(one.info["cmdline"] or ())]

    def close(self):
        for one in self.commands:
            one.kill()
            one.communicate()


def _command_of_parent(process):
    try:
        parent = process.parent()
        return " ".join(parent.cmdline()) if parent else ""
    except psutil.Error:  # it has ended
        return ""


def _is_seat(process):
    return any("RaySeat" in word for word in [process.info["name"] or "", *(process.info["cmdline"] or ())])
