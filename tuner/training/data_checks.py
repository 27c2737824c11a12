"""Whether examples and batches are what training asks for; a few of them are tested.

Functions of their place and of the seeds that they are given: the same when they are asked for again. And all of one
form: sizes may differ from batch to batch, but a loss could hardly read batches whose types, names of parts, data types
or numbers of dimensions do, and trials that train together record each form once more.
"""

import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from tuner.errors import WorkloadError
from tuner.training.batches import ONCE_FOR_ALL, Split, TrainingBatches
from tuner.training.containers import leaves, parts_of
from tuner.training.endings import before_training
from tuner.training.randomness import examples_seed
from tuner.training.streams import StreamEnded

MOST, LEAST, SECONDS = 32, 4, 1.0  # examples that are looked at, and after how long no more than the least
PLACES = (1, 2, 7, 31, 100, 256)  # where a stream is opened, to see whether it begins there
BATCHES = 4  # whose forms are compared, or two where they take so long
_ANY = "[...]"  # the place of all parts of a list
_OTHERS = examples_seed("others than those of evaluations")
Described = dict[str, str]  # each part of a batch by its place, "['x']", and what it is
_DEPTH = 3  # of objects that torch knows nothing of
_DRAW = (
    "draw from the global generators (torch.randn, np.random.normal, random.random), which are seeded for each {one}; "
    "or seed your own from the global one, np.random.default_rng(np.random.randint(2**31))"
)


def check_repeatable(split: Split) -> None:
    """Fetch a few examples twice. Raises WorkloadError where the second time gives others, at equal seeds.

    So for a batch that a user's `collate` makes, and for a stream that is opened at several places. Checked once for
    each split. It takes a second or two at most, but where four examples take longer.
    """
    if split.repeatable:
        return
    if split.stream is not None:
        _check_places(split)
    else:
        _check_examples(split)
    if split.collate is not None:
        several = _several(split)
        if not _same(split.take(several), split.take(several)):
            raise WorkloadError(
                f"collate makes another batch of the same examples of the {split.name} split when it is asked again, "
                "although the global generators are seeded alike: it draws from a generator of its own or reads a "
                "clock or a counter. A trial could not be resumed or repeated with the same bits: "
                f"{_DRAW.format(one='batch')}"
            )
    split.repeatable = True


def _check_examples(split: Split) -> None:
    changed = next(
        (index for index, one in dict(_some(split)).items() if not _same(one, one_example(split, index))), None
    )
    if changed is not None:
        raise WorkloadError(
            f"the {split.name} split gives another example {changed} when it is asked again, although the global "
            "generators are seeded alike: its dataset draws from a generator of its own (np.random.default_rng(), "
            "random.Random(), torch.Generator, albumentations) or reads a clock or a counter. A trial could not be "
            f"resumed or repeated with the same bits: {_DRAW.format(one='example')}, in __getitem__, or from the index"
        )


def _check_places(split: Split) -> None:
    """Raise WorkloadError where a stream that is opened elsewhere, or again, gives other examples."""
    first = dict(_first(split))
    for place in (0, *(one for one in PLACES if one in first)):
        opened = split.reader()
        for index in range(place, min(place + LEAST, len(first))):
            if _same(first[index], one_example(opened, index)):
                continue
            again = "another one when `at(0)` is read again" if place == 0 else f"not the first of `at({place})`"
            if index > place:
                again = f"another one when the stream is read from `at({place})`"
            raise WorkloadError(
                f"example {index} of the {split.name} stream is {again}: `at(start)` must give the examples from "
                "number `start` on, counted from 0, the same at each call, or no trial could be resumed with the same "
                "bits. Skip the first ones (dataset.skip(start), itertools.islice(examples, start, None)), and shuffle "
                "files and buffers with a seed that does not depend on `start`; what examples draw from the global "
                "generators is seeded for each"
            )


def random_example(split: Split) -> int | None:
    """The index of an example that is another one at other seeds; None where none of a few is.

    The first of a batch where it is the user's `collate` that draws.
    """
    if split.tensors is not None:
        return None
    other = split.reader()
    found = (index for index, one in _some(split) if not _same(one, one_example(other, index, _OTHERS)))
    drawn = next(found, None)
    if drawn is None and split.collate is not None:
        several = _several(split)
        return None if _same(split.take(several), split.take(several, _OTHERS)) else int(several[0])
    return drawn


