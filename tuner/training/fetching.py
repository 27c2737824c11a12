"""Batches of a map-style dataset, whose random numbers are a function of (data_seed, epoch, index) alone."""

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from tuner.errors import WorkloadError
from tuner.training.containers import collated
from tuner.training.host_generators import AT_REST, HOST
from tuner.training.randomness import batch_seed, cuda_generator, example_seeds, seed_global_generators

Collate = Callable[[Sequence[Any]], Any]

_NEAR = 512  # bytes: a generator's words begin within so many, and there are more than so many of them


class Fetcher:
    """Fetches examples and makes batches of them, on the CPU.

    collate: the user's own; without it `containers.collated` makes the batches.

    A dataset that never draws costs a look at the generators per batch. One that was seen to draw is seeded for each
    example from then on, and the batch at which this was seen is fetched again. So it makes no difference to any
    example whether its dataset was known to draw, and by whom the generators were used before.
    """

    def __init__(self, dataset: Any, device: torch.device, collate: Collate | None = None) -> None:
        self.dataset = dataset
        self.collate = collate
        self._device = device
        self.draws = False
        self._batched = callable(getattr(dataset, "__getitems__", None))
        self._on_device = cuda_generator(device) if device.type == "cuda" else None

    def batch(self, indices: Sequence[int], seed: int) -> Any:
        """The examples at `indices`, collated; `seed`: an `epoch_seed`.

        What a user's `collate` draws is a function of the seed and the first index. Leaves the global generators
        anywhere; see `undisturbed`.
        """
        with _as_in_a_loading_process(self._device.type):
            examples = self.examples(indices, seed)
            if self.collate is None:
                return collated(examples)
            seed_global_generators(batch_seed(seed, indices[0]), self._device)
            batch = self.collate(examples)
        if batch is None:
            raise WorkloadError(f"collate returned None for {len(examples)} examples; return the batch")
        return batch

    def examples(self, indices: Sequence[int], seed: int) -> list[Any]:
        """The examples at `indices`, with what they draw at a `randomness.epoch_seed`.

        Leaves the global generators anywhere; see `undisturbed`.
        """
        if not self.draws:
            HOST.rest()
            torch.default_generator.manual_seed(AT_REST)
            if self._on_device is not None:
                self._on_device.manual_seed(AT_REST)
            examples = self._fetched(indices)
            if not self._touched():
                return examples
            self.draws = True
        return self._seeded(indices, seed)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Leave the global generators as they were."""
        on_host, of_torch = HOST.state(), torch.default_generator.get_state()
        on_device = [] if self._on_device is None else [(self._on_device, self._on_device.get_state())]
        try:
            yield
        finally:
            HOST.restore(on_host)
            torch.default_generator.set_state(of_torch)
            for generator, state in on_device:
                generator.set_state(state)

    def _touched(self) -> bool:
        if HOST.touched or (
            self._on_device is not None and _bytes(self._on_device) != _at_rest(self._on_device.device)
        ):
            return True
        generator, position = torch.default_generator, _position()
        if position is None:
            return _bytes(generator) != _at_rest(generator.device)
        return position.value != 0 or generator.initial_seed() != AT_REST

    def _seeded(self, indices: Sequence[int], seed: int) -> list[Any]:
        """One by one, those of a dataset that fetches whole batches too: each draws from its own seeds."""
        examples: list[Any] = []
        for index in indices:
            of_torch, of_python, of_numpy = example_seeds(seed, index)
            torch.default_generator.manual_seed(of_torch)
            if self._on_device is not None:
                self._on_device.manual_seed(of_torch)
            HOST.seed(of_python, of_numpy)
            examples += self._fetched([index])
        return examples

    def _fetched(self, indices: Sequence[int]) -> list[Any]:
        if self._batched:
            return self.dataset.__getitems__(list(indices))  # type: ignore[no-any-return]
        dataset = self.dataset
        return [dataset[index] for index in indices]


@contextmanager
def _as_in_a_loading_process(device_type: str) -> Iterator[None]:
    """With one thread, on which some sums depend, and out of the autocast that metrics are computed in."""
    threads = torch.get_num_threads()
    casting = [kind for kind in {"cpu", device_type} if torch.is_autocast_enabled(kind)]
    if threads > 1:
        torch.set_num_threads(1)
    try:
        with ExitStack() as outside:
            for kind in casting:
                outside.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


@functools.cache
def _position() -> ctypes.c_uint32 | None:
    """Which word of its state torch's CPU generator draws next: 0 only when it was seeded and nothing was drawn.

    Read from its memory, because a state that is copied takes longer than all else about a batch. None where this
    version of torch keeps it elsewhere.
    """
    generator, seen = torch.Generator(), []
    place = _place(generator)
    if place is None:
        return None
    for seed in (3, AT_REST):
        generator.manual_seed(seed)
        seen.append(place.value)
        for count in (1, 1, 622, 1, 623):
            torch.empty(count, dtype=torch.int32).random_(generator=generator)
            seen.append(place.value)
    return _place(torch.default_generator) if seen == 2 * [0, 1, 2, 624, 1, 624] else None


def _place(generator: torch.Generator) -> ctypes.c_uint32 | None:
    """The memory before the words of a generator's state, which are looked for."""
    begin = getattr(generator, "_cdata", None)
    if begin is None:
        return None
    first = memoryview(_bytes(generator))[24:56].cast("Q")  # four of the words, as `get_state` gives them
    found = ctypes.string_at(begin, _NEAR).find(struct.pack("=4I", *(word & 0xFFFF_FFFF for word in first)))
    return ctypes.c_uint32.from_address(begin + found - 4) if found >= 4 else None


@functools.cache
def _at_rest(device: torch.device) -> bytes:
    return _bytes(torch.Generator(device).manual_seed(AT_REST))


def _bytes(generator: torch.Generator) -> bytes:
    return generator.get_state().numpy().tobytes()
