"""Digests of data: all of what lies in memory, a spread sample of the examples of a dataset."""

import hashlib
from collections.abc import Iterator, Mapping, Sized
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import Subset, TensorDataset

from tuner.design.workload import Workload
from tuner.errors import TunerError, WorkloadError
from tuner.training.batches import Split
from tuner.training.data_checks import one_example
from tuner.training.setup import Data
from tuner.training.streams import StreamEnded
from tuner.training.tensor_digests import feed_tensor
from tuner.training.value_digests import NoDigest, value_digest

EXAMPLES = 256  # [P] of a dataset, one from each of as many equal parts of it
_CPU = torch.device("cpu")


def data_digest(split: Split) -> str:
    """16 hex digits: of a dataset its length and EXAMPLES examples, the first and the last among them.

    Of a stream its length, where that is known, and its first EXAMPLES examples. The lengths by which batches are made
    count, too. Of tensors in memory all values (of very large ones: see `tensor_digests`); so for torch's own
    TensorDataset, and for a Subset of one. The examples are those of epoch 0.
    """
    digest = hashlib.sha256(f"{split.num_examples}".encode())
    if split.lengths is not None:
        feed_tensor(digest, split.lengths)
    tensors = split.tensors if split.tensors is not None else _tensors_in(split.dataset)
    if tensors is not None:
        for tensor in tensors:
            feed_tensor(digest, tensor)
        return digest.hexdigest()[:16]
    for index, example in _examples(split):
        digest.update(f"example {index}".encode())
        for leaf in leaves(example):
            if isinstance(leaf, torch.Tensor):
                feed_tensor(digest, leaf)
            else:
                digest.update(_of_leaf(leaf).encode())
    return digest.hexdigest()[:16]


def _examples(split: Split) -> Iterator[tuple[int, Any]]:
    """The examples of a dataset or stream that count, each with its index; before a user's collate changes them."""
    for index in range(split.up_to(EXAMPLES)) if split.stream is not None else spread(split.size):
        try:
            yield index, one_example(split, index)
        except StreamEnded:
            return


def data_digests(data: Data) -> dict[str, str]:
    """The digest of each split that there is; of a test split only where it lies in memory.

    Nothing but its score fetches examples of a test dataset.
    """
    found = {split.name: data_digest(split) for split in (data.training, data.validation)}
    if data.test is not None:
        with suppress(TunerError):  # scoring reports what a test split must be
            test = Split("test", data.test, _CPU, data.training.collate)
            found |= {"test": data_digest(test)} if test.tensors is not None else {}
    return found


def check_repeatable_data(workload: Workload, first: Data, known: Mapping[str, str]) -> None:
    """Raise WorkloadError when a second call of `data()` gives other data than the first; `known`: its digests."""
    second = data_digests(Data.of(workload, _CPU))
    name = type(workload).__name__
    for split in (first.training, first.validation):
        if second[split.name] == known[split.name]:
            continue
        if data_digest(split) != known[split.name]:
            raise WorkloadError(
                f"the {split.name} split of {name}.data() gives other examples each time it is asked for the same "
                "ones, from a generator of its own that is not seeded: draw from the global generators of torch, "
                "numpy or Python, which are seeded for each example, or make the examples once, in data()"
            )
        raise WorkloadError(
            f"{name}.data() gives other data at each call: the {split.name} split of a second call is not that of the "
            "first. The trials of a study, its workers and whoever goes on with it must all see the same data: seed "
            "what data() draws from, as random.Random(0), numpy.random.default_rng(0) or "
            "torch.Generator().manual_seed(0) do, and sort what has no order of its own (sets, files of a folder)"
        )


def spread(count: int) -> list[int]:
    """Indices over all of `count` examples: one drawn in each of EXAMPLES equal parts, always the same ones."""
    if count <= EXAMPLES:
        return list(range(count))
    drawn = torch.rand(EXAMPLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    edges = [place * count // EXAMPLES for place in range(EXAMPLES + 1)]
    inside = [low + int(share * (high - low)) for share, low, high in zip(drawn, edges, edges[1:], strict=False)]
    return [0, *inside[1:-1], count - 1]


def _tensors_in(dataset: Any) -> list[torch.Tensor] | None:
    if type(dataset) is TensorDataset:
        return list(dataset.tensors)
    if type(dataset) is Subset and isinstance(dataset.indices, Sized):
        below = _tensors_in(dataset.dataset)
        return None if below is None else [torch.as_tensor(list(dataset.indices)), *below]
    return None


def leaves(batch: Any) -> Iterator[Any]:
    """What a batch holds, in dicts and sequences of any depth."""
    if isinstance(batch, dict):
        batch = [part for key in sorted(batch, key=repr) for part in (key, batch[key])]
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from leaves(part)
    else:
        yield batch


def _of_leaf(leaf: object) -> str:
    """Of what is no tensor; what cannot be told apart counts by its type."""
    try:
        return value_digest(leaf)
    except NoDigest as error:
        return error.kind
