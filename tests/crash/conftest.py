"""The crash loop as a fixture."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

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
        try:
            out, err = group.communicate(timeout=seconds)
        except BaseException:
            os.killpg(group.pid, signal.SIGKILL)
            raise
        assert group.returncode == 0, err[-2000:]
        with pytest.raises(ProcessLookupError):
            os.killpg(group.pid, 0)
        return json.loads(out)

    yield run
    shutil.rmtree(folder)
