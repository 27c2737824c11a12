"""The ranks of one trial: processes that train it together, in lockstep, and what they tell one another.

Rank 0 owns the trial. It tells the others, which follow, what to do next, by a store of keys and values that all can
reach; between two commands any length of time may pass. Within a command they meet in exchanges of a group of
processes: each rank takes part in each of them, in the same order.

Each update has a control exchange, after a rank has computed its own slices and before their gradients are exchanged:
a few bytes of each rank for all, which say whether it goes on. So an error on one rank, or a wish to stop, is known to
all in the same update, and all leave together. A rank whose code raised an error answers the control exchange that the
others are in, or come to next, with FAILED.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore

from tuner.errors import GangLost, TunerError
from tuner.failpoints import failpoint

PIECE = 1 << 28  # bytes of a large payload that are sent at a time
HEAD = 8  # bytes of what a rank says in a control exchange that hold its flag
LOOK_SECONDS = 1.0  # between two looks at what others may have left in the store
_GLOOS_PLACE = re.compile(r"\[[^]]*\.(cc|cpp|h):\d+\] *")  # in its source: nothing for the user
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0005, 0.05  # seconds between two looks at what is waited for
MEETING_SECONDS = 10.0  # within which all ranks notice that they lost the same one, also on a busy machine


class Flag(IntEnum):
    """What a rank says in a control exchange. The largest one decides."""

    GO = 0
    PAUSE = 1  # leave after this update, to go on later
    STOP = 2  # leave after this update, to save and end
    DONE = 3  # all updates of the block were made
    FAILED = 4  # its own code raised an error


class MateFailed(TunerError):
    """Another rank has failed; which, and why, is known at the end of the command."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one rank of a gang stands, and where its store listens.

    name: in front of all keys of the gang.
    """

    rank: int
    world: int
    host: str = "127.0.0.1"
    port: int = 0
    name: str = "gang"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Gang:
    """The ranks of one trial, joined.

    device: what this rank computes on. wish: what it would like, asked at each update: GO, PAUSE or STOP. leaving: what
    was decided by all at the last one. asked_to_stop: some rank was told to end.
    """

    def __init__(self, spot: Spot, store: Any, device: torch.device) -> None:
        self.rank, self.world = spot.rank, spot.world
        self.device = device
        self.store = store
        self.control = dist.group.WORLD  # of gloo
        self.large = self.control  # exchanges gradients
        self.wish: Callable[[], Flag] = lambda: Flag.GO
        self.leaving = Flag.GO
        self.shards: Any = None  # the group in which shards of models are exchanged, once there is one
        self.timeout: timedelta | None = None  # of an exchange
        self.asked_to_stop = False
        self.told = 0  # commands so far
        self._size = 0
        self._looked = 0.0

    @classmethod
    def joined(cls, spot: Spot, device: torch.device, seconds: float) -> "Gang":
        """Join the others, which is waited for so long; as long an exchange may take. Raises GangLost."""
        timeout = timedelta(seconds=seconds)
        with _lost("the ranks of the gang did not come together"):
            hosted = TCPStore(spot.host, spot.port, is_master=False, timeout=timeout)
            store: Any = PrefixStore(spot.name, hosted)
            _meet(store, spot, seconds)
            dist.init_process_group(
                "gloo",
                store=PrefixStore("group", store),
                rank=spot.rank,
                world_size=spot.world,
                timeout=timeout,
            )
            gang = cls(spot, store, device)
            gang.timeout = timeout
            gang.large = gang._group_of_gradients(timeout)
        return gang

    def _group_of_gradients(self, timeout: timedelta) -> Any:
        """NCCL where each rank has a GPU of its own; else gloo, which can share one and works on CPUs."""
        if self.device.type != "cuda":
            return self.control
        mine = str(torch.cuda.get_device_properties(self.device).uuid).encode()
        all_distinct = len(set(self.all_of(mine))) == self.world
        if not all_distinct or not dist.is_nccl_available():
            return self.control
        return dist.new_group(backend="nccl", timeout=timeout)

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    # What rank 0 tells, and the others hear

    def tell(self, do: str, **fields: object) -> None:
        """Tell all others the next command."""
        self.told += 1
        with _lost("the store of the gang is gone"):
            self.store.set(f"command-{self.told}", json.dumps({"do": do, **fields}))
            if self.told > 1:
                self.store.delete_key(f"command-{self.told - 1}")  # all have ended it, and so have read it

    def hear(self, stop: Callable[[], bool]) -> dict[str, Any]:
        """The next command of rank 0. Where `stop()` becomes true meanwhile, rank 0 is told. Raises GangLost."""
        key, waited, asked = f"command-{self.told + 1}", time.monotonic(), -math.inf
        with _lost("rank 0 of the gang is gone"):
            while not self.store.check([key]):
                now = time.monotonic()
                if now - asked >= LOOK_SECONDS:
                    asked = now
                    if stop():
                        self.ask_to_stop()
                time.sleep(pause_after(now - waited))
            self.told += 1
            heard: dict[str, Any] = json.loads(self.store.get(key))
        return heard

    def ask_to_stop(self) -> None:
        """Have all ranks save and end, wherever they are."""
        if not self.asked_to_stop:
            self.asked_to_stop = True
            with _lost("the store of the gang is gone"):
                self.store.set("stop", "1")

    def stops(self, own: Callable[[], bool]) -> Callable[[], bool]:
        """Whether this rank was told to end, or another one was. Asked often; the store now and then.

        Within an update it is decided by all in an exchange instead, because each looks at another moment.
        """

        def stop() -> bool:
            if own():  # asked always: it may be a sign of life, too
                self.ask_to_stop()
            now = time.monotonic()
            if not self.asked_to_stop and now - self._looked > LOOK_SECONDS:
                self._looked = now
                with _lost("the store of the gang is gone"):
                    self.asked_to_stop = bool(self.store.check(["stop"]))
            return self.asked_to_stop

        return stop

    def leave(self) -> None:
        """Have all others leave the command that is under way, where they look for it, as this rank does."""
        with _lost("the store of the gang is gone"):
            self.store.set(f"left-{self.told}", "1")

    def left_by_others(self) -> Callable[[], bool]:
        """Whether a rank has left the command that is under way. Asked often; the store now and then."""
        key, looked = f"left-{self.told}", time.monotonic()

        def left() -> bool:
            nonlocal looked
            if time.monotonic() - looked < LOOK_SECONDS:
                return False
            looked = time.monotonic()
            with _lost("the store of the gang is gone"):
                return bool(self.store.check([key]))

        return left

    # Exchanges of all ranks

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """Around each exchange: raises GangLost, with the ranks that do not answer, where it fails.

        It fails at once where a process ended, whose connections are closed, and after the timeout where one hangs.
        """
        try:
            yield
        except (dist.DistError, RuntimeError) as error:
            said = _GLOOS_PLACE.sub("", str(error).partition("\n")[0]).partition(". ")[0][:200]
            raise GangLost(f"{self._missing()} ({said})") from error

    def _missing(self) -> str:
        """Which ranks are gone or hang, in words, at rank 0; the others leave at once.

        Only neighbours notice that a process has ended, so each that leaves makes its own neighbours notice.
        """
        others = [rank for rank in range(self.world) if rank != self.rank]
        end = time.monotonic() + MEETING_SECONDS
        try:
            self.store.set(f"lost-{self.rank}", "1")
            while self.rank == 0 and len(others) > 1 and time.monotonic() < end:
                others = [rank for rank in others if not self.store.check([f"lost-{rank}"])]
                time.sleep(LONGEST_PAUSE)
        except (dist.DistError, RuntimeError):
            return "a rank of the gang is gone, and so is its store"
        if not others:
            return "the ranks of the gang have lost one another"
        which = f"rank {others[0]}" if len(others) == 1 else f"one of the ranks {', '.join(map(str, others))}"
        return f"{which} of the gang ended, or did not answer in time"

    def share(self, slices: int) -> range:
        """The slices of this rank: they follow one another, and are a subtree of `tree_sum`."""
        each = slices // self.world
        return range(self.rank * each, (self.rank + 1) * each)

    def open(self, payload: int) -> None:
        """Fix how many bytes each rank may say in a control exchange besides its flag, for a whole trial."""
        self._size = HEAD + -(-payload // HEAD) * HEAD  # so that what each rank says can be read as float64

    def exchanged(self, flag: Flag, payload: torch.Tensor | None = None) -> torch.Tensor:
        """What each rank says now: uint8 [world, payload], with zeros behind what it says.

        Raises MateFailed where another rank says FAILED, and GangLost where one does not answer in time.
        """
        mine = torch.zeros(self._size, dtype=torch.uint8)
        mine[0] = int(flag)
        if payload is not None:
            mine[HEAD : HEAD + len(payload)] = payload
        said = torch.empty(self.world * self._size, dtype=torch.uint8)
        failpoint("gang-exchange")
        with self.exchanging():
            all_gather(said, mine, group=self.control)
        failpoint("gang-exchanged")
        rows = said.view(self.world, self._size)
        decided = Flag(int(rows[:, 0].max()))
        self.leaving = max(decided, self.leaving) if decided in (Flag.PAUSE, Flag.STOP) else self.leaving
        self.asked_to_stop |= decided is Flag.STOP
        if decided is Flag.FAILED and flag is not Flag.FAILED:
            raise MateFailed("another rank of the gang has failed")
        return rows[:, HEAD:]

    def all_of(self, data: bytes) -> list[bytes]:
        """A few bytes of each rank, for all."""
        sizes = torch.empty(self.world, dtype=torch.int64)
        with self.exchanging():
            all_gather(sizes, torch.tensor([len(data)]), group=self.control)
            longest = int(sizes.max())
            mine = torch.zeros(longest, dtype=torch.uint8)
            mine[: len(data)] = _bytes(data)
            said = torch.empty(self.world * longest, dtype=torch.uint8)
            all_gather(said, mine, group=self.control)
        rows = said.view(self.world, longest)
        return [rows[rank, : int(sizes[rank])].numpy().tobytes() for rank in range(self.world)]

    def gathered(self, data: bytes) -> list[bytes]:
        """What each rank says, at rank 0; nothing elsewhere. Any number of bytes."""
        sizes = [int(size) for size in self.all_of(str(len(data)).encode())]
        with self.exchanging():
            if self.rank:
                for piece in _pieces(_bytes(data)):
                    dist.send(piece, 0, group=self.control)
                return []
            found = [data]
            for rank in range(1, self.world):
                room = torch.empty(sizes[rank], dtype=torch.uint8)
                for piece in _pieces(room):
                    dist.recv(piece, rank, group=self.control)
                found.append(room.numpy().tobytes())
        return found

    def send(self, data: bytes | memoryview) -> None:
        """At rank 0: a large payload for all others, who call `received`."""
        self._broadcast(_bytes(data))

    def received(self) -> bytes:
        """At the others: what rank 0 sends."""
        return self._broadcast(None).numpy().tobytes()

    def _broadcast(self, data: torch.Tensor | None) -> torch.Tensor:
        with self.exchanging():
            size = torch.tensor([0 if data is None else len(data)])
            dist.broadcast(size, 0, group=self.control)
            room = torch.empty(int(size), dtype=torch.uint8) if data is None else data
            for piece in _pieces(room):
                dist.broadcast(piece, 0, group=self.control)
        return room


def _meet(store: Any, spot: Spot, seconds: float) -> None:
    """Wait until all ranks are there, so that the group is made quickly; meanwhile this process hears its signals."""
    store.set(f"here-{spot.rank}", "1")
    others = [rank for rank in range(spot.world) if rank != spot.rank]
    began = time.monotonic()
    while others := [rank for rank in others if not store.check([f"here-{rank}"])]:
        waited = time.monotonic() - began
        if waited > seconds:
            missing = ", ".join(map(str, others))
            raise GangLost(f"not all ranks of the gang have started within {seconds:.0f} s; there is no rank {missing}")
        time.sleep(pause_after(waited))


def pause_after(seconds: float) -> float:
    """How long to sleep before the next look at the store, after so many seconds: 5 % of them, within bounds.

    The store's own `wait` does not let this process hear its signals, and prints a warning each time it ends.
    """
    return min(max(seconds / 20, SHORTEST_PAUSE), LONGEST_PAUSE)


# Its name from torch 2.13 on.
all_gather: Callable[..., Any] = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)


class _lost(AbstractContextManager[None]):  # noqa: N801 - reads as a statement
    """An error of torch.distributed within the block is that the gang is lost; what `words` say comes first."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, dist.DistError | RuntimeError) and not isinstance(error, TunerError):
            raise GangLost(f"{self.words}: {str(error).partition(chr(10))[0][:200]}") from error


def _bytes(data: bytes | memoryview) -> torch.Tensor:
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data if isinstance(data, memoryview) else bytearray(data), dtype=torch.uint8)


def _pieces(data: torch.Tensor) -> Sequence[torch.Tensor]:
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


def spot_from(data: Mapping[str, Any]) -> Spot:
    """The value that `Spot.as_json` wrote."""
    return Spot(**data)