def _some(split: Split) -> Iterator[tuple[int, Any]]:
    """A few examples from all over the split, or the first ones of a stream, each with its index."""
    if split.stream is not None:
        yield from _first(split)
        return
    spread = torch.linspace(0, split.size - 1, split.up_to(MOST), dtype=torch.float64).round()
    mixed = spread[torch.randperm(len(spread), generator=torch.Generator().manual_seed(0))]
    began = time.monotonic()
    for count, index in enumerate(int(each) for each in mixed):
        if count >= LEAST and time.monotonic() - began > SECONDS:
            return
        yield index, one_example(split, index)


def _first(split: Split) -> Iterator[tuple[int, Any]]:
    """The first examples of a stream, as far as it is opened elsewhere."""
    began, opened = time.monotonic(), split.reader()
    for index in range(split.up_to(PLACES[-1] + LEAST)):
        if index >= LEAST and time.monotonic() - began > SECONDS:
            return
        try:
            yield index, one_example(opened, index)
        except StreamEnded:
            return


def one_example(split: Split, index: int, seed: int = ONCE_FOR_ALL) -> Any:
    """An example; as it is where the user's `collate` makes the batches, which need not do with one.

    Raises WorkloadError naming it where it cannot be had.
    """
    plain = split.collate is None and split.stream is None
    wanted = torch.tensor([index])
    with before_training(f"example {index} of the {split.name} split"):
        return split.take(wanted, seed) if plain else split.examples(wanted, seed)[0]


def _several(split: Split) -> torch.Tensor:
    return torch.arange(split.up_to(LEAST))


def check_forms(split: Split, batches: TrainingBatches) -> None:
    """Raise WorkloadError where some of the first training batches differ in form.

    batches: of the trial that is tried. Does nothing to batches that the program makes itself.
    """
    if split.collate is None or split.tensors is not None:
        return
    first: Described | None = None
    for number, batch in _first_batches(batches):
        form = described(batch)
        first = form if first is None else first
        place = _difference(first, form)
        if place is None:
            continue
        raise WorkloadError(
            f"collate makes {split.name} batches of different forms: batch{place} is {first.get(place, 'not there')} "
            f"for update 1 and {form.get(place, 'not there')} for update {number + 1}; sizes may differ from batch to "
            "batch, types, names, data types and numbers of dimensions may not: let collate make them alike (an empty "
            "tensor for a part that is missing, .float() for numbers)"
        )


def _difference(one: Described, other: Described) -> str | None:
    """The first place at which two batches differ; None for batches of one form. A list may be empty in one of them."""
    places = (place for place in (*one, *other) if one.get(place) != other.get(place))
    return next((place for place in places if _ANY not in place or (place in one and place in other)), None)


def _first_batches(batches: TrainingBatches) -> Iterator[tuple[int, Any]]:
    """The first batches of the training, each with its step."""
    began, order = time.monotonic(), batches.order
    last = BATCHES if order.batches_per_epoch is None else min(BATCHES, order.batches_per_epoch)
    for step in range(last):
        if step >= 2 and time.monotonic() - began > SECONDS:
            return
        yield step, batches.fetched(step)


def described(batch: Any, place: str = "") -> Described:
    """What a batch is, part by part, but for its sizes and values; the parts of a list of like parts are told once."""
    if isinstance(batch, torch.Tensor):
        kind = "" if type(batch) is torch.Tensor else f"{type(batch).__name__} of "
        return {place: f"{kind}{batch.dtype} with {batch.dim()} dimension{'s' * (batch.dim() != 1)}"}
    parts = parts_of(batch)
    if parts is None:
        own = getattr(batch, "to_dict", None)  # graphs of PyTorch Geometric
        named = {place: "None" if batch is None else f"of type {type(batch).__name__}"}
        return described(own(), place) | named if callable(own) else named
    found = {place: f"of type {type(batch).__name__}"}
    inside = [described(value) for _, value in parts]
    listed = isinstance(batch, list) and all(one == inside[0] for one in inside)
    for (key, _), part in zip(parts, inside, strict=True):
        found |= {f"{place}{_ANY if listed else f'[{key!r}]'}{below}": what for below, what in part.items()}
    return found


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
