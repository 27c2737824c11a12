"""The engine on Ray, as the command sees it: seats are actors, and Ray's driver is another process (`ray_driver`).

| `--engine`       | RAY_ADDRESS | cluster                                                                        |
|------------------|-------------|--------------------------------------------------------------------------------|
| ray://HOST:PORT  | not asked   | the one whose GCS listens there; this machine must be one of its nodes         |
| ray              | set         | that one                                                                       |
| ray              | not set     | the one that `ray start` began on this machine; without any, one of its own,   |
|                  |             | which listens on loopback only and ends with the command                       |
"""

import json
import logging
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuner.errors import InputError, Paused
from tuner.execution.channel import Message, exit_words, line_of, piped
from tuner.execution.engines import Needs, Seat, SeatEvent, SeatKind
from tuner.execution.fork_server import worker_environment
from tuner.execution.remote_job import Setup, StudyTask
from tuner.execution.seat_process import SeatOrder
from tuner.execution.shipping import pack
from tuner.shown import counted
from tuner.signals import blocked

_log = logging.getLogger(__name__)
CONNECT_SECONDS = 90.0  # to a cluster that is there
BEGIN_SECONDS = 300.0  # until a cluster of our own is there, on a busy machine
FACTS_SECONDS = 300.0  # until each node has said what it has
STOP_SECONDS = 10.0
LOST_SECONDS = "30"  # without its head node, after which Ray ends the driver
ALWAYS_COMPARED = ("tuner", "torch", "ray")  # packages, whatever the study imports
_KINDS: dict[str, SeatKind] = {"idle": "idle", "stopped": "stopped", "died": "died", "fault": "fault"}


