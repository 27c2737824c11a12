"""Examples of a map-style dataset, whose random numbers are a function of (data_seed, epoch, index) alone."""

import functools
from collections.abc import Sequence
from typing import Any

import torch

from tuner.training.host_generators import AT_REST, HOST
from tuner.training.randomness import cuda_generator, example_seeds


class Fetcher:
    """Fetches examples, and leaves the global generators as they were.

    A dataset that never draws costs a look at the generators per batch. One that was seen to draw is seeded for each
    example from then on, and the batch at which this was seen is fetched again. So it makes no difference to any
    example whether its dataset was known to draw, and by whom the generators were used before.
    """

    def __init__(self, dataset: Any, device: torch.device) -> None:
        self.dataset = dataset
        self.draws = False
        self._batched = callable(getattr(dataset, "__getitems__", None))
        on_device = [cuda_generator(device)] if device.type == "cuda" else []
        self._generators = [(generator, _state_at_rest(generator.device)) for generator in on_device]
        self._generators.insert(0, (torch.default_generator, _state_at_rest(torch.device("cpu"))))

    def examples(self, indices: Sequence[int], seed: int) -> list[Any]:
        """The examples at `indices`, with what they draw at a `randomness.epoch_seed`."""
        before = HOST.state(), [generator.get_state() for generator, _ in self._generators]
        try:
            if not self.draws:
                examples = self._at_rest(indices)
                if not self._touched():
                    return examples
                self.draws = True
            return self._seeded(indices, seed)
        finally:
            HOST.restore(before[0])
            for (generator, _), state in zip(self._generators, before[1], strict=True):
                generator.set_state(state)

    def _at_rest(self, indices: Sequence[int]) -> list[Any]:
        HOST.rest()
        for generator, _ in self._generators:
            generator.manual_seed(AT_REST)
        return self._fetched(indices)

    def _touched(self) -> bool:
        return HOST.touched or any(_bytes(generator) != at_rest for generator, at_rest in self._generators)

    def _seeded(self, indices: Sequence[int], seed: int) -> list[Any]:
        """One by one, those of a dataset that fetches whole batches too: each draws from its own seeds."""
        examples: list[Any] = []
        for index in indices:
            of_torch, of_python, of_numpy = example_seeds(seed, index)
            for generator, _ in self._generators:
                generator.manual_seed(of_torch)
            HOST.seed(of_python, of_numpy)
            examples += self._fetched([index])
        return examples

    def _fetched(self, indices: Sequence[int]) -> list[Any]:
        if self._batched:
            return self.dataset.__getitems__(list(indices))  # type: ignore[no-any-return]
        return [self.dataset[index] for index in indices]


@functools.cache
def _state_at_rest(device: torch.device) -> bytes:
    return _bytes(torch.Generator(device).manual_seed(AT_REST))


def _bytes(generator: torch.Generator) -> bytes:
    return generator.get_state().numpy().tobytes()
