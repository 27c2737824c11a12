"""The actors of a seat on Ray, as the driver starts them and hears how they end: one, or one for each rank of a gang.

The actors of a gang have a placement group, so that all of them have a place or none has. Rank 0 is a seat like any
other, whose coordinator listens for the other ranks; where it listens is passed on to them. Ray starts none of them
again: no rank can go on without the others, so the seat ends with the first that does, and the command asks for a new
one.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tuner.execution.channel import Message
from tuner.execution.ray_seat import LOOPBACK, NODE, RaySeat

THREADS = 4  # of an actor: one works, the others answer
MATES_SECONDS = 5.0  # for the other ranks to say why a gang has ended
LATE_SECONDS = 15.0  # for rank 0 to give back what it holds, once another rank has ended


@dataclass(frozen=True, slots=True)
class Call:
    """What the actors of a seat are called with."""

    seat: int
    order: str
    threads: int
    name: str

    @property
    def words(self) -> tuple[str, int, str]:
        """What each of them is given."""
        return self.order, self.threads, self.name


class SeatActors:
    """The actors of a seat, rank 0 first.

    reach: whence rank 0 has to be reached by the others; "" where it is alone.
    """

    def __init__(self, actors: Sequence[Any], group: PlacementGroup | None = None, reach: str = "") -> None:
        self.head, *self.mates = actors
        self.group = group
        self.reach = reach
        self._loss: Message | None = None  # how the first of the other ranks ended, where it should not have
        self._late = 0.0  # when rank 0 is ended that has not given back what it holds

    def __iter__(self) -> Iterator[Any]:
        yield self.head
        yield from self.mates

    def note_end_of(self, rank: int, told: Message) -> None:
        """Another rank than the first has ended. Where rank 0 did not say so, it has to give back what it holds."""
        if told["how"] == "ended" or self._loss is not None:
            return
        self._loss = told | {"text": f"rank {rank} of a gang: {told['text']}"}
        self._late = time.monotonic() + LATE_SECONDS
        self.head.lose.remote(self._loss["text"])

    def end_if_late(self, now: float) -> None:
        """End a rank 0 that does not end by itself, though another rank has."""
        if self._loss is not None and now > self._late:
            _kill(self.head)

    def outcome(self, told: Message, working: Sequence[Any]) -> Message:
        """How the seat ended, where rank 0 told this and the other ranks still return those references.

        What another rank was refused, as a package that is not on its node, counts for more than that rank 0 lost it.
        """
        if told["how"] != "died":
            return told
        done = ray.wait(list(working), num_returns=len(working), timeout=MATES_SECONDS)[0] if working else []
        for other in filter(None, [self._loss, *map(told_by, done)]):
            if other["how"] == "fault":
                return other
        return self._loss or told

    def end(self) -> None:
        """End all of them, and give back their places."""
        for actor in self:
            _kill(actor)
        if self.group is not None:
            with suppress(RayError):
                remove_placement_group(self.group)


def new_actor(cpus: float, gpus: float, **more: object) -> Any:
    """An actor with so much of a node."""
    made: Any = ray.remote(RaySeat)
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_concurrency": THREADS, "max_task_retries": -1, **more}
    return made.options(**options).remote()


def gang_actors(cpus: float, gpus: float, world: int, nodes: Sequence[Mapping[str, float]]) -> SeatActors:
    """The actors of `world` ranks: all on one node where any is large enough, else on as few as have room.

    nodes: what each has in all. The placement group ends with the driver. Until there is room for all of it none of the
    actors has a place.
    """
    bundle = {kind: amount for kind, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    packed = any(all(node.get(kind, 0.0) >= world * amount for kind, amount in bundle.items()) for node in nodes)
    group = placement_group([dict(bundle) for _ in range(world)], strategy="STRICT_PACK" if packed else "PACK")
    actors = []
    for place in range(world):
        there = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)
        once = {"max_restarts": 0, "max_task_retries": 0}
        actors.append(new_actor(cpus, gpus, scheduling_strategy=there, **once))
    return SeatActors(actors, group, LOOPBACK if packed else NODE)


def told_by(reference: Any) -> Message:
    """How an actor says that it ended, or how Ray says it."""
    try:
        told: Message = json.loads(ray.get(reference))
    except RayActorError as error:
        told = {"how": "died", "text": first_lines(error)}
    except RayError as error:
        told = {"how": "fault", "kind": "fault", "name": "", "text": first_lines(error)}
    told.pop("is", None)
    return told


def first_lines(error: BaseException) -> str:
    """What an error says, short and on one line."""
    return " ".join(str(error).split())[:600]


def _kill(actor: Any) -> None:
    with suppress(RayError):
        ray.kill(actor, no_restart=True)