class RayEngine:
    """Seats on a Ray cluster. address: HOST:PORT of its head; "" is the one that is found, or a new one.

    idle_seconds: how long a seat without a trial stays.
    """

    def __init__(self, address: str = "", idle_seconds: float | None = None) -> None:
        self.address = address
        self.idle_seconds = idle_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._known: list[SeatEvent] = []
        self._seat = Seat(0)  # what each one needs
        self.ships = False  # whether machines get the study's folder; on this machine alone it is used where it lies

    # What the backend asks for

    def check(self, seat: Seat, study_file: Path) -> int:
        """Reach the cluster. Raises InputError where there is none, or where it can never have such seats."""
        if find_spec("ray") is None:
            raise InputError("--engine ray needs the package ray, which is not installed: pip install 'tuner[ray]'")
        address = self.address or ("auto" if os.environ.get("RAY_ADDRESS") or _current_cluster() else "")
        archive = self._archive(study_file) if address else ""
        self._start(own=not address)
        try:
            self._say(do="connect", address=address, archive=archive)
            told = self._answer("connected", CONNECT_SECONDS if address else BEGIN_SECONDS)
            if told["is"] != "connected":
                raise InputError(_unreachable(address, told["text"]))
            _refuse_infeasible(seat, told["nodes"], grows=told["grows"])
        except BaseException:
            self.close()
            raise
        self.ships, self._seat = bool(archive), seat
        _log.warning("%s", _begun(told["nodes"], own=not address))
        return _room_for(seat, told["nodes"])

    def compare(self, needs: Needs) -> None:
        """Raise InputError where a node lacks what the study needs."""
        modules = list(needs.modules) if self.ships else []
        files = [str(path) for path in (*needs.shared, *needs.local)]
        asked = {"modules": modules, "files": files, "packages": [*needs.packages, *ALWAYS_COMPARED]}
        # An actor of a gang has its place in the gang's group: none that answers now could be one later.
        seats = needs.seats if self._seat.world == 1 else 0
        self._say(do="facts", asked=asked, cpus=self._seat.cpus, gpus=self._seat.gpus, seats=seats)
        told = self._answer("facts", FACTS_SECONDS)
        if told["is"] != "facts":
            raise Paused(_lost(told["text"]))
        if told["errors"]:
            raise InputError("; ".join(told["errors"]))
        problems = [words for node in told["nodes"] for words in _unlike(node, told["here"], needs)]
        if problems:
            more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
            raise InputError("; ".join(problems[:8]) + more + "; nothing was trained")

    def start(self, seat: Seat, setup: Setup, task: StudyTask) -> None:
        """Start the actor of a seat; of a gang an actor for each rank, all of them at once."""
        ships = self.ships
        study_file = setup.study_file.name if ships else str(setup.study_file)
        folder = "" if ships else os.getcwd()
        order = SeatOrder(setup.as_json(), task.as_json(), folder, study_file, {})
        sent = order.as_json() | ({} if self.idle_seconds is None else {"idle_seconds": self.idle_seconds})
        each = {"cpus": seat.cpus, "gpus": seat.gpus, "world": seat.world}
        self._say(
            do="start", seat=seat.number, each=each, order=json.dumps(sent), threads=setup.machine.threads,
            name=f"ray-{os.getpid()}",
        )  # fmt: skip

    def events(self, timeout: float) -> Sequence[SeatEvent]:
        """What has happened since. Raises Paused where the cluster is lost."""
        for message in self._messages(timeout):
            self._known.extend(_events_of(message))
        known, self._known = self._known, []
        return known

    def ask_to_stop(self, seat: Seat) -> None:
        """Have what it trains saved and given back."""
        self._say(do="stop", seat=seat.number)

    def end(self, seat: Seat) -> None:
        """End its actor, or all those of a gang."""
        self._say(do="end", seat=seat.number)

    def close(self) -> None:
        """Leave the cluster, which ends all actors; a cluster of our own ends, too."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                piped(process.stdin).close()
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            piped(process.stdout).close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    # The driver

    def _archive(self, study_file: Path) -> str:
        """The file with what is shipped of the study's folder; said with its size."""
        self._folder = tempfile.TemporaryDirectory(prefix="tuner-ship-")
        archive = Path(self._folder.name) / "code.zip"
        _log.warning("%s", pack(study_file.resolve().parent, archive))
        return str(archive)

    def _start(self, *, own: bool) -> None:
        """Start the driver. What it is told by its environment has to be there before it imports Ray."""
        environment = worker_environment(1) | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": LOST_SECONDS,
        }
        if own:
            # Without it Ray takes an address of the machine that others can reach, also where it is told 127.0.0.1.
            environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            if "RAY_AUTH_MODE" not in os.environ and not _token_file().exists():
                _log.warning(
                    "Ray writes a token for its clusters into %s; RAY_AUTH_MODE=disabled leaves it out", _token_file()
                )
        command = [sys.executable, "-m", "tuner.execution.ray_driver"]
        pipe = subprocess.PIPE
        with blocked():
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)  # noqa: S603

    def _say(self, **message: object) -> None:
        with suppress(BrokenPipeError, ValueError, OSError):  # its end is noticed where its messages end
            stdin = piped(self._driver.stdin)
            stdin.write(line_of(message))
            stdin.flush()

    @property
    def _driver(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise Paused("the connection to the Ray cluster was closed; run the same command again to go on")
        return self._process

    def _answer(self, kind: str, seconds: float) -> Message:
        """The answer of this kind, or that it was refused or lost. Raises Paused where none comes in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for message in self._messages(0.2):
                if message["is"] in (kind, "refused", "lost"):
                    return message
                self._known.extend(_events_of(message))
        raise Paused(f"Ray did not answer within {seconds:g} s; run the same command again to go on")

    def _messages(self, timeout: float) -> list[Message]:
        """What the driver says within so many seconds. Raises Paused where it has ended."""
        stdout = piped(self._driver.stdout)
        if not select.select([stdout], [], [], timeout)[0]:
            return []
        piece = os.read(stdout.fileno(), 1 << 16)
        if not piece:
            raise Paused(_lost(f"its driver {exit_words(self._driver.wait())}"))
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [json.loads(line) for line in lines]


def _events_of(message: Message) -> list[SeatEvent]:
    kind = message["is"]
    if kind == "lost":
        raise Paused(_lost(message["text"]))
    if kind == "draining":
        return [SeatEvent("draining", message["seat"], seconds=message["seconds"])]
    if kind == "waiting":
        return [SeatEvent("waiting", message["seats"][0], _waiting(message))]
    if kind != "outcome":
        return []
    how = _KINDS.get(message["how"], "died")
    text = message.get("text", "") or (f"its process {exit_words(message.get('code', 0))}" if how == "died" else "")
    return [SeatEvent(how, message["seat"], text, message.get("kind", ""), message.get("name", ""))]


def _waiting(message: Message) -> str:
    """What seats without a place wait for, in words."""
    free, count, each = message["free"], len(message["seats"]), message["each"]
    seat = Seat(0, each["cpus"], each["gpus"], each["world"])
    there = f"free are {free['cpus']:g} CPUs and {free['gpus']:g} GPUs in all"
    if seat.world == 1:
        return f"{counted(count, seat.holder)} wait for {seat.words} each; {there}"
    who = f"{count} gangs of {seat.world}" if count > 1 else f"a {seat.holder}"
    return f"{who} wait{'s' * (count == 1)} for {seat.words} for each rank, all at once; {there}"


def _refuse_infeasible(seat: Seat, nodes: Sequence[Message], *, grows: bool) -> None:
    """Raise InputError where no node could ever have such a seat, or all nodes too few ranks, and none can be added."""
    if seat.world > 1 and not (seat.cpus or seat.gpus):
        raise InputError("--cpus 0 and --gpus 0 reserve no place for a rank of a gang; say what each rank needs")
    if grows:
        return
    there = ", ".join(f"{one['name']} has {one['cpus']:g} CPUs and {one['gpus']:g} GPUs" for one in nodes)
    whose = "a worker" if seat.world == 1 else f"a rank of a {seat.holder}"
    if not any(node["cpus"] >= seat.cpus and node["gpus"] >= seat.gpus for node in nodes):
        raise InputError(
            f"no node of the Ray cluster has {seat.words} for {whose}: {there}; say less with --cpus and --gpus, or "
            "add nodes that have them"
        )
    ranks = sum(_room(seat, node) for node in nodes)
    if seat.world > 1 and ranks < seat.world:
        raise InputError(
            f"a {seat.holder} needs {seat.words} for each rank, and the Ray cluster has room for "
            f"{counted(ranks, 'rank')}: {there}; say a smaller --gang, or less with --cpus and --gpus, or add nodes"
        )


def _room(seat: Seat, node: Message) -> int:
    """How many workers, or ranks of a gang, a node has room for."""
    shares = [node[kind] / asked for kind, asked in (("cpus", seat.cpus), ("gpus", seat.gpus)) if asked]
    return int(min(shares, default=0.0) + 1e-9)


def _room_for(seat: Seat, nodes: Sequence[Message]) -> int:
    """How many such seats the nodes have room for; a gang stays on one node where that is large enough."""
    rooms = [_room(seat, node) for node in nodes]
    within_nodes = sum(room // seat.world for room in rooms)
    return within_nodes or sum(rooms) // seat.world


def _unlike(node: Message, here: Message, needs: Needs) -> list[str]:
    """What is different on a node, in words that name it."""
    name, found = node["node"], []
    if node["python"] != here["python"]:
        found.append(f"node {name} has Python {node['python']}, and here it is {here['python']}")
    if not node["tuner"]:
        return [*found, f"node {name} has no tuner: pip install it there"]
    if node["versions"].get("tuner") != here["versions"].get("tuner"):
        mine = here["versions"].get("tuner")
        found.append(f"node {name} has tuner {node['versions'].get('tuner')}, and here it is {mine}")
    elif node["tuner"] != here["tuner"]:
        found.append(f"node {name} has tuner of the same version with other source files: install the same one there")
    wanted = dict(needs.packages) | {
        one: here["versions"][one] for one in ALWAYS_COMPARED[1:] if one in here["versions"]
    }
    for package, version in sorted(wanted.items()):
        there = node["versions"].get(package.lower().replace("_", "-"))
        if there is None:
            found.append(f"node {name} has no {package}, and here it is {version}")
        elif there.partition("+")[0] != version.partition("+")[0]:
            found.append(f"node {name} has {package} {there}, and here it is {version}")
    return found + _unlike_files(node, here, needs)


def _unlike_files(node: Message, here: Message, needs: Needs) -> list[str]:
    """Files and modules that a node does not have."""
    name, found = node["node"], []
    for module in node["missing"]:
        found.append(
            f"node {name} has no module {module}, which the study imports from {needs.modules[module]}, outside of its "
            "own folder: put it beside the study file, or install it on the nodes"
        )
    for path in map(str, needs.shared):
        if node["files"][path] != here["files"][path]:
            found.append(f"node {name} does not see {path} as it is here: name a --checkpoints folder that all see")
    if needs.local and node["boot"] != here["boot"]:
        found.append(
            f"node {name} is another machine, and {needs.local[0]} is an SQLite file of this one: several machines "
            "need PostgreSQL (--storage postgresql://...)"
        )
    return found


def _begun(nodes: Sequence[Mapping[str, Any]], *, own: bool) -> str:
    cpus, gpus = (sum(node[kind] for node in nodes) for kind in ("cpus", "gpus"))
    room = f"{cpus:g} CPUs and {gpus:g} GPUs"
    if own:
        return f"Ray: a cluster of this command's own on this machine, which listens on loopback only, with {room}"
    return f"Ray: a cluster of {counted(len(nodes), 'node')} with {room}"


def _unreachable(address: str, text: str) -> str:
    if not address:
        return f"Ray could not start a cluster on this machine: {text}"
    where = "the address of RAY_ADDRESS, or of `ray start`," if address == "auto" else address
    more = ""
    if "auth" in text.lower() or "token" in text.lower():
        more = "; a cluster with tokens takes RAY_AUTH_MODE=token and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
    return (
        f"no Ray cluster can be used at {where}: {text}{more}; this machine has to be one of its nodes "
        "(`ray start --address=HEAD:6379`, or run the command on the head node)"
    )


def _lost(text: str) -> str:
    return f"the Ray cluster is gone ({text}); once it is back, run the same command again to go on"


def _token_file() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _current_cluster() -> bool:
    """Whether `ray start` began a cluster on this machine that answers; Ray keeps its address in a file."""
    folder = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray"
    try:
        host, _, port = (folder / "ray_current_cluster").read_text(encoding="utf-8").strip().rpartition(":")
    except OSError:
        return False
    return bool(host) and _answers(host.strip("[]"), port)


def _answers(host: str, port: str) -> bool:
    with suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=3.0):
        return True
    return False
