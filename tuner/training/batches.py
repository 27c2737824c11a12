"""Batches of a split, by step. Tensors in memory are indexed; anything larger is a map-style dataset or a stream."""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch.utils.data import IterableDataset, Subset

from tuner.design.data import Stream
from tuner.errors import WorkloadError
from tuner.training.containers import moved
from tuner.training.fetching import Collate, Fetcher
from tuner.training.loading import ABSENT, Loading, Readers, Wanted
from tuner.training.loading_processes import Ahead
from tuner.training.order import Order
from tuner.training.randomness import examples_seed
from tuner.training.streams import StreamFetcher

GATHER_LIMIT = 64 * 2**20  # bytes of a split up to which a whole epoch is put in order at once
_CPU = torch.device("cpu")
ONCE_FOR_ALL = examples_seed("every evaluation")  # what an example draws that is evaluated, digested or looked at


class Split:
    """One split of the data: `take(indices)` gives a batch on the device.

    A dataset may draw random numbers for an example from torch's, Python's and NumPy's global generators: they are
    seeded for each, and left as they were. `take` without a seed gives the same examples at every call.

    collate: makes a batch of the examples of a dataset or stream; without it `containers.collated` does.
    count: says how many examples a batch holds; without it as many as were taken.
    lengths: int64 [num_examples], by which training batches are made; see `Order`.
    num_examples: None for a stream of no known length.
    """

    def __init__(
        self,
        name: str,
        data: Any,
        device: torch.device,
        collate: Collate | None = None,
        count: Callable[[Any], int] | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.collate = collate
        self.count = count
        self.lengths: torch.Tensor | None = None
        self.stream = data if isinstance(data, Stream) else None
        self.tensors = _tensors(data, device, collate)
        indexed = self.stream is None and self.tensors is None
        self.dataset = _dataset(name, data, collate) if indexed else None
        self.repeatable = self.tensors is not None  # whether that is known
        self._fetcher = self.fetcher(device)
        self.num_examples = self._count()
        self.loading = Loading()  # of nothing
        self._place = -1  # among the splits that it loads

    def load_by(self, loading: Loading) -> None:
        """Have its batches made by loading processes, while these are at work. Not for tensors in memory."""
        if self.tensors is None and self.loading is not loading:
            stream = self.stream is not None
            self.loading, self._place = loading, loading.add(partial(self.fetcher, _CPU), stream=stream)

    def ahead(self, wanted: Iterator[Wanted]) -> Ahead:
        """The batches of these indices and seeds, on the CPU, made by loading processes, while there are any."""
        return self.loading.ahead(self._place, wanted)

    def fetcher(self, device: torch.device) -> Fetcher:
        """Another one that makes the batches of a dataset or stream, for a reader of its own: see `Fetcher.batch`.

        device: the one whose global generators examples may draw from, besides those of the CPU.
        """
        if self.stream is not None:
            return StreamFetcher(self.name, self.stream, device, self.collate)
        return Fetcher(self.dataset, device, self.collate)

    def reader(self) -> Self:
        """The split itself, or of a stream one that is open at another place: each reader of batches has its own."""
        if self.stream is None:
            return self
        other = copy.copy(self)
        other._fetcher = self.fetcher(self.device)
        return other

    def skip_on(self) -> None:
        """Have a stream read on to an example that lies further on, past those that others take; see `Stream`."""
        if isinstance(self._fetcher, StreamFetcher):
            self._fetcher.skip_on()

    def _count(self) -> int | None:
        if self.stream is not None:
            return self.stream.length
        if self.tensors is None:
            return len(self.dataset)  # type: ignore[arg-type]
        lengths = {len(tensor) for tensor in self.tensors}
        if len(lengths) != 1 or 0 in lengths:
            raise WorkloadError(
                f"the tensors of the {self.name} split must have the same number of examples in their first "
                f"dimension, and at least one; got {[tuple(t.shape) for t in self.tensors]}"
            )
        return lengths.pop()

    @property
    def indexed(self) -> int | None:
        """The number of examples that can be taken in any order; None for a stream."""
        return None if self.stream is not None else self.num_examples

    @property
    def size(self) -> int:
        """The number of examples, where it has to be known. Raises WorkloadError for a stream of no known length."""
        if self.num_examples is None:
            raise WorkloadError(
                f"the {self.name} split is a stream of no known length; say where it ends, Stream(at, length=10_000)"
            )
        return self.num_examples

    def up_to(self, most: int) -> int:
        """So many examples, or all where there are fewer."""
        return most if self.num_examples is None else min(most, self.num_examples)

    @property
    def num_bytes(self) -> int | None:
        """Bytes held in memory; None for a dataset."""
        if self.tensors is None:
            return None
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def take(self, indices: torch.Tensor, seed: int = ONCE_FOR_ALL, *, undisturbed: bool = True) -> Any:
        """The examples at `indices` (int64 [n]), collated, on the device; see `made`."""
        return moved(self.made(indices, seed, undisturbed=undisturbed), self.device)

    def made(self, indices: torch.Tensor, seed: int = ONCE_FOR_ALL, *, undisturbed: bool = True) -> Any:
        """The examples at `indices` (int64 [n]), collated: of a dataset on the CPU, of tensors where those lie.

        seed: what a dataset draws for them, an `epoch_seed`; of no meaning to tensors. undisturbed: the global
        generators are left as they were; not to do so saves time where they are seeded next anyway.
        """
        if self.tensors is not None:
            indices = indices.to(self.device)
            return tuple(tensor.index_select(0, indices) for tensor in self.tensors)
        with self._fetcher.undisturbed() if undisturbed else nullcontext():
            return self._fetcher.batch(indices.tolist(), seed)

    def examples(self, indices: torch.Tensor, seed: int = ONCE_FOR_ALL) -> list[Any]:
        """The examples of a dataset or stream at `indices` as they are, before they are collated."""
        with self._fetcher.undisturbed():
            return self._fetcher.examples(indices.tolist(), seed)

    def first(self, count: int) -> Any:
        """The first `count` examples as one batch."""
        return self.take(torch.arange(self.up_to(count)))

    def some(self, count: int) -> tuple[Any, int]:
        """The first `count` examples as one batch, and the number of examples that it holds."""
        batch = self.first(count)
        return batch, self.count_of(batch, self.up_to(count))

    def sample(self, count: int | None) -> "Split":
        """Always the same `count` examples, drawn at random (B42), in their own order; of a stream the first ones.

        The split itself if it has no more, or with None. Raises WorkloadError for a stream of no known length.
        """
        if count is None and self.num_examples is None:
            raise WorkloadError(
                f"the {self.name} split is a stream of no known length, so it cannot be evaluated as a whole: declare "
                "training_evaluation_examples = 1000 to evaluate its first 1,000 examples, or give Stream(..., length=)"
            )
        if count is None or (self.num_examples is not None and count >= self.num_examples):
            return self
        if self.stream is not None:
            return self._part(replace(self.stream, length=count))
        drawn = torch.randperm(self.size, generator=torch.Generator().manual_seed(0))[:count].sort().values
        if self.tensors is not None:
            return self._part(self.take(drawn))
        return self._part(Subset(self.dataset, drawn.tolist()))  # type: ignore[arg-type]

    def _part(self, data: Any) -> "Split":
        return Split(self.name, data, self.device, self.collate, self.count)

    def in_order(self, batch_size: int, first: int = 0, every: int = 1) -> Iterator[tuple[Any, int]]:
        """Batches of the split in its own order, each with its number of examples; the last may be short.

        first, every: batch number `first` and each `every`-th one after it; no other is fetched.
        """
        spans = [(start, min(start + batch_size, self.size)) for start in range(0, self.size, batch_size)]
        spans, read = spans[first::every], self
        if every > 1:
            read = self.reader()
            read.skip_on()
        if self.loading.count:
            wanted = ((torch.arange(start, stop), ONCE_FOR_ALL) for start, stop in spans)
            with closing(self.ahead(wanted)) as batches:
                for (start, stop), made in zip(spans, batches, strict=True):
                    yield moved(made, self.device), self.count_of(made, stop - start)
            return
        for start, stop in spans:
            if self.tensors is not None:
                batch: Any = tuple(tensor[start:stop] for tensor in self.tensors)
            else:
                batch = read.take(torch.arange(start, stop))
            yield batch, self.count_of(batch, stop - start)

    def count_of(self, batch: Any, taken: int) -> int:
        """How many examples a batch holds that was made of so many."""
        if self.count is None:
            return taken
        counted = self.count(batch)
        if type(counted) is not int or counted < 0:
            raise WorkloadError(
                f"num_examples must return how many examples a batch holds, as an int; for a batch of {taken} examples "
                f"of the {self.name} split it returned {counted!r}"
            )
        return counted


class TrainingBatches:
    """The training batch of any step: a function of (data_seed, step) alone; see `Order`.

    slices: the equal parts that each batch is cut into, in order. Each is fetched and collated for itself, as if it
    were a batch; with one slice it is the batch. mine: those that this process takes of each batch; see `take_only`.

    Each epoch has its own random numbers for each example of a dataset. A dataset leaves the global generators
    anywhere.
    """

    def __init__(self, split: Split, batch_size: int, data_seed: int, slices: int = 1) -> None:
        if batch_size > split.up_to(batch_size):
            raise WorkloadError(
                f"batch_size {batch_size} is larger than the {split.name} split of {split.num_examples} examples; "
                "make the batches smaller"
            )
        self.split = split
        self.batch_size = batch_size
        self.slices = slices
        self.slice_size = batch_size // slices
        self.mine = range(slices)
        self.data_seed = data_seed
        self.order = Order(split.indexed, batch_size, data_seed, split.lengths)
        self._reader = split.reader()
        self._readers = Readers(lambda place: split.ahead(itertools.starmap(self.wanted, self._places(place))))
        self._epoch = -1
        self._ordered: tuple[torch.Tensor, ...] | None = None

    @property
    def uniform(self) -> bool:
        """Whether all batches are tuples of tensors of one form; a dataset's may be anything."""
        return self.split.tensors is not None

    def take_only(self, mine: range) -> None:
        """Take only these slices of each batch, as a rank of a gang does: no others are fetched, nor loaded ahead."""
        self.mine = mine
        self._readers.forget()
        self._reader.skip_on()

    def at(self, step: int, part: int = 0) -> Any:
        """Slice `part` (from 0) of the batch of update number `step`; one of `mine`."""
        epoch, position = self.order.place(step)
        if epoch != self._epoch:
            self._open_epoch(epoch)
        if self._ordered is None:
            return self._of_dataset(step, part)
        start = position * self.batch_size + part * self.slice_size
        return tuple(tensor[start : start + self.slice_size] for tensor in self._ordered)

    def wanted(self, step: int, part: int = 0) -> Wanted:
        """Indices (int64 [slice_size]) and seed of a slice, as `Split.take` has them."""
        indices, seed = self.order.wanted(step)
        return indices[part * self.slice_size : (part + 1) * self.slice_size], seed

    def _places(self, place: int) -> Iterator[tuple[int, int]]:
        """Step and part of each slice from number `place` on, of those of the whole training that are taken here."""
        for each in itertools.count(place):
            step, number = divmod(each, len(self.mine))
            yield step, self.mine[number]

    def shared_by(self, trials: int, *, repeated: bool) -> None:
        """So many trials take these batches. repeated: each of them takes the batch of a step for itself."""
        self._readers.most, self._readers.repeated = trials, repeated

    def rewind(self) -> None:
        """The trials go on elsewhere: what is loaded ahead is dropped, and what a loss may have written into."""
        self._readers.forget()
        self._epoch = -1

    def _of_dataset(self, step: int, part: int) -> Any:
        split, loading = self.split, self.split.loading
        if loading.count:
            place = step * len(self.mine) + part - self.mine.start
            batch = self._readers.take(place, loading.session)
            if batch is not ABSENT:
                return moved(batch, split.device)
        fetch = partial(self._reader.take, *self.wanted(step, part), undisturbed=False)
        return loading.fetched_here(fetch)

    def fetched(self, step: int, part: int = 0) -> Any:
        """A slice of the batch of a step, read from the split again."""
        return self.split.take(*self.wanted(step, part))

    def _open_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        num_bytes = self.split.num_bytes
        if num_bytes is not None and num_bytes <= GATHER_LIMIT:
            self._ordered = self.split.take(self.order.of_epoch(epoch))


def _tensors(data: Any, device: torch.device, collate: Collate | None) -> tuple[torch.Tensor, ...] | None:
    if isinstance(data, torch.Tensor):
        data = (data,)
    if isinstance(data, list) and collate is not None:
        return None  # a list of examples
    if isinstance(data, tuple | list) and data and all(isinstance(part, torch.Tensor) for part in data):
        return tuple(part.to(device) for part in data)
    return None


def _dataset(name: str, data: Any, collate: Collate | None) -> Any:
    ordered = isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__"))
    if ordered and (hasattr(data, "__iter__") or hasattr(data, "__next__")):
        raise WorkloadError(
            f"the {name} split is a {type(data).__name__}, which can only be read from its beginning, so that no trial "
            "could be resumed: give Stream(at=lambda start: ...), an iterator over the examples from number `start` on "
            "(iter(dataset.skip(start)), itertools.islice(dataset, start, None))"
        )
    if not ordered and not isinstance(data, tuple | list | dict):
        return data
    if isinstance(data, list) and data and collate is not None:
        return data
    raise WorkloadError(
        f"the {name} split is a {type(data).__name__}; give a tuple of tensors [examples, ...], a map-style dataset "
        f"with __len__ and __getitem__, or a Stream{_of_lists(data)}"
    )


def _of_lists(data: Any) -> str:
    """How to write sequences of different lengths, where a part of a split is a list."""
    parts = data if isinstance(data, tuple | list) else ()
    place = next((place for place, part in enumerate(parts, 1) if isinstance(part, list)), None)
    if place is None or not isinstance(data, tuple):
        return ""
    return (
        f". Its part {place} is a list: captions and other sequences of different lengths become one tensor with "
        "padded([...], value=0)"
    )
