"""Killed at every durable action, at random, woken too late, poisoned, unanswered: the same bits come out."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from crash.sabotage import SABOTAGES

LOOP = Path(__file__).with_name("loop.py")
PACKAGE = LOOP.parents[2]
MEMORY = Path("/dev/shm")  # kill -9 leaves the page cache alone, so the disk would only cost time


@pytest.fixture
def loop():
    """Runs a mode of the loop in a process of its own, and returns what it found. No process is left."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-crash-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    environment = os.environ | {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}

    def run(mode, *numbers, seconds=280, postgresql=False):
        command = [sys.executable, str(LOOP), str(folder / "studies"), mode, *map(str, numbers)]
        chosen = environment | ({"TUNER_CRASH_POSTGRESQL": "1"} if postgresql else {})
        group = subprocess.Popen(
            command, env=chosen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        out, err = group.communicate(timeout=seconds)
        assert group.returncode == 0, err[-2000:]
        with pytest.raises(ProcessLookupError):
            os.killpg(group.pid, 0)
        return json.loads(out)

    yield run
    shutil.rmtree(folder)


@pytest.mark.parametrize("first", [1, 2])
def test_a_kill_at_each_pass_of_each_failpoint_changes_nothing(first, loop):
    found = loop("systematic", first, 2)
    assert found["wrong"] == []
    assert found["kills"] >= 110


@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_kills_at_random_with_two_workers_change_nothing(seed, loop):
    assert loop("at_random", 100, seed)["wrong"] == []


@pytest.mark.parametrize("mode", ["zombie", "poison"])
def test_a_worker_that_wakes_too_late_and_a_trial_that_kills_its_workers(mode, loop):
    assert loop(mode)["wrong"] == []


def test_a_kill_at_a_heartbeat_and_two_kills_in_a_row_change_nothing(loop):
    assert loop("beats", 4)["wrong"] == []


def test_four_launchers_at_once_create_one_study_and_train_each_trial_once(loop):
    assert loop("launchers", 12, 1)["wrong"] == []


def test_a_lost_answer_of_any_commit_changes_nothing(loop):
    found = loop("lost")
    assert found["wrong"] == []
    assert found["commits"] > 10


def test_every_failpoint_in_the_source_is_passed(loop):
    source = "".join(path.read_text() for path in (PACKAGE / "tuner").rglob("*.py") if path.name != "failpoints.py")
    assert set(re.findall(r'failpoint\("([\w-]+)"\)', source)) == set(loop("names")["names"])
    assert source.count("failpoint(") == len(re.findall(r'failpoint\("[\w-]+"\)', source)), "names are literals"


@pytest.mark.parametrize("first", [0, 1])
def test_the_suite_notices_each_broken_program(first, loop):
    found = loop("sabotaged", first, 2)
    assert list(found) == list(SABOTAGES)[first::2]
    assert [name for name, wrong in found.items() if not wrong] == []
