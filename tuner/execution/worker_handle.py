"""One worker process as its coordinator sees it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from tuner import signals
from tuner.execution.channel import END, STOP, Message, line_of, piped
from tuner.execution.fork_server import ForkedWorker, ForkServer, worker_environment
from tuner.execution.remote_job import Setup, StudyTask
from tuner.records import Claim

READY_SECONDS = 120.0  # time enough to import torch and to read the data on a busy machine


class WorkerHandle:
    """A worker process: the claims it holds, and when it last gave a sign of life.

    It is forked by the fork server, where there is one. A new process can take the place of one that died.
    """

    def __init__(self, setup: Setup, fork_server: ForkServer | None = None) -> None:
        self.setup = setup
        self.fork_server = fork_server
        self.claims: dict[int, Claim] = {}  # by the trial's number
        self.busy = False
        self.ready = False
        self.moved = time.monotonic()
        self._rest = b""
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes] | ForkedWorker:
        process = self.fork_server.fork() if self.fork_server else _started(self.setup.machine.threads)
        os.set_blocking(piped(process.stdout).fileno(), False)
        self.process, self._rest, self.ready, self.moved = process, b"", False, time.monotonic()
        self._send(self.setup.as_json())
        return process

    def restart(self) -> None:
        """Start a new process for one that died."""
        self.claims = {}
        self._close()
        self._start()

    def assign(self, task: StudyTask) -> None:
        """Have it train what is left of a study."""
        self.busy, self.moved = True, time.monotonic()
        self._send(task.as_json())

    def _send(self, message: Message) -> None:
        stdin = piped(self.process.stdin)
        with suppress(BrokenPipeError):  # it died: its end is noticed where all ends are
            stdin.write(line_of(message))
            stdin.flush()

    @property
    def descriptor(self) -> int:
        return piped(self.process.stdout).fileno()

    def messages(self) -> Iterator[Message]:
        """What it has sent since the last call."""
        with suppress(BlockingIOError):
            while piece := os.read(self.descriptor, 65536):
                self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self.moved = time.monotonic()
            yield json.loads(line)

    def is_stalled(self, seconds: float) -> bool:
        """Whether it has a task and gave no sign of life for so long. Until it is ready it may take longer."""
        return self.busy and time.monotonic() - self.moved > max(seconds, 0.0 if self.ready else READY_SECONDS)

    def ask_to_stop(self) -> None:
        """Have it save and end. A message and not a signal: it may ignore signals, and need not be forked yet."""
        self._send(STOP)

    @property
    def was_told_to_end(self) -> bool:
        """Whether a signal ended it that asks for an end; as it did where it could not save in time."""
        code = self.process.returncode
        return code == signals.EXIT_CODE or (code is not None and -code in signals.STOPPING)

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Tell it that there are no more tasks."""
        self._send(END)

    def close(self) -> None:
        """Wait for the end of one that was told to end; what does not end is killed."""
        try:
            self.process.wait(timeout=0.0 if self.busy else 5.0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                piped(stream).close()


def _started(threads: int) -> subprocess.Popen[bytes]:
    with signals.blocked():
        return subprocess.Popen(
            [sys.executable, "-m", "tuner.execution.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_environment(threads),
        )
