"""Saving a training state in the background: a quick copy, and a thread that writes it to the disk.

A copy into memory that is used again costs a small part of what serializing, hashing and fsync cost. The training
waits for that of the model only: what the optimizer alone changes is still as it was until the next update. It pays
for large states: a small one is written faster than a thread is started.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from tuner.records import Checkpoint, TrialUpdate

BACKGROUND_BYTES = 4 << 20  # states from this size on are written by the thread: 4 MiB take about 10 ms to write

Write = Callable[[], Checkpoint]
Copied = Future[None]  # has a result once the copy is whole


class Copies:
    """Copies of training states, each in the memory of the one before it: fresh memory costs five times the copy."""

    def __init__(self) -> None:
        self._rooms: dict[str, list[torch.Tensor]] = {}
        self._waiting: RemovableHandle | None = None

    def of(
        self, state: Mapping[str, Any], optimizer: Optimizer | None, helper: Executor
    ) -> tuple[dict[str, Any], Copied]:
        """The same state with its tensors on the CPU, good until the next call, and when it is whole.

        What `optimizer` alone changes (two thirds of a state of Adam) the `helper` copies during the next step, whose
        update waits for that. Not so from a device, whose work is ordered for each thread by itself.
        """
        tensors = {part: list(tensors_in(value)) for part, value in state.items()}
        rooms = {part: self._room(part, needed) for part, needed in tensors.items()}
        wait = optimizer is not None and not any(tensor.is_cuda for tensor in tensors["optimizer"])
        late = {"optimizer"} if wait else set()

        def copy(parts: Set[str]) -> None:
            for part in parts:
                _copy(rooms[part], tensors[part])

        copy(tensors.keys() - late)
        copied = helper.submit(copy, late)  # not before: it may share our core
        if self._waiting is not None:
            self._waiting.remove()
            self._waiting = None
        if optimizer is not None:
            self._waiting = optimizer.register_step_pre_hook(lambda *_: copied.result())
        return {part: _with_tensors(value, iter(rooms[part])) for part, value in state.items()}, copied

    def _room(self, part: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Memory of the form of these tensors, the same as for the last state where that has it."""
        before = self._rooms.get(part, [])
        empty = [None] * (len(tensors) - len(before))
        self._rooms[part] = [
            room if room is not None and _fits(room, tensor) else torch.empty_like(tensor, device="cpu")
            for room, tensor in zip([*before, *empty], tensors, strict=False)
        ]
        return self._rooms[part]


def _copy(room: list[torch.Tensor], tensors: list[torch.Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(room, tensors)


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


def _fits(room: torch.Tensor, tensor: torch.Tensor) -> bool:
    return (room.shape, room.dtype, room.stride()) == (tensor.shape, tensor.dtype, tensor.stride())


class BackgroundSaver:
    """Writes the files of one update at a time, in its own thread."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._saving: tuple[TrialUpdate, Future[tuple[Checkpoint, ...]]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a save was started whose result was not taken yet."""
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

    def start(self, update: TrialUpdate, writes: Sequence[Write], copied: Copied) -> None:
        """Write once all is `copied`; `update` is what shall be recorded when the files are there."""
        if self.busy:
            raise RuntimeError("a save begins before the one before it has ended")

        def written() -> tuple[Checkpoint, ...]:
            copied.result()
            return tuple(write() for write in writes)

        self._saving = update, self.thread.submit(written)

    def result(self) -> tuple[TrialUpdate, tuple[Checkpoint, ...]]:
        """Wait for the save; its update and its files. Raises what went wrong."""
        if self._saving is None:
            raise RuntimeError("there is no save to wait for")
        (update, writing), self._saving = self._saving, None
        return update, writing.result()

    def close(self) -> None:
        """Wait until the thread has ended. Files that it wrote and nothing names are deleted at the next commit."""
        if self.busy:
            with suppress(Exception):
                self.result()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
