"""A seat on Ray: an actor that has a process of its own coordinate a worker, and tells how that ended.

Ray imports this on the nodes, so nothing heavy is imported here, and no code of users ever runs in a process that has
Ray's threads. Nothing is bound to a thread either: Ray runs each method of an actor in one of several, and the kernel
takes the end of a thread that started a process for the end of that process's parent.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray

from tuner import system
from tuner.execution.channel import STOP, line_of, piped
from tuner.execution.fork_server import SEAT, ForkedWorker, SharedForkServer, private_folder, worker_environment
from tuner.execution.shipping import unpacked
from tuner.signals import blocked

DIED: dict[str, Any] = {"is": "outcome", "how": "died"}
# Ray gives a GPU by these; threads were set before torch was imported.
_OF_THE_ACTOR = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class RaySeat:
    """The actor. Its methods run in threads; what they are given and what they return is text, or a file."""

    def __init__(self) -> None:
        self._asked = False
        self._process: ForkedWorker | subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def node(self) -> str:
        """Where it is: asked for when nodes are drained, and to see that it is there."""
        return str(ray.get_runtime_context().get_node_id())

    def answer(self, question: Callable[..., str], *given: object) -> str:
        """What the driver's own question finds on this node."""
        return question(*given)

    def ask_to_stop(self) -> None:
        """Have what it trains saved and given back."""
        with self._lock:
            self._asked = True
            self._send(STOP)

    def work(self, order: str, threads: int, name: str, code: bytes) -> str:
        """Train what is left of a study; how that ended, as JSON.

        name: of the fork server of this machine. code: what was shipped (`shipping.pack`); empty where nothing was.
        """
        given: dict[str, Any] = json.loads(order)
        if code:
            try:
                given["folder"] = str(unpacked(code, private_folder(), name))
            except OSError as error:
                text = f"the study's folder could not be written on node {socket.gethostname()}: {error}"
                return json.dumps({"how": "fault", "kind": "input", "name": "", "text": text})
        given["environment"] = {one: os.environ[one] for one in _OF_THE_ACTOR if one in os.environ}
        study_file = os.path.join(given["folder"], given["study_file"])
        with self._lock:
            self._process, given["fork_server"] = _started(threads, study_file, name)
            self._send(given)
            if self._asked:
                self._send(STOP)
        outcome = DIED
        for line in piped(self._process.stdout):
            outcome = json.loads(line)
        exit_code = self._process.wait()
        with self._lock, suppress(OSError):
            piped(self._process.stdin).close()
        return json.dumps({**outcome, "code": exit_code})

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None:
            return
        stdin = piped(self._process.stdin)
        with suppress(OSError, ValueError):  # it died, which is noticed where its messages end
            stdin.write(line_of(message))
            stdin.flush()


def _started(threads: int, study_file: str, name: str) -> tuple[ForkedWorker | subprocess.Popen[bytes], str]:
    """The process of a seat, and the name of the fork server that it comes from; "" where there is none."""
    environment = worker_environment(threads)
    if system.FORKS_WHOLE:
        with suppress(OSError):
            return SharedForkServer(environment, study_file, name).fork(SEAT), name
    with blocked():
        command = [sys.executable, "-m", "tuner.execution.seat_process"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment), ""  # noqa: S603
