"""The manifest of a gang as its pods run it: its script with torchrun, on loopback, stopped and with a rank killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from support.patience import all_said, wait_for
from support.slow_study import new_database, records, rows, steps, write_slow

ROOT = Path(__file__).parents[2]
NODES = 2
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


class GangPods:
    """Pods of one gang; nothing of their command is changed but the places, and that it runs the campaign."""

    def __init__(self, server, folder):
        self.folder, self.pods = folder, []
        for name in ("app", "shared", "home", "bin"):
            (folder / name).mkdir()
        write_slow(folder / "app", slices=4)
        self.url = new_database(server, folder.name.lower())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for name, words in (("tuner", "-m tuner"), ("torchrun", "-m torch.distributed.run")):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            (folder / "bin" / name).chmod(0o755)

    def start(self, **more):
        """All pods of the gang, each of which has one rank."""
        job = yaml.safe_load((ROOT / "docs/recipes/kubernetes-gang.yaml").read_text(encoding="utf-8"))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        values = {one["name"]: one.get("value", self.url) for one in container["env"]}
        values |= {"HOME": str(self.folder / "home"), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        values |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "NUM_GPUS": "1"}
        assert values["NUM_NODES"] == str(NODES)
        self.pods = []
        for index in range(NODES):
            own = self.folder / f"pod-{index}"
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir()
            words = [self._here(word, own) for word in container["command"]]
            first = words.index("worker")
            words = [*words[:first], "run", words[first + 1], "--yes", *words[words.index("--checkpoints") :]]
            pipe, environment = subprocess.PIPE, values | {"JOB_COMPLETION_INDEX": str(index), **more}
            made = subprocess.Popen(
                words, cwd=own, env=environment, text=True, stdout=pipe, stderr=pipe, start_new_session=True
            )
            self.pods.append(made)
        return self.pods

    def _here(self, word, own):
        for old, new in (
            ("tuner-gang-0.tuner-gang", "127.0.0.1"), ("29500", str(self.port)), ("/dev/shm/code", f"{own}/code"),
            ("/app/", f"{self.folder}/app/"), ("/shared/", f"{self.folder}/shared/"),
        ):  # fmt: skip
            word = word.replace(old, new)
        return word

    def moves(self):
        return steps(self.url)

    def end(self):
        """The exit codes of all pods, once they have ended."""
        said = [all_said(pod, self.moves)[1] for pod in self.pods]
        return [pod.returncode for pod in self.pods], "\n".join(said)

    def rank(self, number):
        """The command of a rank, below its pod."""
        for process in psutil.Process(self.pods[number].pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[1:4] == ["-m", "tuner", "run"]:
                    return process
        raise AssertionError("it has ended")

    def close(self):
        for pod in self.pods:
            with suppress(psutil.Error):
                for process in psutil.Process(pod.pid).children(recursive=True):
                    process.kill()
            pod.kill()
            pod.communicate()


@pytest.fixture
def pods(server, tmp_path):
    made = GangPods(server, tmp_path)
    yield made
    made.close()


def test_a_pod_that_is_stopped_and_one_that_loses_its_rank_end_all_and_the_same_pods_go_on(pods, alone_in_slices):
    pods.start(SLOWLY="0.3")
    wait_for(lambda: pods.moves()[0] > 5, alive=pods.pods, moves=pods.moves)
    pods.pods[1].send_signal(signal.SIGTERM)
    codes, said = pods.end()
    assert codes == [130, 130], said
    assert rows(pods.url, "select max(attempt) from trial where state = 'waiting'") == [(0,)]
    begun = pods.moves()[0]
    pods.start(SLOWLY="0.3")
    wait_for(lambda: pods.moves()[0] > begun, alive=pods.pods, moves=pods.moves)
    pods.rank(1).kill()
    codes, said = pods.end()
    assert codes == [75, 137], said
    assert rows(pods.url, "select max(attempt) from trial where state = 'waiting'") == [(1,)], "it counts, once"
    pods.start()
    codes, said = pods.end()
    assert codes == [0, 0], said
    assert records(pods.url) == alone_in_slices


def test_wrong_input_ends_all_pods_with_its_own_code(pods):
    (pods.folder / "app/study.py").write_text("campaign = 1\n")
    pods.start()
    codes, said = pods.end()
    assert codes == [2, 2], said
