"""The driver of a Ray cluster: `python -m tuner.execution.ray_driver`, which a command starts and speaks with by JSON.

It is a process of its own, so that the command, which loads the study and forks, has none of Ray's threads; and because
Ray ends the process of a driver when its head node is lost, which here is a message that ends.

It knows seats by their numbers and nothing of trials. Where its standard input ends, it leaves the cluster, and with it
all actors end.
"""

import hashlib
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuner import system
from tuner.execution.channel import Channel
from tuner.execution.ray_actors import Call, SeatActors, first_lines, gang_actors, new_actor, told_by
from tuner.signals import ignore_signals

POLL_SECONDS = 0.2
DRAIN_SECONDS = 1.0  # between two looks at nodes that go down
SAID_SECONDS = 60.0  # between two words about seats that wait
ASK_SECONDS = 120.0  # for an answer of a node, whose first worker may have to start
WHERE_SECONDS = 5.0
SEAT_SECONDS = 60.0  # for an actor to have its place and to answer, on a node that has room
SPARE_SECONDS = 20.0  # for an actor that answered to be a seat
REACH_SECONDS = 10.0  # for a connection to an address
INIT_TRIES = 3  # Ray does not always start on a busy machine

_ray: Any = ray  # some of what is used is not typed
Message = dict[str, Any]


def main() -> None:
    """Do what the command says, until it is gone."""
    system.end_with_the_parent()
    channel = Channel(os.dup(1))
    with open(os.devnull, "wb") as nothing:  # what Ray prints is no message: it reports workers that end as planned
        os.dup2(nothing.fileno(), 1)
    ignore_signals()  # the command hears them, and says what is to be done
    words: queue.Queue[Message | None] = queue.Queue()
    threading.Thread(target=_listen, args=(words,), daemon=True).start()
    driver = _Driver(channel)
    try:
        driver.work(words)
    except (RayError, ConnectionError, RuntimeError, OSError, ValueError) as error:
        channel.send("lost", text=f"{type(error).__name__}: {first_lines(error)}")
    _leave()


def _leave() -> None:
    """Leave the cluster, and end even where Ray's own end hangs."""
    timer = threading.Timer(20.0, os._exit, (1,))
    timer.daemon = True
    timer.start()
    with suppress(Exception):
        ray.shutdown()
    os._exit(0)


def _listen(words: "queue.Queue[Message | None]") -> None:
    for line in sys.stdin:
        words.put(json.loads(line))
    words.put(None)


