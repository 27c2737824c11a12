"""Worker processes that start with everything imported: one process imports it once, and forks for each worker.

A worker that is started by itself needs 2 s of a core before it can do anything. One that is forked begins at once and
shares what was imported: 4 workers hold 460 MB together instead of 1,070, 2 hold 370 MB instead of 570. A replacement
for a dead worker does not import again.

The fork server computes nothing and has no thread, device or database connection, so that a fork of it is whole; the
context of a GPU does not survive a fork, and workers on a GPU are processes of their own. The fork server ends with its
coordinator, and workers end with the fork server.

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

from tuner import system
from tuner.signals import SHUTDOWN, blocked

LOST = -9  # the exit code of a worker whose fork server ended: the kernel kills it
FOREVER = 1e6  # seconds
CLOSE_SECONDS = 60.0  # it may still import torch
# What a fork becomes: a worker, the coordinator of one (`seat_process`), or a rank that follows one (`gang_process`).
WORKER, SEAT, MATE = b"1", b"2", b"3"
LISTENER = "TUNER_FORK_SERVER_LISTENER"  # the descriptor of the socket where it listens
_LEAVE = "import os, sys; os.fork() and os._exit(0); os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"


class ForkServer:
    """The fork server as its coordinator sees it.

    environment: that of all workers. study_file: what they will load.

    Its process starts with the first worker, or before that with `open`: both processes then import torch at once.
    """

    def __init__(self, environment: Mapping[str, str], study_file: str) -> None:
        self._environment = dict(environment)
        self._study_file = study_file
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(self, kind: bytes = WORKER) -> "ForkedWorker":
        """Ask for another worker. A worker that dies at once, or with its fork server, is found ended."""
        server = self.open()
        tasks_end, tasks = os.pipe()
        messages, messages_end = os.pipe()
        outcome, outcome_end = os.pipe()
        theirs = [tasks_end, messages_end, outcome_end]
        with suppress(ConnectionError):
            socket.send_fds(server, [kind], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        return ForkedWorker(
            os.fdopen(tasks, "wb"), os.fdopen(messages, "rb", 0), os.fdopen(outcome, "rb", 0), self.kill
        )

    def open(self) -> socket.socket:
        """Start its process where none runs; returns the socket to it."""
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self.close()
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tuner.execution.fork_server_process", self._study_file]
        with theirs, blocked():
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=self._environment)  # noqa: S603
        return self._socket

    def kill(self) -> None:
        """End it at once, and with it all its workers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.close()

    def close(self) -> None:
        """Let it end. Workers that still run end with it."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            try:
                self._process.wait(0.0 if SHUTDOWN.is_set() else CLOSE_SECONDS)  # its workers have ended
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket = self._process = None


class SharedForkServer(ForkServer):
    """A fork server that several coordinators of a machine use: it imports torch once for all of them.

    name: the same for all that share it; their environments need to be alike. Who finds none starts it. It ends a
    moment after the last of them, and what it forked for a coordinator ends with that one's pipes.
    """

    def __init__(self, environment: Mapping[str, str], study_file: str, name: str) -> None:
        super().__init__(environment, study_file)
        self.name = name

    def open(self) -> socket.socket:
        """Connect to it, and start it where nobody has. Raises OSError where that cannot be done here."""
        if self._socket is not None and _is_open(self._socket):
            return self._socket
        self.close()
        place = private_folder() / f"{self.name}.socket"
        with open(place.with_suffix(".lock"), "wb") as guard:
            system.lock(guard.fileno())
            self._socket = _connected(place) or self._started(place)
        return self._socket

    def _started(self, place: Path) -> socket.socket:
        """Its process, in a session of its own: it leaves this one before it imports anything.

        The socket listens before that, so whoever connects need not wait: who asks is served after the import.
        """
        place.unlink(missing_ok=True)  # nobody was found there
        module = "tuner.execution.fork_server_process"
        command = [sys.executable, "-m", module, "--listen", str(place), self._study_file]
        with blocked(), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen(128)
            number = listener.fileno()
            environment = self._environment | {LISTENER: str(number)}
            leave = [sys.executable, "-I", "-S", "-c", _LEAVE, *command]
            subprocess.run(leave, stdin=subprocess.DEVNULL, env=environment, pass_fds=(number,), check=True)  # noqa: S603
            found = _connected(place)
        if found is None:
            raise OSError(f"the fork server at {place} does not answer")
        return found

    def kill(self) -> None:
        """Leave it: others use it, too."""
        self.close()


def private_folder() -> Path:
    """The folder of this user's sockets, which nobody else can enter. Raises PermissionError where others can."""
    return system.own_temporary_folder("tuner")


def _connected(place: Path) -> socket.socket | None:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(str(place))
    except OSError:  # nobody listens there
        found.close()
        return None
    return found


def _is_open(one: socket.socket) -> bool:
    """Whether the other end is there: a fork server says nothing, so what can be read is its end."""
    return not select.select([one], [], [], 0.0)[0]


class ForkedWorker:
    """A forked worker: as much of `subprocess.Popen` as its coordinator needs.

    `outcome` reports its process id, and later its exit code. One that is not forked yet is killed by `kill_all`.
    """

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], outcome: IO[bytes], kill_all: Callable[[], None]) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._outcome = outcome
        self._reported = b""
        self._kill_all = kill_all

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it; None while it lives."""
        return self._wait(0.0)

    def wait(self, timeout: float = FOREVER) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a worker", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """One that is not forked yet, or has ended, gets none."""
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
        self._wait(0.0)
        number, line, _ = self._reported.partition(b"\n")
        return int(number) if line else None

    def _wait(self, timeout: float) -> int | None:
        """Its exit code, once it is reported within `timeout` seconds."""
        while self.returncode is None and select.select([self._outcome], [], [], timeout)[0]:
            piece = os.read(self._outcome.fileno(), 64)
            self._reported += piece
            lines = self._reported.split(b"\n")
            if len(lines) > 2:
                self.returncode = int(lines[1])
            elif not piece:
                self.returncode = LOST
        if self.returncode is not None:
            self._outcome.close()
        return self.returncode


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of workers. Threads are set before torch is imported: idle OpenMP threads would take cores."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    ours = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # else it warns of each wait of a gang
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }
    return os.environ | ours
