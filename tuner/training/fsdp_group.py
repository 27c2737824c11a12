"""The group of processes in which a model in shards is gathered and summed, and how all leave it at an error.

An error of a user's code on one rank finds the others in an exchange of torch's own, which would wait for its timeout.
So whoever fails closes its connections of this group, which ends the exchanges of the others at once; then all meet in
a control exchange of the gang, which has connections of its own.
"""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tuner.errors import GangLost
from tuner.training.gang import LOOK_SECONDS, Flag, Gang, MateFailed, all_gather

_OPEN = Path("/dev/fd")  # of this process, on Linux and macOS
_WORDS = ("gloo", "NCCL", "nccl", "process group", "ProcessGroup")  # in errors of torch.distributed


class ShardGroup:
    """A group of all ranks of a gang; made by all of them at the same time.

    broken: a rank has failed within it, so that the next trial needs another one.
    """

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        self.broken = False
        self.is_nccl = gang.large is not gang.control
        before = _sockets()
        with gang.exchanging():
            self.group: Any = dist.new_group(backend="nccl" if self.is_nccl else "gloo", timeout=gang.timeout)
        self._connections = _sockets() - before
        self._key = f"shards-failed-{gang.told}"

    def gathered(self, mine: torch.Tensor) -> torch.Tensor:
        """A few numbers of each rank, for all: [world, ...]."""
        said = mine.new_empty(self.gang.world * mine.numel())
        all_gather(said, mine.reshape(-1).contiguous(), group=self.group)
        return said.view(self.gang.world, *mine.shape)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around code of users in which torch exchanges shards: all ranks leave the block, or none does.

        Raises the error of this rank, MateFailed where another one has failed, GangLost where one is gone.
        """
        gang = self.gang
        try:
            with self._watched():
                yield
            gang.exchanged(Flag.DONE)
        except (MateFailed, GangLost):
            self.broken = True
            raise
        except Exception as error:
            self.broken = True
            self._leave()
            gang.exchanged(Flag.FAILED)
            if _is_of_the_group(error):
                raise MateFailed("another rank of the gang has failed") from error
            raise

    def close(self) -> None:
        """Leave the group."""
        with suppress(Exception):
            dist.destroy_process_group(self.group)

    def _leave(self) -> None:
        """End the exchanges of all ranks in this group."""
        with suppress(Exception):
            self.gang.store.set(self._key, "1")
        if self.is_nccl:
            self._abort()
            return
        for one in self._connections:
            with suppress(OSError), socket.socket(fileno=os.dup(one)) as connection:
                connection.getpeername()  # one that listens has none, and gloo ends the process where that is shut
                connection.shutdown(socket.SHUT_RDWR)

    def _abort(self) -> None:
        with suppress(Exception):
            self.group._get_backend(self.gang.device).abort()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """NCCL sees no closed connection: a thread looks whether a rank has failed, and ends the exchange here."""
        if not self.is_nccl:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_SECONDS):
                with suppress(Exception):
                    if self.gang.store.check([self._key]):
                        self._abort()
                        return

        thread = threading.Thread(target=watch, name="tuner shards", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def group_of(gang: Gang) -> ShardGroup:
    """The group in which this gang exchanges shards; another one after a failure."""
    known: ShardGroup | None = gang.shards
    if known is None or known.broken:
        if known is not None:
            known.close()
        gang.shards = known = ShardGroup(gang)
    return known


def _is_of_the_group(error: BaseException) -> bool:
    """Whether an error, or one that it came of, is of torch.distributed: not of this rank's code."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, dist.DistError) or (isinstance(seen, RuntimeError) and any(w in str(seen) for w in _WORDS)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _sockets() -> set[int]:
    """The open sockets of this process."""
    found = set()
    for name in os.listdir(_OPEN) if _OPEN.exists() else ():
        with suppress(OSError, ValueError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
    return found