class _Driver:
    """The actors of the seats, by number, and what they were last asked for."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.actors: dict[int, SeatActors] = {}
        self.working: dict[Any, tuple[int, int]] = {}  # seat and rank, by the reference of what an actor returns
        self.spots: dict[Any, Call] = {}  # what mates are asked, by the reference of where rank 0 listens for them
        self.placed: dict[int, Any] = {}  # of seats that have no place yet: what tells that they have
        self.spare: list[Any] = []  # actors that answered for their nodes, and are no seat yet
        self.spare_until = 0.0
        self.drained: set[str] = set()
        self.code: Any = None  # the reference of the archive with the study's folder
        self.each: Message = {}  # what a seat needs
        self.looked = self.said = time.monotonic()

    def work(self, words: "queue.Queue[Message | None]") -> None:
        while True:
            with suppress(queue.Empty):
                message = words.get(timeout=0.0 if self.working else POLL_SECONDS)
                if message is None:
                    return
                getattr(self, f"do_{message.pop('do')}")(**message)
                continue
            self._tell_outcomes()
            now = time.monotonic()
            if self.spare and now > self.spare_until:
                self._end_spare()
            if self.actors and now - self.looked > DRAIN_SECONDS:
                self.looked = now
                self._look_at_nodes()
                for actors in self.actors.values():
                    actors.end_if_late(now)

    # What a command may say

    def do_connect(self, address: str, archive: str) -> None:
        """Connect to a cluster, or start one on this machine where there is no address.

        archive: the file with the code that is sent; "" for none. Ray's own `working_dir` is not used: it has each
        process of a node start twice, and none that waits already can be taken.
        """
        try:
            self._connect(address)
            self.code = ray.put(Path(archive).read_bytes()) if archive else b""
        except (ConnectionError, RuntimeError, OSError, ValueError, RayError) as error:
            self.channel.send("refused", text=f"{type(error).__name__}: {first_lines(error)}")
            return
        nodes = [_described(node) for node in _ray.nodes() if node["Alive"]]
        self.channel.send("connected", nodes=nodes, grows=_may_grow())

    def _connect(self, address: str) -> None:
        known: Message = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address not in ("", "auto"):
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
        if address:
            os.chdir("/")  # else the nodes would look for modules in a folder of this name
            ray.init(address=None if address == "auto" else address, **known)
            return
        for left in reversed(range(INIT_TRIES)):
            try:
                ray.init(address="local", include_dashboard=False, **known)
                break
            except Exception:
                with suppress(Exception):
                    ray.shutdown()
                if not left:
                    raise
        self._refuse_open_cluster()

    def _refuse_open_cluster(self) -> None:
        """Raise RuntimeError where the cluster that was started here does not listen on loopback alone."""
        found = [node["NodeManagerAddress"] for node in _ray.nodes()]
        if any(not _is_loopback(one) for one in found):
            ray.shutdown()
            raise RuntimeError(f"Ray listens on {', '.join(found)} and not on loopback alone; start a cluster yourself")

    def do_facts(self, asked: Mapping[str, list[str]], cpus: float, gpus: float, seats: int) -> None:
        """What each node has, before anything is trained there.

        asked: what `facts` is given. cpus, gpus: of each of so many seats. Nodes where they will be are asked by their
        actors, the others by tasks.
        """
        alive = [node for node in _ray.nodes() if node["Alive"] and _has_room(node)]
        given = (asked["modules"], asked["files"], asked["packages"])
        found = self._told_by_seats(alive, (facts, *given), {"CPU": cpus, "GPU": gpus}, seats)
        answers = {}
        for node in alive:
            if node["NodeID"] in found:
                continue
            there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            call = ray.remote(num_cpus=0, max_retries=2)(facts)
            answers[node["NodeID"]] = call.options(scheduling_strategy=there).remote(*given)
        errors = []
        for node in [node for node in alive if node["NodeID"] in answers]:
            try:
                found[node["NodeID"]] = ray.get(answers[node["NodeID"]], timeout=ASK_SECONDS)
            except (RayError, GetTimeoutError) as error:
                errors.append(f"node {_name(node)}: {first_lines(error)}")
        told = [{**json.loads(found[one["NodeID"]]), "node": _name(one)} for one in alive if one["NodeID"] in found]
        self.channel.send("facts", nodes=told, errors=errors, here=json.loads(facts(*given)))

    def _told_by_seats(
        self, nodes: Sequence[Mapping[str, Any]], question: Sequence[Any], each: Mapping[str, float], seats: int
    ) -> dict[str, str]:
        """What nodes have, as actors tell that will be seats there; by node.

        A task has a process of its own, which no actor can take afterwards. As few nodes are asked as have room for the
        seats, and none that goes down.
        """
        self._end_spare()
        self.drained = set()
        free, draining, asked = _free_of_nodes(), _draining_nodes(), {}
        for node in [one["NodeID"] for one in nodes if one["NodeID"] not in draining]:
            room = min((int(free.get(node, {}).get(kind, 0.0) / one) for kind, one in each.items() if one), default=0)
            if room and seats > 0:
                seats -= room
                there = NodeAffinitySchedulingStrategy(node_id=node, soft=True)
                actor = new_actor(each["CPU"], each["GPU"], max_restarts=-1, scheduling_strategy=there)
                asked[node] = (actor, actor.answer.remote(*question), actor.node.remote())
        if asked:
            ray.wait(
                [one for _, *both in asked.values() for one in both], num_returns=2 * len(asked), timeout=SEAT_SECONDS
            )
        told = {}
        for node, (actor, *both) in asked.items():
            with suppress(RayError):
                answer, where = ray.get(both, timeout=0.0)
                if where == node:
                    told[node] = answer
                    self.spare.append(actor)
                    continue
            ray.kill(actor, no_restart=True)  # another took its room, or no tuner is there: a task can say
        self.spare_until = time.monotonic() + SPARE_SECONDS
        return told

    def _end_spare(self) -> None:
        while self.spare:
            with suppress(RayError):
                ray.kill(self.spare.pop(), no_restart=True)

    def do_start(self, seat: int, each: Message, order: str, threads: int, name: str) -> None:
        """Start the actors of a seat. A worker is started again by Ray, with the same order, where it or its node dies.

        each: `cpus` and `gpus` of each of `world` ranks, which are on one node where any that stays is large enough.
        """
        self.do_end(seat)
        self.each = each
        call = Call(seat, order, threads, f"{name}-{ray.get_runtime_context().get_job_id()}")
        if each["world"] > 1:
            draining = _draining_nodes()
            stay = [node["Resources"] for node in _ray.nodes() if node["Alive"] and node["NodeID"] not in draining]
            actors = self.actors[seat] = gang_actors(**each, nodes=stay)
            self.spots[actors.head.spot.remote()] = call
        else:
            actor = self.spare.pop(0) if self.spare else new_actor(each["cpus"], each["gpus"], max_restarts=-1)
            actors = self.actors[seat] = SeatActors([actor])
        self.placed[seat] = actors.head.node.remote()
        self.working[actors.head.work.remote(*call.words, self.code, actors.reach)] = (seat, 0)

    def do_stop(self, seat: int) -> None:
        """Ask rank 0, which tells the others."""
        if seat in self.actors:
            self.actors[seat].head.ask_to_stop.remote()

    def do_end(self, seat: int) -> None:
        """End the actors of a seat for good."""
        actors = self.actors.pop(seat, None)
        self.placed.pop(seat, None)
        self.working = {reference: one for reference, one in self.working.items() if one[0] != seat}
        self.spots = {reference: call for reference, call in self.spots.items() if call.seat != seat}
        if actors is not None:
            actors.end()

    # What it sees by itself

    def _tell_outcomes(self) -> None:
        awaited = [*self.working, *self.spots]
        if not awaited:
            return
        done, _ = ray.wait(awaited, num_returns=1, timeout=POLL_SECONDS)
        for reference in done:
            if reference in self.spots:
                self._begin_mates(self.spots.pop(reference), reference)
                continue
            seat, rank = self.working.pop(reference)
            told = told_by(reference)
            if rank:
                self.actors[seat].note_end_of(rank, told)
            else:
                self.channel.send("outcome", seat=seat, **self.actors[seat].outcome(told, self._mates_of(seat)))

    def _begin_mates(self, call: Call, spot: Any) -> None:
        """Start the other ranks of a gang, now that it is known where rank 0 listens for them."""
        with suppress(RayError):  # it died: what it works on says so
            where = ray.get(spot)
            for rank, mate in enumerate(self.actors[call.seat].mates if where else (), 1):
                self.working[mate.follow.remote(*call.words, self.code, rank, where)] = (call.seat, rank)

    def _mates_of(self, seat: int) -> list[Any]:
        """References of what the other ranks of a seat return, that still work."""
        return [reference for reference, (one, rank) in self.working.items() if one == seat and rank]

    def _look_at_nodes(self) -> None:
        """Tell of seats on nodes that go down, and now and then of those that have no place yet."""
        there = [seat for seat, reference in self.placed.items() if ray.wait([reference], timeout=0.0)[0]]
        for seat in there:
            del self.placed[seat]
        draining = _draining_nodes()
        if set(draining) - self.drained:
            self._tell_of_drained(draining)
        self.drained = set(draining)
        if self.placed and time.monotonic() - self.said > SAID_SECONDS:
            self.said = time.monotonic()
            self.channel.send("waiting", seats=sorted(self.placed), free=_free(), each=self.each)

    def _tell_of_drained(self, draining: Mapping[str, float]) -> None:
        """Tell of seats of which any actor is on a node that goes down."""
        there = {seat: actors for seat, actors in self.actors.items() if seat not in self.placed}
        asked = {one.node.remote(): seat for seat, actors in there.items() for one in actors}
        ray.wait(list(asked), num_returns=len(asked), timeout=WHERE_SECONDS)
        soonest: dict[int, float] = {}
        for reference, seat in asked.items():
            with suppress(RayError):
                node = ray.get(reference, timeout=0.0)
                if node in draining:
                    soonest[seat] = min(draining[node], soonest.get(seat, draining[node]))
        for seat, seconds in soonest.items():
            self.channel.send("draining", seat=seat, seconds=seconds)


def facts(modules: list[str], files: list[str], packages: list[str]) -> str:
    """What a machine has, as JSON. It also runs where tuner is not installed, so it uses nothing of it."""
    versions: dict[str, str] = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            versions[name.lower().replace("_", "-")] = version(name)
    found = find_spec("tuner")
    places = list(found.submodule_search_locations or ()) if found else []
    source = hashlib.sha256()
    for path in sorted(Path(places[0]).rglob("*.py")) if places else []:
        source.update(str(path.relative_to(places[0])).encode() + b"\0" + path.read_bytes())
    digests: dict[str, str | None] = {}
    for name in files:
        try:
            with open(name, "rb") as file:
                digests[name] = hashlib.sha256(file.read(100_000)).hexdigest()
        except OSError:
            digests[name] = None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    missing = [name for name in modules if find_spec(name.partition(".")[0]) is None]
    python = ".".join(map(str, sys.version_info[:3]))
    return json.dumps({
        "python": python, "versions": versions, "tuner": source.hexdigest() if places else "", "files": digests,
        "boot": boot, "missing": missing,
    })  # fmt: skip


def _draining_nodes() -> dict[str, float]:
    """Nodes that go down, with the seconds that are left; 0 where nobody knows. Ray has no public call for it."""
    asked = getattr(_ray._private.state.state, "get_draining_nodes", None)
    found: Mapping[str, int] = {} if asked is None else asked()
    return {node: max(0.0, at / 1e3 - time.time()) if at else 0.0 for node, at in found.items()}


def _may_grow() -> bool:
    """Whether an autoscaler has told the cluster which nodes it could add."""
    try:
        return _ray._private.state.state.get_cluster_config() is not None
    except Exception:  # private, and different in each version
        return False


def _described(node: Mapping[str, Any]) -> Message:
    resources = node["Resources"]
    return {"name": _name(node), "cpus": resources.get("CPU", 0.0), "gpus": resources.get("GPU", 0.0)}


def _has_room(node: Mapping[str, Any]) -> bool:
    return bool(node["Resources"].get("CPU") or node["Resources"].get("GPU"))


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _free() -> Message:
    with suppress(Exception):
        found = _ray.available_resources()
        return {"cpus": found.get("CPU", 0.0), "gpus": found.get("GPU", 0.0)}
    return {"cpus": 0.0, "gpus": 0.0}


def _free_of_nodes() -> dict[str, dict[str, float]]:
    """What is free, by node; Ray has no public call for it."""
    with suppress(Exception):
        return dict(_ray._private.state.available_resources_per_node())
    return {}


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("::1", "localhost")


if __name__ == "__main__":
    main()
