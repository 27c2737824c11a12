"""Whether the examples of a dataset are functions of their index and of the seeds they are given; a few are tested."""

import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from tuner.errors import WorkloadError
from tuner.training.batches import Split
from tuner.training.containers import leaves
from tuner.training.randomness import examples_seed

MOST, LEAST, SECONDS = 32, 4, 1.0  # examples that are looked at, and after how long no more than the least
_DEPTH = 3  # of objects that torch knows nothing of


def check_repeatable(split: Split) -> None:
    """Fetch a few examples twice. Raises WorkloadError where the second time gives others, at equal seeds.

    Checked once for each split. It takes a second at most, but where four examples take longer.
    """
    if split.dataset is None or split.repeatable:
        return
    first = dict(_some_examples(split))
    changed = next((index for index, one in first.items() if not _same(one, split.take(torch.tensor([index])))), None)
    if changed is not None:
        raise WorkloadError(
            f"the {split.name} split gives another example {changed} when it is asked again, although the global "
            "generators are seeded alike: its dataset draws from a generator of its own (np.random.default_rng(), "
            "random.Random(), torch.Generator, albumentations) or reads a clock or a counter. A trial could not be "
            "resumed or repeated with the same bits. Draw from the global generators (torch.randn, np.random.normal, "
            "random.random), which are seeded for each example; or seed your own in __getitem__, from the global one, "
            "np.random.default_rng(np.random.randint(2**31)), or from the index"
        )
    split.repeatable = True


def random_example(split: Split) -> int | None:
    """The index of an example that is another one at other seeds; None where none of a few is."""
    if split.dataset is None:
        return None
    other = examples_seed("others than those of evaluations")
    pairs = ((index, one, split.take(torch.tensor([index]), other)) for index, one in _some_examples(split))
    return next((index for index, one, another in pairs if not _same(one, another)), None)


def _some_examples(split: Split) -> Iterator[tuple[int, Any]]:
    """A few examples from all over the split, each with its index."""
    spread = torch.linspace(0, split.num_examples - 1, min(MOST, split.num_examples), dtype=torch.float64).round()
    mixed = spread[torch.randperm(len(spread), generator=torch.Generator().manual_seed(0))]
    began = time.monotonic()
    for count, index in enumerate(int(each) for each in mixed):
        if count >= LEAST and time.monotonic() - began > SECONDS:
            return
        yield index, split.take(torch.tensor([index]))


def _same(one: Any, other: Any, depth: int = _DEPTH) -> bool:
    """Whether two batches are the same bits; what cannot be looked into counts as the same."""
    pairs = zip_longest(leaves(one), leaves(other), fillvalue=_MISSING)
    return all(_same_leaves(mine, yours, depth) for mine, yours in pairs)


_MISSING = object()


def _same_leaves(mine: Any, yours: Any, depth: int) -> bool:
    if type(mine) is not type(yours):
        return False
    if isinstance(mine, torch.Tensor):
        return _same_tensors(mine, yours)
    if isinstance(mine, np.ndarray):
        return bool(mine.dtype == yours.dtype and mine.shape == yours.shape and mine.tobytes() == yours.tobytes())
    if isinstance(mine, str | bytes | int | float | complex | None):
        return repr(mine) == repr(yours)
    held, others = getattr(mine, "__dict__", {}), getattr(yours, "__dict__", {})
    return depth == 0 or (
        held.keys() == others.keys() and all(_same(held[key], others[key], depth - 1) for key in held)
    )


def _same_tensors(mine: torch.Tensor, yours: torch.Tensor) -> bool:
    if mine.dtype != yours.dtype or mine.shape != yours.shape or mine.layout != yours.layout:
        return False
    if mine.layout is not torch.strided:
        return _same_tensors(mine.to_dense(), yours.to_dense())
    flat = (each.detach().contiguous().flatten().view(torch.uint8) for each in (mine, yours))
    return torch.equal(*flat)
