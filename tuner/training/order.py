"""Which examples the training batch of any step holds: a function of (data_seed, step) alone."""

from collections.abc import Callable
from typing import Any

import torch

from tuner.design.seeds import derived_seed
from tuner.errors import WorkloadError
from tuner.training.randomness import epoch_order, epoch_seed, examples_seed

MEGABATCH = 50  # batches whose examples are sorted by length together, as Hugging Face's trainer does


class Order:
    """The order of the training examples.

    num_examples: of the split. Each epoch has its own order; what is left over at its end is dropped, so that all
    batches have one size. None: of a stream, whose batches are consecutive examples, in one epoch without an end.
    lengths: int64 [num_examples], so that the examples of a batch have about one length.
    """

    def __init__(
        self, num_examples: int | None, batch_size: int, data_seed: int, lengths: torch.Tensor | None = None
    ) -> None:
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.data_seed = data_seed
        self.lengths = lengths
        self.batches_per_epoch = None if num_examples is None else num_examples // batch_size
        self._examples = examples_seed(data_seed)
        self._known = (-1, torch.empty(0, dtype=torch.int64))

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of update number `step`, and which of its batches it takes."""
        return (0, step) if self.batches_per_epoch is None else divmod(step, self.batches_per_epoch)

    def wanted(self, step: int) -> tuple[torch.Tensor, int]:
        """Indices (int64 [batch_size]) and seed of the batch of update number `step`, as `Split.take` has them."""
        epoch, position = self.place(step)
        start, seed = position * self.batch_size, epoch_seed(self._examples, epoch)
        if self.num_examples is None:
            return torch.arange(start, start + self.batch_size), seed
        return self.of_epoch(epoch)[start : start + self.batch_size], seed

    def of_epoch(self, epoch: int) -> torch.Tensor:
        """The indices of an epoch's examples in their order, batch after batch. Not of a stream."""
        known, order = self._known
        if known != epoch:
            order = self._made(epoch)
            self._known = epoch, order
        return order

    def _made(self, epoch: int) -> torch.Tensor:
        batches = self.batches_per_epoch or 0
        order = epoch_order(self.data_seed, epoch, self.num_examples or 0)
        if self.lengths is None:
            return order
        parts = torch.split(order[: batches * self.batch_size], MEGABATCH * self.batch_size)
        alike = torch.cat([part[self.lengths[part].argsort(stable=True)] for part in parts])
        generator = torch.Generator().manual_seed(derived_seed("batches by length", self.data_seed, epoch))
        mixed = torch.randperm(batches, generator=generator)
        return alike.view(batches, self.batch_size)[mixed].flatten()


def read_lengths(owner: str, lengths: Callable[[], Any], indexed: int | None) -> torch.Tensor:
    """The lengths of the training examples: int64 [indexed], on the CPU.

    owner: the method that gives them. indexed: how many examples there are; None for a stream. Raises WorkloadError for
    lengths that are no ints from 0 on, or too few or too many.
    """
    if indexed is None:
        raise WorkloadError(
            f"{owner} makes batches of examples of about one length, and a stream has its own order: let `at` give "
            "its examples in an order that needs little padding, and remove lengths()"
        )
    found = lengths()
    try:
        read = torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError):
        read = torch.empty(0)
    if read.dim() != 1 or read.is_floating_point() or read.is_complex() or read.dtype == torch.bool:
        raise WorkloadError(f"{owner} must return a list of ints, one for each training example; got {found!r:.60}")
    if len(read) != indexed:
        raise WorkloadError(
            f"{owner} returned {len(read):,} lengths, and the training split has {indexed:,} examples: return one for "
            "each, in their order"
        )
    if bool((read < 0).any()):
        place = int((read < 0).nonzero()[0])
        raise WorkloadError(f"{owner} says {int(read[place])} of training example {place}; lengths are from 0 on")
    return read.to("cpu", torch.int64)
