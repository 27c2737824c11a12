"""A seat on Ray: an actor that has a process of its own coordinate a worker, and tells how that ended.

In a gang that worker is rank 0; each other rank has an actor, which has a process of its own follow (`gang_process`).

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
from tuner.execution.channel import STOP, exit_words, line_of, piped
from tuner.execution.fork_server import MATE, SEAT, ForkedWorker, SharedForkServer, private_folder, worker_environment
from tuner.execution.shipping import unpacked
from tuner.signals import blocked

_ray: Any = ray  # some of what is used is not typed
DIED: dict[str, Any] = {"is": "outcome", "how": "died"}
LOOPBACK, NODE = "127.0.0.1", "node"  # whence rank 0 of a gang is reached: from its own machine, or from any node
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # the user's own are kept
_MODULES = {SEAT: "tuner.execution.seat_process", MATE: "tuner.execution.gang_process"}
# Ray gives a GPU by these; threads were set before torch was imported.
_OF_THE_ACTOR = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class RaySeat:
    """The actor. Its methods run in threads; what they are given and what they return is text, or a file."""

    def __init__(self) -> None:
        self._asked = False
        self._process: ForkedWorker | subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._spot = ""
        self._spot_is_known = threading.Event()

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

    def lose(self, text: str) -> None:
        """Another rank of the gang has ended: give back what it holds, and count the attempt."""
        with self._lock:
            self._send({"lost": text})

    def spot(self) -> str:
        """Where rank 0 listens for the others, once it does, as JSON; "" where it has ended."""
        self._spot_is_known.wait()
        return self._spot

    def work(self, order: str, threads: int, name: str, code: bytes, reach: str = "") -> str:
        """Train what is left of a study; how that ended, as JSON.

        name: of the fork server of this machine. code: what was shipped (`shipping.pack`); empty where nothing was.
        reach: of a gang, whence rank 0 has to be reached: LOOPBACK or NODE.
        """
        try:
            given = _unpacked(json.loads(order), name, code)
        except OSError as error:
            self._spot_is_known.set()
            return _unwritten(error)
        host = _sockets_on(reach)
        given |= {"host": host, "environment": {one: os.environ[one] for one in _OF_THE_ACTOR if one in os.environ}}
        study_file = os.path.join(given["folder"], given["study_file"])
        with self._lock:
            self._process, given["fork_server"] = _started(threads, study_file, name)
            self._send(given)
            if self._asked:
                self._send(STOP)
        outcome = DIED
        for line in piped(self._process.stdout):
            told = json.loads(line)
            if told["is"] == "spot":
                self._spot = json.dumps(told["spot"])
                self._spot_is_known.set()
            else:
                outcome = told
        self._spot_is_known.set()
        return json.dumps({**outcome, "code": self._ended(self._process)})

    def follow(self, order: str, threads: int, name: str, code: bytes, rank: int, spot: str) -> str:
        """Be another rank of a gang, which does what rank 0 tells it; how that ended, as JSON.

        spot: where rank 0 listens. "ended" is what rank 0 wanted; a lost gang, and a device that is, are "died".
        """
        try:
            given = _unpacked(json.loads(order), name, code)
        except OSError as error:
            return _unwritten(error)
        where = json.loads(spot) | {"rank": rank}
        _sockets_on(where["host"])
        study_file = os.path.join(given["folder"], given["study_file"])
        setup = given["setup"] | {"study_file": study_file, "url": "", "relay": "", "spot": where}
        with self._lock:
            forks = setup["machine"]["device"] == "cpu"  # the context of a GPU does not survive a fork
            self._process, _ = _started(threads, study_file, name, MATE, forks=forks)
            self._send(setup)
        told: dict[str, Any] = {}
        for line in piped(self._process.stdout):
            told = json.loads(line)
        exit_code = self._ended(self._process)
        if told.get("is") == "fault" and told["kind"] not in ("paused", "device"):
            return json.dumps({**told, "how": "fault"})
        text = told.get("text") or f"its process on node {socket.gethostname()} {exit_words(exit_code)}"
        return json.dumps({"how": "died" if exit_code or told.get("is") == "fault" else "ended", "text": text})

    def _ended(self, process: "ForkedWorker | subprocess.Popen[bytes]") -> int:
        """The exit code of a process whose output has ended."""
        code = process.wait()
        with self._lock, suppress(OSError):
            piped(process.stdin).close()
        return code

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None:
            return
        stdin = piped(self._process.stdin)
        with suppress(OSError, ValueError):  # it died, which is noticed where its messages end
            stdin.write(line_of(message))
            stdin.flush()


def _unpacked(order: dict[str, Any], name: str, code: bytes) -> dict[str, Any]:
    """The order with the folder where the study lies here, which becomes the working directory. Raises OSError."""
    if code:
        order["folder"] = str(unpacked(code, private_folder(), name))
    os.chdir(order["folder"])  # of the fork server, too, and so of what it forks
    return order


def _unwritten(error: OSError) -> str:
    text = f"the study's folder could not be written on node {socket.gethostname()}: {error}"
    return json.dumps({"how": "fault", "kind": "input", "name": "", "text": text})


def _sockets_on(reach: str) -> str:
    """Have torch.distributed of this actor's processes use the network with that address; the address of this node."""
    if not reach:
        return ""
    host = LOOPBACK if reach == LOOPBACK else str(_ray.util.get_node_ip_address())
    interface = system.interface_of(host)
    if interface:
        for name in _INTERFACES:
            os.environ.setdefault(name, interface)
    return host


def _started(
    threads: int, study_file: str, name: str, kind: bytes = SEAT, *, forks: bool = True
) -> tuple[ForkedWorker | subprocess.Popen[bytes], str]:
    """The process of a seat or mate, and the name of the fork server that it comes from; "" where there is none."""
    environment = worker_environment(threads)
    if system.FORKS_WHOLE and forks:
        with suppress(OSError):
            return SharedForkServer(environment, study_file, name).fork(kind), name
    with blocked():
        command = [sys.executable, "-m", _MODULES[kind]]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment), ""  # noqa: S603
