"""Examples of a stream, in batches: an iterator that is opened where a batch begins, and kept while batches follow.

Processes that share the batches of a stream each take some of its examples. Between two of its own a process reads
past those of the others, as one process would read them; or it opens the stream again, where that is as quick.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tuner.design.data import Stream
from tuner.errors import WorkloadError
from tuner.training.fetching import Collate, Fetcher
from tuner.training.randomness import batch_seed, seed_global_generators

_OPENING = -1  # what `at` itself draws is seeded as if for this example: alike, wherever it begins


class StreamEnded(WorkloadError):
    """A stream has fewer examples than were asked for."""


class StreamFetcher(Fetcher):
    """Fetches examples of a stream; what each draws is a function of the seed and its number alone.

    Not to be shared by readers of different places: each example that does not follow the last one opens an iterator.
    """

    def __init__(self, name: str, stream: Stream, device: torch.device, collate: Collate | None = None) -> None:
        super().__init__(None, device, collate)
        self.name = name
        self.stream = stream
        self._iterator: Iterator[Any] | None = None
        self._next = 0  # the number of the example that the iterator gives next
        self._seed = 0
        self._wanted: Sequence[int] = ()  # the batch that is being fetched
        self._skips = False  # whether examples in between are read and dropped

    def skip_on(self) -> None:
        """Read past examples that are not wanted, and go on behind them; not where the stream is `seekable`."""
        self._skips = not self.stream.seekable

    def examples(self, indices: Sequence[int], seed: int) -> list[Any]:
        """The examples at `indices`, quickly where they follow one another. Raises StreamEnded where there are none."""
        if seed != self._seed:
            self.close()
        self._seed, self._wanted = seed, indices
        try:
            return super().examples(indices, seed)
        except BaseException:  # it stands anywhere
            self.close()
            raise

    def close(self) -> None:
        """Forget the iterator, which then closes its files; the next batch opens another."""
        self._iterator = None

    def _seeded(self, indices: Sequence[int], seed: int) -> list[Any]:
        examples = []
        for index in indices:
            if not self._leads_to(index):
                seed_global_generators(batch_seed(seed, _OPENING), self._device)
                self._open(index)
            while self._next < index:  # before it is seeded: they may draw
                self._read()
            examples += super()._seeded([index], seed)
        return examples

    def _leads_to(self, index: int) -> bool:
        """Whether the iterator that is open comes to this example."""
        return self._iterator is not None and (self._next == index or (self._skips and self._next < index))

    def _fetched(self, indices: Sequence[int]) -> list[Any]:
        examples = []
        for index in indices:
            if not self._leads_to(index):
                self._open(index)
            while self._next < index:
                self._read()
            examples.append(self._read())
        return examples

    def _read(self) -> Any:
        """The next example of the iterator."""
        try:
            example = next(self._iterator)  # type: ignore[arg-type]  # one is open
        except StopIteration:
            raise self._ended() from None
        self._next += 1
        return example

    def _open(self, start: int) -> None:
        self.close()
        opened: Any = self.stream.at(start)
        if not hasattr(opened, "__next__"):
            try:
                opened = iter(opened)
            except TypeError:
                raise WorkloadError(
                    f"`at` of the {self.name} stream gave a {type(opened).__name__}; it must give an iterator over the "
                    "examples from number `start` on"
                ) from None
        self._iterator, self._next = opened, start

    def _ended(self) -> StreamEnded:
        ends, wanted = f"the {self.name} stream ended after {self._next:,} examples", self._wanted
        if self.stream.length is not None and self._next < self.stream.length:
            return StreamEnded(f"{ends}, and its length is {self.stream.length:,}: give the length that it has")
        return StreamEnded(
            f"{ends}, within batch {wanted[0] // len(wanted) + 1:,} of {len(wanted)} examples: train fewer steps, or "
            "let `at` begin again at the end of the data, so that the stream has none"
        )
