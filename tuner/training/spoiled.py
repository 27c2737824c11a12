"""Values in the data that are not finite: which examples hold them, and what the batch of a divergence held."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tuner.training.batches import Split, TrainingBatches

CHUNK = 64 * 2**20  # bytes of a split that are looked at once
DEPTH = 4  # so deep tensors are looked for in a batch


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Examples that hold values which are not finite: how many, the first (its index in the split), and what it holds.

    `what`: "nan in tensor 1", or the name under which a batch has it.
    """

    count: int
    first: int
    what: str


def spoiled_examples(split: Split) -> Spoiled | None:
    """Examples of a split in memory, or among the first of a dataset, that hold what is not finite."""
    total, found = 0, None
    for indices in _looked_at(split):
        here = spoiled_in(split.take(indices), indices)
        if here is not None:
            total, found = total + here.count, found or here
    return found and Spoiled(total, found.first, found.what)


def _looked_at(split: Split) -> Iterator[torch.Tensor]:
    """Indices of the examples that are looked at, some at a time."""
    if split.tensors is None:
        yield torch.arange(split.up_to(2))
        return
    if all(_is_finite(tensor) for tensor in split.tensors):
        return
    rows = max(1, CHUNK * split.size // max(1, split.num_bytes or 1))
    yield from torch.split(torch.arange(split.size), rows)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are surely finite: then their sum is, and it takes no memory."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(torch.isfinite(tensor.sum(dtype=torch.complex128 if tensor.is_complex() else torch.float64)))


def spoiled_in(batch: Any, indices: torch.Tensor) -> Spoiled | None:
    """Which of the examples of a batch, at `indices` of its split, hold values that are not finite; None for none."""
    count = len(indices)
    spoiled, first, what = torch.zeros(count, dtype=torch.bool), count, ""
    for name, tensor in _named_tensors(batch, "tensor"):
        if tensor.dim() == 0 or len(tensor) != count or tensor.layout is not torch.strided or _is_finite(tensor):
            continue
        values = tensor.detach().reshape(count, -1)
        rows = (~torch.isfinite(values)).any(1).cpu()
        place = int(rows.nonzero()[0]) if rows.any() else count
        if place < first:
            first, what = place, f"{'nan' if torch.isnan(values[place]).any() else 'inf'} in {name}"
        spoiled |= rows
    return Spoiled(int(spoiled.sum()), int(indices[first]), what) if what else None


def _named_tensors(batch: Any, name: str, depth: int = DEPTH) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a batch of any form, by their place in it."""
    if isinstance(batch, torch.Tensor):
        yield name, batch
    elif not depth:
        return
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _named_tensors(value, f"{name} {key!r}", depth - 1)
    elif isinstance(batch, tuple | list):
        for place, value in enumerate(batch):
            yield from _named_tensors(value, f"{name} {place}", depth - 1)
    elif hasattr(batch, "__dict__"):
        yield from _named_tensors(vars(batch), name, depth - 1)


def what_spoiled(batches: TrainingBatches, step: int) -> str:
    """What the batch of update number `step` (from 1) holds that is not finite, in words; empty for nothing."""
    try:
        parts = range(batches.slices)
        looked_at = (spoiled_in(batches.fetched(step - 1, one), batches.wanted(step - 1, one)[0]) for one in parts)
        found = next((one for one in looked_at if one is not None), None)
    except Exception:  # the divergence itself is reported, and this must not hide it
        return ""
    return f"; its batch holds training example {found.first}, which has {found.what}" if found else ""
