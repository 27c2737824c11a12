"""Batches of a split, by step. Tensors in memory are indexed; anything larger is a map-style dataset."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import Subset

from tuner.errors import WorkloadError
from tuner.training.containers import moved
from tuner.training.fetching import Collate, Fetcher
from tuner.training.randomness import epoch_order, epoch_seed, examples_seed

GATHER_LIMIT = 64 * 2**20  # bytes of a split up to which a whole epoch is put in order at once
ONCE_FOR_ALL = examples_seed("every evaluation")  # what an example draws that is evaluated, digested or looked at


class Split:
    """One split of the data: `take(indices)` gives a batch on the device.

    A dataset may draw random numbers for an example from torch's, Python's and NumPy's global generators: they are
    seeded for each, and left as they were. `take` without a seed gives the same examples at every call.
    collate: makes a batch of the examples of a dataset; without it `containers.collated` does.
    """

    def __init__(self, name: str, data: Any, device: torch.device, collate: Collate | None = None) -> None:
        self.name = name
        self.device = device
        self.collate = collate
        self.tensors = _tensors(data, device)
        self.dataset = None if self.tensors is not None else _dataset(name, data)
        self.repeatable = self.dataset is None  # whether that is known
        self._fetcher = Fetcher(self.dataset, device, collate)
        self.num_examples = self._count()

    def _count(self) -> int:
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

    def first(self, count: int) -> Any:
        """The first `count` examples as one batch."""
        return self.take(torch.arange(min(count, self.num_examples)))

    def sample(self, count: int | None) -> "Split":
        """Always the same `count` examples, drawn at random (B42), in their own order.

        The split itself if it has no more, or with None.
        """
        if count is None or count >= self.num_examples:
            return self
        drawn = torch.randperm(self.num_examples, generator=torch.Generator().manual_seed(0))[:count].sort().values
        if self.tensors is not None:
            return Split(self.name, self.take(drawn), self.device)
        subset: Any = Subset(self.dataset, drawn.tolist())  # type: ignore[arg-type]
        return Split(self.name, subset, self.device, self.collate)

    def in_order(self, batch_size: int) -> Iterator[tuple[Any, int]]:
        """Batches of the split in its own order, each with its number of examples; the last may be short."""
        for start in range(0, self.num_examples, batch_size):
            stop = min(start + batch_size, self.num_examples)
            if self.tensors is not None:
                yield tuple(tensor[start:stop] for tensor in self.tensors), stop - start
            else:
                yield self.take(torch.arange(start, stop)), stop - start


class Order:
    """Which examples the training batch of any step holds: a function of (data_seed, step) alone. It can be pickled.

    Each epoch has its own order; what is left over at its end is dropped, so that all batches have one size.
    """

    def __init__(self, num_examples: int, batch_size: int, data_seed: int) -> None:
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.data_seed = data_seed
        self.batches_per_epoch = num_examples // batch_size
        self._examples = examples_seed(data_seed)
        self._known = (-1, torch.empty(0, dtype=torch.int64))

    def __reduce__(self) -> tuple[type["Order"], tuple[int, int, int]]:
        return Order, (self.num_examples, self.batch_size, self.data_seed)

    def wanted(self, step: int) -> tuple[torch.Tensor, int]:
        """Indices (int64 [batch_size]) and seed of the batch of update number `step`, as `Split.take` has them."""
        epoch, position = divmod(step, self.batches_per_epoch)
        start = position * self.batch_size
        return self.of_epoch(epoch)[start : start + self.batch_size], epoch_seed(self._examples, epoch)

    def of_epoch(self, epoch: int) -> torch.Tensor:
        """The indices of all examples, in the order of an epoch."""
        known, order = self._known
        if known != epoch:
            order = epoch_order(self.data_seed, epoch, self.num_examples)
            self._known = epoch, order
        return order


class TrainingBatches:
    """The training batch of any step: a function of (data_seed, step) alone.

    Each epoch has its own random numbers for each example of a dataset. A dataset leaves the global generators
    anywhere.
    """

    def __init__(self, split: Split, batch_size: int, data_seed: int) -> None:
        if batch_size > split.num_examples:
            raise WorkloadError(
                f"batch_size {batch_size} is larger than the {split.name} split of {split.num_examples} examples; "
                "make the batches smaller"
            )
        self.split = split
        self.batch_size = batch_size
        self.data_seed = data_seed
        self.order = Order(split.num_examples, batch_size, data_seed)
        self._epoch = -1
        self._ordered: tuple[torch.Tensor, ...] | None = None

    @property
    def uniform(self) -> bool:
        """Whether all batches are tuples of tensors of one form; a dataset's may be anything."""
        return self.split.tensors is not None

    def at(self, step: int) -> Any:
        """The batch of update number `step`."""
        epoch, position = divmod(step, self.order.batches_per_epoch)
        if epoch != self._epoch:
            self._open_epoch(epoch)
        if self._ordered is None:
            return self.split.take(*self.order.wanted(step), undisturbed=False)
        start = position * self.batch_size
        return tuple(tensor[start : start + self.batch_size] for tensor in self._ordered)

    def fetched(self, step: int) -> Any:
        """The batch of a step, read from the split again."""
        return self.split.take(*self.order.wanted(step))

    def _open_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        num_bytes = self.split.num_bytes
        if num_bytes is not None and num_bytes <= GATHER_LIMIT:
            self._ordered = self.split.take(self.order.of_epoch(epoch))


def _tensors(data: Any, device: torch.device) -> tuple[torch.Tensor, ...] | None:
    if isinstance(data, torch.Tensor):
        data = (data,)
    if isinstance(data, tuple | list) and data and all(isinstance(part, torch.Tensor) for part in data):
        return tuple(part.to(device) for part in data)
    return None


def _dataset(name: str, data: Any) -> Any:
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, tuple | list | dict):
        return data
    raise WorkloadError(
        f"the {name} split is a {type(data).__name__}; give a tuple of tensors [examples, ...] or a map-style "
        "dataset with __len__ and __getitem__"
    )
