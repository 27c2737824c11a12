"""Killed at every durable action, at random, woken too late, poisoned, unanswered: the same bits come out."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crash.sabotage import SABOTAGES

pytestmark = pytest.mark.timeout(1500)  # a minute or two, on a machine that has nothing else to do
LOOP = Path(__file__).with_name("loop.py")
PACKAGE = LOOP.parents[2]
MEMORY = Path("/dev/shm")  # kill -9 leaves the page cache alone, so the disk would only cost time


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="tuner-crash-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    yield made
    shutil.rmtree(made)


def loop(mode, folder, *numbers, sabotage=""):
    """Run the loop in a process of its own, and return what it found."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1", "TUNER_SABOTAGE": sabotage}
    command = [sys.executable, str(LOOP), mode, str(folder), *map(str, numbers)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def both(first, second):
    """Two loops at once."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(first), pool.submit(second)]]


@pytest.mark.slow
def test_a_kill_at_each_pass_of_each_failpoint_changes_nothing(folder):
    found = both(lambda: loop("systematic", folder / "odd", 1, 2), lambda: loop("systematic", folder / "even", 2, 2))
    assert [one["wrong"] for one in found] == [[], []]
    assert sum(one["kills"] for one in found) >= 150


@pytest.mark.slow
def test_two_hundred_kills_at_random_with_two_workers_change_nothing(folder):
    found = both(lambda: loop("random", folder / "a", 100, 1), lambda: loop("random", folder / "b", 100, 2))
    assert [one["wrong"] for one in found] == [[], []]
    assert sum(one["kills"] for one in found) >= 200


@pytest.mark.parametrize("mode", ["zombie", "poison"])
def test_a_worker_that_wakes_too_late_and_a_trial_that_kills_its_workers(mode, folder):
    assert loop(mode, folder)["wrong"] == []


def test_a_lost_answer_of_any_commit_changes_nothing(folder):
    found = loop("lost", folder)
    assert found["wrong"] == []
    assert found["commits"] > 10
    source = "".join(path.read_text() for path in (PACKAGE / "tuner").rglob("*.py"))
    unpassed = {"heartbeat", "release"}  # their own tests pass these
    for name in set(found["names"]) | unpassed:
        assert f'failpoint("{name}")' in source
    assert source.count('failpoint("') == len(set(found["names"]) | unpassed) + 1, "a failpoint that no test passes"


@pytest.mark.slow
@pytest.mark.parametrize("name", SABOTAGES)
def test_the_suite_notices_a_broken_program(name, folder):
    mode = SABOTAGES[name]
    numbers = (3, 7) if mode == "systematic" else ()
    assert loop(mode, folder, *numbers, sabotage=name)["wrong"]


@pytest.mark.slow
def test_two_thousand_kills_at_random_change_nothing(folder):
    for seed in range(10):
        found = both(
            lambda seed=seed: loop("random", folder / f"a{seed}", 100, 10 + 2 * seed),
            lambda seed=seed: loop("random", folder / f"b{seed}", 100, 11 + 2 * seed),
        )
        assert [one["wrong"] for one in found] == [[], []]
