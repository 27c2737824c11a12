"""The crash loop as a fixture."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from support.patience import MOVED, STILL

LOOP = Path(__file__).with_name("loop.py")
COMMANDS = LOOP.with_name("commands.py")
PACKAGE = LOOP.parents[2]
MEMORY = Path("/dev/shm")  # kill -9 leaves the page cache alone, so the disk would only cost time


class Loop:
    """The process that forks for each mode: it imports torch once for all tests."""

    def __init__(self, script=LOOP):
        environment = os.environ | {"PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, str(script)], env=environment, bufsize=0, **pipes)

    def run(self, folder, mode, numbers, postgresql):
        """What a mode found, however long it takes, as long as lives end. None of its processes is left."""
        asked = {"folder": str(folder), "mode": mode, "numbers": numbers, "postgresql": postgresql}
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        group = int(self._line())
        try:
            code = self._end()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            self._end()
            raise
        sys.stderr.write((folder / "errors").read_text()[-4000:])  # shown where the test fails
        assert code == 0
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)
        return json.loads((folder / "result").read_text())

    def _end(self):
        """The exit code of the mode, once it is over."""
        while (line := self._line()) == MOVED:
            pass
        return int(line.removeprefix(b"ended "))

    def _line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], STILL)
        assert ready, "no life has ended for ten minutes"
        return self.process.stdout.readline()


def running(script):
    started = Loop(script)
    yield started
    started.process.stdin.close()
    started.process.wait()
    started.process.stdout.close()


@pytest.fixture(scope="session")
def loops():
    yield from running(LOOP)


@pytest.fixture(scope="session")
def command_loops():
    yield from running(COMMANDS)


@pytest.fixture
def crash_folder():
    folder = Path(tempfile.mkdtemp(prefix="tuner-crash-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def loop(loops, crash_folder):
    """Runs a mode of the loop in a process of its own, and returns what it found."""

    def run(mode, *numbers, postgresql=False):
        return loops.run(crash_folder, mode, numbers, postgresql)

    return run


@pytest.fixture
def command_loop(command_loops, crash_folder):
    """The same, of the loop that kills commands."""

    def run(mode, *asked):
        return command_loops.run(crash_folder, mode, asked, False)

    return run
