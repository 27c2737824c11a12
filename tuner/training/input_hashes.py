"""Inputs of examples as 64-bit hashes, by which those are found that two splits have in common (C5).

Which part of an example is its input is not declared, so every tensor, array and text of an example has a hash of its
type, shape and values. Labels are told apart by how they repeat: what has the most different values is the input.
Inputs are found where they are equal to the bit: another scale, or a window of the same text that begins elsewhere, is
another input.
"""

import hashlib
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset, TensorDataset

from tuner.records.conclusions import FoundInputs, InputSet
from tuner.training.batches import Split
from tuner.training.data_digests import leaves

KEPT = 8192  # [P] hashes of a training split that are recorded: the smallest, so that all splits sample alike
MOST_FETCHED = 2048  # [P] examples of a dataset or stream that are fetched for it
MOST_BYTES = 2**28  # [P] of a tensor in memory that are hashed; of a larger one rows spread over all of it
_PIECE = 2**24  # bytes hashed at a time
_EVERYTHING = 2**64 - 1
_GOLDEN, _FIRST, _SECOND = (np.uint64(one) for one in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One part of each example that was looked at. real: not empty and not constant. size: its numbers."""

    hashes: Hashes
    real: NDArray[np.bool_]
    size: int

    @property
    def rank(self) -> tuple[bool, int, int]:
        return self.size > 1, len(np.unique(self.hashes[self.real])), self.size


@dataclass(frozen=True, slots=True)
class InputHashes:
    """The hashes of a split's examples, part by part. examples: of the split, None of a stream without a length."""

    parts: tuple[_Leaf, ...]
    looked_at: int
    examples: int | None

    def as_set(self, campaign: str) -> InputSet:
        """What is recorded of a training split: the different hashes of all parts, the smallest ones of many."""
        real = [part.hashes[part.real] for part in self.parts]
        found = np.unique(np.concatenate(real)) if real else np.empty(0, dtype=np.uint64)
        below = _EVERYTHING if len(found) <= KEPT else int(found[KEPT - 1])
        return InputSet.of(campaign, found[:KEPT].astype("<u8").tobytes(), below, self.looked_at, self.examples)

    def among(self, known: InputSet) -> FoundInputs:
        """How many of the inputs of this split, a validation split, occur in the recorded set of a training split."""
        if not self.parts:
            return FoundInputs(known.campaign, why="its examples hold no tensors")
        inputs = max(self.parts, key=lambda part: part.rank)  # the first of equal ones
        compared = inputs.real & (inputs.hashes <= np.uint64(known.below))
        there = np.frombuffer(known.content, dtype="<u8")
        found = int(np.isin(inputs.hashes[compared], there).sum())
        return FoundInputs(known.campaign, found, int(compared.sum()), self.examples, known.looked_at, known.examples)


def input_hashes(split: Split) -> InputHashes:
    """The hashes of a split; of a large one of rows that are spread over all of it, of a stream of its beginning."""
    tensors = split.tensors if split.tensors is not None else _in_memory(split.dataset)
    if tensors is None:
        return _fetched(split)
    count = len(tensors[0]) if tensors else 0
    largest = max((one[:1].numel() * one.element_size() for one in tensors), default=1)
    rows = _spread(count, max(1, MOST_BYTES // max(1, largest)))
    parts = tuple(_of_rows(one[rows] if len(rows) < count else one) for one in tensors if _is_plain(one))
    return InputHashes(parts, len(rows), split.num_examples)


def in_memory(split: Split) -> bool:
    """Whether looking at all inputs fetches no example."""
    return split.tensors is not None or _in_memory(split.dataset) is not None


def _in_memory(dataset: Any) -> Sequence[torch.Tensor] | None:
    if type(dataset) is TensorDataset:
        return list(dataset.tensors)
    if type(dataset) is Subset and isinstance(dataset.indices, Sized):
        below = _in_memory(dataset.dataset)
        return None if below is None else [one[torch.as_tensor(list(dataset.indices))] for one in below]
    return None


def _spread(count: int, most: int) -> torch.Tensor:
    if count <= most:
        return torch.arange(count)
    return torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()


def _fetched(split: Split) -> InputHashes:
    most = split.up_to(MOST_FETCHED)
    rows = torch.arange(most) if split.num_examples is None or split.stream else _spread(split.num_examples, most)
    examples = [list(_values(one)) for one in split.examples(rows)]
    width = min(map(len, examples), default=0)
    parts = []
    for place in range(width):
        each = [_of_value(one[place]) for one in examples]
        hashes = np.array([one[0] for one in each], dtype=np.uint64)
        parts.append(_Leaf(hashes, np.array([one[1] for one in each]), max(one[2] for one in each)))
    return InputHashes(tuple(parts), len(examples), split.num_examples)


def _values(example: Any) -> Iterator[torch.Tensor | str]:
    """The tensors and texts of an example; of a text only where it is a value, and no key of a mapping."""
    for leaf in leaves(list(example.values()) if isinstance(example, dict) else example):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
            leaf = torch.from_numpy(np.ascontiguousarray(leaf))
        if isinstance(leaf, str) or (isinstance(leaf, torch.Tensor) and _is_plain(leaf)):
            yield leaf


def _of_value(value: torch.Tensor | str) -> tuple[int, bool, int]:
    if isinstance(value, str):
        digest = hashlib.sha256(f"text {value}".encode()).digest()
        return int.from_bytes(digest[:8], "little"), bool(value.strip()), max(2, len(value))
    leaf = _of_rows(value[None])
    return int(leaf.hashes[0]), bool(leaf.real[0]), leaf.size


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()


def _of_rows(tensor: torch.Tensor) -> _Leaf:
    """The hash of each row of a tensor [n, ...]; equal for equal type, shape and bits."""
    count, size = len(tensor), tensor[:1].numel()
    if not size:
        return _Leaf(np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=bool), 0)
    seed = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape[1:])}".encode()).digest()[:8]
    step = max(1, _PIECE // (size * tensor.element_size()))
    hashes, real = [], []
    for start in range(0, count, step):
        rows = tensor[start : start + step].detach().cpu().contiguous().reshape(-1, size)
        differs = (rows != rows[:, :1]).any(1) if size > 1 else (rows != 0)[:, 0]
        real.append(differs.numpy())
        hashes.append(_of_bytes(rows.view(torch.uint8).numpy(), int.from_bytes(seed, "little")))
    return _Leaf(np.concatenate(hashes), np.concatenate(real), size)


def _of_bytes(rows: NDArray[np.uint8], seed: int) -> Hashes:
    """A sum of the well-mixed words of each row, each word mixed with its place, mixed once more."""
    padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    words = padded.view("<u8").astype(np.uint64)
    with np.errstate(over="ignore"):
        places = _mixed(np.uint64(seed) + _GOLDEN * np.arange(1, words.shape[1] + 1, dtype=np.uint64))
        return _mixed(_mixed(words ^ places).sum(axis=1, dtype=np.uint64) + np.uint64(seed))


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a change of one bit changes half of all."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)
