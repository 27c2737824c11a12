"""What the commands that were started together (`execution.torchrun`) tell one another, by a store that all reach.

Rank 0 tells the others to start a process for each gang that it starts, and with which exit code all end. A rank whose
process was lost says so. All keys begin with the name of this start.
"""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore

from tuner import signals
from tuner.errors import Paused
from tuner.execution.gang_store import ASKING_SECONDS, hosted_store
from tuner.execution.remote_job import Setup
from tuner.execution.torchrun import Torchrun
from tuner.training.gang import Spot

MEETING_SECONDS = 300.0  # until all commands run: schedulers start them one after the other
LEAVING_SECONDS = 10.0  # for the others to read that this is the end
POLL_SECONDS = 0.2
_STORE_LOST = (dist.DistError, RuntimeError)
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class RankLost:
    """The process of a rank has ended, and so has the gang. code: its exit code; words: what it said."""

    rank: int
    code: int
    words: str


class LaunchedRanks:
    """The others, as the command of rank 0 sees them. Raises Paused where the store cannot be reached."""

    def __init__(self, place: Torchrun) -> None:
        self.place = place
        self.world = place.world
        self._store = _store_of(place, lambda: False)
        self._gangs = 0
        self._looked = 0.0

    def started(self, setup: Setup) -> Spot:
        """Have each of the others start a process that joins a new gang; where rank 0 joins it."""
        self._gangs += 1
        place = self.place
        spot = Spot(0, place.world, place.host, place.port, f"{place.name}/gang-{self._gangs}")
        told = replace(setup, url="", relay="", spot=spot.as_json())
        self._store.set(f"start-{self._gangs}", json.dumps(told.as_json()))
        return spot

    def lost(self) -> RankLost | None:
        """A rank of the present gang that says that its process has ended; looked for once a second."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return None
        self._looked = now
        key = f"lost-{self._gangs}"
        with suppress(*_STORE_LOST):  # the worker notices, too
            if self._store.check([key]):
                return RankLost(**json.loads(self._store.get(key)))
        return None

    def end(self, code: int) -> None:
        """Tell the others that this is the end, with the exit code of all; wait a moment until they know."""
        others = [f"left-{rank}" for rank in range(1, self.world)]
        end = time.monotonic() + LEAVING_SECONDS
        with suppress(*_STORE_LOST):
            self._store.set("end", str(code))
            while self.place.hosted is False and not self._store.check(others) and time.monotonic() < end:
                time.sleep(0.05)


class LaunchedFollower:
    """Rank 0's commands, as the command of another rank hears them. Raises Paused where rank 0 cannot be reached."""

    def __init__(self, place: Torchrun, stop: Stop) -> None:
        self.place = place
        self._store = _store_of(place, stop)
        self._gangs = 0

    def device(self, asked: str | None) -> str | None:
        """The device of this rank, where `asked` is what the command names. Raises InputError."""
        return self.place.device(asked, torch.cuda.device_count())

    def next_start(self) -> dict[str, Any] | None:
        """The setup of the next gang, as JSON, if rank 0 has started one. Raises Paused where rank 0 is gone."""
        told = self._told(f"start-{self._gangs + 1}")
        if told is None:
            return None
        self._gangs += 1
        setup: dict[str, Any] = json.loads(told)
        setup["spot"]["rank"] = self.place.rank
        return setup

    def end_code(self) -> int | None:
        """The exit code of all, once rank 0 has told it. Raises Paused where rank 0 is gone."""
        told = self._told("end")
        if told is None:
            return None
        with suppress(*_STORE_LOST):
            self._store.set(f"left-{self.place.rank}", "1")
        return int(told)

    def tell_lost(self, code: int, words: str) -> None:
        """That the process of this rank has ended."""
        with suppress(*_STORE_LOST):
            self._store.set(f"lost-{self._gangs}", json.dumps({"rank": self.place.rank, "code": code, "words": words}))

    def _told(self, key: str) -> bytes | None:
        try:
            return bytes(self._store.get(key)) if self._store.check([key]) else None
        except _STORE_LOST as error:
            raise Paused(
                f"rank 0, which tells what is trained, is gone from {self.place.host}:{self.place.port}; what it saved "
                "is kept: start all ranks again to go on"
            ) from error


def _store_of(place: Torchrun, stop: Stop) -> PrefixStore:
    """The store where all meet. Rank 0 hosts it where nobody else does, on the address that all were told."""
    if place.rank == 0 and not place.hosted:
        return PrefixStore(place.name, _hosted(place))
    _wait_for(place, stop)
    with signals.blocked():
        return PrefixStore(
            place.name, TCPStore(place.host, place.port, is_master=False, timeout=timedelta(seconds=ASKING_SECONDS))
        )


def _hosted(place: Torchrun) -> TCPStore:
    try:
        return hosted_store(place.host, place.port)[0]
    except OSError as error:
        raise Paused(
            f"rank 0 cannot listen at MASTER_ADDR={place.host}, MASTER_PORT={place.port} ({error.strerror or error}): "
            "that is an address of the machine of rank 0, and a port that nobody uses there"
        ) from error


def _wait_for(place: Torchrun, stop: Stop) -> None:
    """Until the store answers: here, where signals are heard, and not in torch."""
    end = time.monotonic() + MEETING_SECONDS
    while not stop():
        try:
            socket.create_connection((place.host, place.port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise Paused(
                    f"rank {place.rank} waited {MEETING_SECONDS:.0f} s, and nobody answers at "
                    f"MASTER_ADDR={place.host}, MASTER_PORT={place.port} ({error.strerror or error})"
                ) from error
            time.sleep(POLL_SECONDS)
    raise Paused("stopped before rank 0 had begun")
