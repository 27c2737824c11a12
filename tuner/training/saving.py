"""Saving a training state beside the training: a quick copy here, and a thread that writes it to the disk.

A copy into memory that is used again costs a small part of what serializing, hashing and fsync cost. It pays for
large states only: a small one is written faster than a thread is asked to.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch

from tuner.records import Checkpoint, TrialUpdate

BACKGROUND_BYTES = 4 << 20  # states from this size on are written by the thread: 4 MiB take about 10 ms to write

Write = Callable[[], Checkpoint]


class Copies:
    """Copies of states, each in the memory of the one before it: fresh memory costs five times the copy."""

    def __init__(self) -> None:
        self._room: list[torch.Tensor] = []

    def of(self, state: Any, helper: Executor) -> Any:
        """The same state with its tensors copied to the CPU, half of them by the `helper`; good until the next call."""
        tensors = list(tensors_in(state))
        self._room += [torch.empty(0)] * (len(tensors) - len(self._room))
        for place, tensor in enumerate(tensors):
            if not _fits(self._room[place], tensor):
                self._room[place] = torch.empty_like(tensor, device="cpu")
        del self._room[len(tensors) :]
        middle = _middle(tensors)
        if 0 < middle < len(tensors):
            half = helper.submit(torch._foreach_copy_, self._room[middle:], tensors[middle:])
            torch._foreach_copy_(self._room[:middle], tensors[:middle])
            half.result()
        elif tensors:
            torch._foreach_copy_(self._room, tensors)
        return _with_tensors(state, iter(self._room))


def num_bytes(state: Any) -> int:
    """The bytes of all tensors of a state."""
    return sum(tensor.nbytes for tensor in tensors_in(state))


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """The tensors of nested dictionaries, lists and tuples, in order."""
    if isinstance(state, torch.Tensor):
        yield state.detach()
    elif isinstance(state, dict | list | tuple):
        for item in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(item)


def _with_tensors(state: Any, tensors: Iterator[torch.Tensor]) -> Any:
    if isinstance(state, torch.Tensor):
        return next(tensors)
    if isinstance(state, dict):
        return {key: _with_tensors(item, tensors) for key, item in state.items()}
    return type(state)(_with_tensors(item, tensors) for item in state) if isinstance(state, list | tuple) else state


def _middle(tensors: Sequence[torch.Tensor]) -> int:
    """Where half of the bytes are passed; 0 on a device, whose copies have one bus."""
    if any(tensor.is_cuda for tensor in tensors):
        return 0
    sizes = list(accumulate(tensor.nbytes for tensor in tensors))
    return bisect_left(sizes, sizes[-1] / 2) + 1 if sizes else 0


def _fits(room: torch.Tensor, tensor: torch.Tensor) -> bool:
    return (room.shape, room.dtype, room.stride()) == (tensor.shape, tensor.dtype, tensor.stride())


class BackgroundSaver:
    """Writes the files of one update at a time, in a thread of its own."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._saving: tuple[TrialUpdate, Future[tuple[Checkpoint, ...]]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a save was started whose result nobody took yet."""
        return self._saving is not None

    def over(self) -> bool:
        """Whether there is a result to take."""
        return self._saving is not None and self._saving[1].done()

    @property
    def thread(self) -> Executor:
        """The thread that writes. It may be given other work while it is not busy."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "tuner checkpoint")
        return self._pool

    def start(self, update: TrialUpdate, writes: Sequence[Write]) -> None:
        """Begin to write; `update` is what shall be recorded once the files are there."""
        if self.busy:
            raise RuntimeError("a save begins before the one before it has ended")
        self._saving = update, self.thread.submit(lambda: tuple(write() for write in writes))

    def result(self) -> tuple[TrialUpdate, tuple[Checkpoint, ...]]:
        """Wait for the save; its update and its files. Raises what went wrong."""
        if self._saving is None:
            raise RuntimeError("there is no save to wait for")
        (update, writing), self._saving = self._saving, None
        return update, writing.result()

    def close(self) -> None:
        """Wait until the thread is gone. What it wrote and nobody took is left to the next sweep."""
        if self.busy:
            with suppress(Exception):
                self.result()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
