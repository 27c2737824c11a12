"""Launchers and workers from the shell: orphaned, joined by hand, killed at random."""

import random
import signal
import sqlite3
import time

import psutil
import pytest
from support.bench import Bench
from support.jobs import all_gone
from support.patience import all_said, wait_for
from support.processes import started, told
from support.study_files import write_study


def training(folder, fence=1, count=2):
    """Whether `count` trials are in training, claimed for the `fence`-th time."""
    try:
        with sqlite3.connect(f"file:{folder}/runs/tuner.sqlite?mode=ro", uri=True) as connection:
            (found,) = connection.execute(
                "select count(*) from trial where state = 'running' and fence = ?", [fence]
            ).fetchone()
        connection.close()
        return found == count
    except sqlite3.OperationalError:
        return False


def moved(bench):
    """What grows while a study is trained; nothing where there is no storage yet, with its tables."""
    try:
        return bench.rows("select sum(step), sum(fence) from trial")
    except sqlite3.OperationalError:
        return []


@pytest.mark.slow
def test_workers_end_with_their_launcher_and_others_take_over(tmp_path):
    write_study(tmp_path, trials=3, steps=20000)
    launcher = started(tmp_path, "launch", "tiny.py", "--workers", 2)
    wait_for(lambda: training(tmp_path))
    family = psutil.Process(launcher.pid).children(recursive=True)
    assert len(family) == 3, "two workers and the process that forked them"
    launcher.kill()
    launcher.communicate()
    wait_for(lambda: all_gone(family))
    helper = started(tmp_path, "worker", "tiny.py", "--workers", 2)
    wait_for(lambda: training(tmp_path, fence=2))
    helper.send_signal(signal.SIGTERM)
    code, err = told(helper)
    assert code == 130, err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_launcher_and_a_worker_started_by_hand_share_a_study(tmp_path):
    calm, shared = tmp_path / "calm", Bench(tmp_path / "shared", trials=6, steps=400)
    Bench(calm, trials=6, steps=400).run(0)
    launcher = started(shared.folder, "launch", "tiny.py", "--workers", 1)
    wait_for(lambda: training(shared.folder, count=1))
    helper = started(shared.folder, "worker", "tiny.py", "--until", "study")
    for one in (launcher, helper):
        _, err = all_said(one, lambda: moved(shared))
        assert one.returncode == 0, err
    assert shared.rows("select state, count(*) from trial group by state") == [("complete", 6)]
    calm_bench = Bench(calm, trials=6, steps=400)
    assert shared.rows() == calm_bench.rows()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_launchers_and_workers_killed_at_random_change_nothing(tmp_path):
    trials, steps, kills, generator = 6, 3000, 12, random.Random(0)
    Bench(tmp_path / "calm", trials=trials, steps=steps).run(0)
    rough = Bench(tmp_path / "rough", trials=trials, steps=steps)
    killed = 0
    while killed < kills:
        launcher = started(rough.folder, "launch", "tiny.py", "--workers", 2)
        while killed < kills and launcher.poll() is None:
            time.sleep(generator.uniform(1.0, 6.0))
            family = psutil.Process(launcher.pid).children(recursive=True) if launcher.poll() is None else []
            victim = generator.choice([*family, psutil.Process(launcher.pid)]) if family else None
            if victim is not None:
                victim.kill()
                killed += 1
        _, err = all_said(launcher, lambda: moved(rough))
        assert launcher.returncode in (0, 75, -signal.SIGKILL), err  # 75: three workers were killed as they started
        if launcher.returncode == 0:
            break
    last = started(rough.folder, "launch", "tiny.py", "--workers", 2)
    _, err = all_said(last, lambda: moved(rough))
    assert last.returncode == 0, err
    assert killed >= 4
    assert rough.rows() == Bench(tmp_path / "calm", trials=trials, steps=steps).rows()
