"""Disks that are full, small, or read-only: the launch pauses, no trial is to blame, and the same command goes on."""

import json
import os
import re
import resource
import sqlite3
import subprocess
import sys

import pytest
from support.study_files import write_study


@pytest.fixture
def launch(tuner, tmp_path):
    """`tuner launch` with its records in a folder."""

    def run(folder):
        return tuner("launch", tmp_path / "tiny.py", "--storage", folder / "tuner.sqlite")

    return run


def rows(folder, query):
    with sqlite3.connect(folder / "tuner.sqlite") as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def check_paused(code, err, folder):
    assert code == 75, err
    assert "Traceback" not in err
    assert "run again to continue" in err or "run the same command again" in err
    assert {state for (state,) in rows(folder, "select state from trial")} <= {"waiting", "complete"}
    assert rows(folder, "pragma integrity_check") == [("ok",)]


def check_goes_on(run, folder, count):
    assert run.code == 0, run.err
    assert rows(folder, "select state, max(attempt), count(*) from trial group by state") == [("complete", 1, count)]
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk, leave):
    with (disk / "filler").open("wb") as file:
        status = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)


def test_a_disk_that_is_full_and_one_that_is_read_only_pause_the_launch(launch, small_disk, tmp_path):
    write_study(tmp_path, trials=1)
    assert launch(small_disk).code == 0
    write_study(tmp_path, trials=4)
    for room in (0, 24 << 10):
        fill(small_disk, leave=room)
        run = launch(small_disk)
        (small_disk / "filler").unlink()
        check_paused(run.code, run.err, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = launch(small_disk)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    check_paused(run.code, run.err, small_disk)
    assert "ead-only" in run.err
    check_goes_on(launch(small_disk), small_disk, 4)


def test_a_disk_without_room_for_three_checkpoints_is_known_before_anything_is_written(tuner, small_disk, tmp_path):
    write_study(tmp_path)
    fill(small_disk, leave=0)
    run = tuner("launch", "tiny.py", "--checkpoints", small_disk / "checkpoints")
    assert run.code == 75
    assert re.search(r"disk has 0\.000 MB free, and 3 checkpoints of 0\.00\d MB each .* --checkpoints", run.err), (
        run.err
    )
    assert rows(tmp_path / "runs", "select * from trial") == []
    assert tuner("launch", "tiny.py", "--checkpoints", small_disk / "checkpoints", "--dry-run").code == 0


def test_a_limit_on_the_size_of_files_pauses_the_launch(launch, tmp_path):
    folder = tmp_path / "runs"
    write_study(tmp_path, trials=1)
    assert launch(folder).code == 0
    write_study(tmp_path, trials=2)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    command = [sys.executable, "-m", "tuner", "launch", "tiny.py", "--storage", str(folder / "tuner.sqlite")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, preexec_fn=limited)
    check_paused(run.returncode, run.stderr, folder)
    check_goes_on(launch(folder), folder, 2)


def test_a_device_without_room_is_no_fault_of_the_trial(tuner, tmp_path, monkeypatch):
    """/dev/full takes no byte: what is written to it in the middle of torch's own writer is known as a full disk."""
    from tuner.stores import digesting

    whole = digesting.DigestingFile.__init__

    def full(self, path):
        whole(self, path)
        os.dup2(os.open("/dev/full", os.O_WRONLY), self.fileno())

    study = write_study(tmp_path, trials=2)
    monkeypatch.setattr(digesting.DigestingFile, "__init__", full)
    run = tuner("launch", study)
    assert run.code == 75, run.err
    assert "No space left on device" in run.err
    monkeypatch.setattr(digesting.DigestingFile, "__init__", whole)
    assert tuner("launch", study).code == 0
    assert {row["state"] for row in json.loads(tuner("trials", "tiny", "-f", "json").out)} == {"complete"}
