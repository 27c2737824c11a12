"""Worker processes that are born with everything imported: one process does it once, and forks for each worker.

A worker started by itself needs 2 s of a core before it can do anything. One that is forked begins at once and shares
what was imported: 4 workers hold 460 MB together instead of 1,070, 2 hold 370 MB instead of 570. Who replaces a dead
one does not import again.

The nursery computes nothing and has no thread, device or database connection, so that a fork of it is whole; a GPU's
context does not survive a fork, and its workers are processes of their own. The nursery ends with its coordinator, and
workers end with the nursery.

multiprocessing's forkserver would import the user's main module again in every worker, which runs a script without
a guard once more.
"""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from tuner.signals import ENDING, withheld

LOST = -9  # what a worker ends with whose nursery ended: the kernel kills it
AGES = 1e6  # seconds
CLOSE_SECONDS = 60.0  # it may still import torch


class Nursery:
    """The nursery as its coordinator sees it; `environment` is that of all workers, `study_file` what they will load.

    It starts with the first worker, or before that with `open`, so that it imports torch while the coordinator does.
    """

    def __init__(self, environment: Mapping[str, str], study_file: str) -> None:
        self._environment = dict(environment)
        self._study_file = study_file
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def bear(self) -> "Born":
        """Ask for another worker. One that dies at once, or with its nursery, is found ended."""
        channel = self.open()
        orders_end, orders = os.pipe()
        words, words_end = os.pipe()
        fate, fate_end = os.pipe()
        theirs = [orders_end, words_end, fate_end]
        with suppress(ConnectionError):
            socket.send_fds(channel, [b"1"], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        return Born(os.fdopen(orders, "wb"), os.fdopen(words, "rb", 0), os.fdopen(fate, "rb", 0), self.kill)

    def open(self) -> socket.socket:
        """Start its process where none runs; the channel to it."""
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        self.close()
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tuner.execution.nursery_process", self._study_file]
        with theirs, withheld():
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=self._environment)  # noqa: S603
        return self._channel

    def kill(self) -> None:
        """End it at once, and with it all its workers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.close()

    def close(self) -> None:
        """Let it end. Workers that are left end with it."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            try:
                self._process.wait(0.0 if ENDING.is_set() else CLOSE_SECONDS)  # its workers have ended
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._channel = self._process = None


class Born:
    """A forked worker: as much of `subprocess.Popen` as its coordinator needs.

    `fate` tells its process id, and later its exit code. One that is not born yet is killed by `kill_all`.
    """

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], fate: IO[bytes], kill_all: Callable[[], None]) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._fate = fate
        self._told = b""
        self._kill_all = kill_all

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it; None while it lives."""
        return self._heard(0.0)

    def wait(self, timeout: float = AGES) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        code = self._heard(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a worker", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """To one that is not born yet, or has ended: to none."""
        pid = self._pid()
        if pid is not None and self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End it at once."""
        if self._pid() is None:
            self._kill_all()
        else:
            self.send_signal(signal.SIGKILL)

    def _pid(self) -> int | None:
        self._heard(0.0)
        number, line, _ = self._told.partition(b"\n")
        return int(number) if line else None

    def _heard(self, timeout: float) -> int | None:
        """Its exit code, once it is told within `timeout` seconds."""
        while self.returncode is None and select.select([self._fate], [], [], timeout)[0]:
            piece = os.read(self._fate.fileno(), 64)
            self._told += piece
            lines = self._told.split(b"\n")
            if len(lines) > 2:
                self.returncode = int(lines[1])
            elif not piece:
                self.returncode = LOST
        if self.returncode is not None:
            self._fate.close()
        return self.returncode


def worker_environment(threads: int) -> dict[str, str]:
    """Threads are set before torch is imported: waiting OpenMP threads would take the cores from the others."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    ours = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }
    return os.environ | ours
