"""What a workload's data may be: splits of tensors, datasets and streams; and padding to a few widths.

This module does not import torch: tensors are `Any` here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tuner.errors import DeclarationError, WorkloadError

MOST_WIDTHS = 4  # forms of batches that trials which train together record; see `fused.group`
_CANDIDATES = 256  # lengths that are tried as widths


@dataclass(frozen=True, slots=True)
class Stream:
    """Examples that come one after another, in one order: a split that is too large, or too slow, to be indexed.

    at: `at(start)` gives an iterator over the examples from number `start` on, counted from 0. `at(start)` and `at(0)`
    without its first `start` examples must be the same: a trial that is resumed at step s reads on at
    `at(s * batch_size)`. What an example draws from the global generators is seeded from (data seed, its number).
    length: of how many examples the stream is. A split that is evaluated needs it; without it a training split must
    not end before the training does. Raises DeclarationError for any other value.
    seekable: whether `at(start)` is about as quick as the next example, wherever it begins. Where several processes
    train one trial, each opens the stream again at its own part of every batch then; else it reads past the examples of
    the others. The examples are the same.
    """

    at: Callable[[int], Iterator[Any]]
    length: int | None = None
    seekable: bool = False

    def __post_init__(self) -> None:
        if not callable(self.at):
            raise DeclarationError(
                f"Stream takes a function of the first example's number, got {type(self.at).__name__}: write "
                "Stream(at=lambda start: ...), which gives an iterator over the examples from number `start` on"
            )
        if self.length is not None and (type(self.length) is not int or self.length < 1):
            raise DeclarationError(f"the length of a Stream is its number of examples, from 1 on; got {self.length!r}")


@dataclass(frozen=True, slots=True)
class Splits:
    """The data, split. Each split is a tuple of tensors [examples, ...] in memory, a map-style dataset, or a Stream.

    A dataset's examples are tensors, arrays, numbers or texts in tuples, named tuples, dataclasses or mappings, nested
    to any depth; a batch has the type of its examples. `__getitem__` may draw random numbers (crop, flip, noise) from
    torch's, NumPy's and Python's global generators: they are seeded for each example from (data seed, epoch, index),
    so that every epoch has its own and a trial can be resumed with the same bits. Random numbers of evaluated examples
    are drawn once for all. A generator of the dataset's own is refused, because the program cannot seed it.
    Where the workload has a `collate`, a list of examples is a dataset, too.

    The test split decides nothing: it is scored once, on request, at the end.
    """

    training: Any
    validation: Any
    test: Any = None


def padded(sequences: Sequence[Any], widths: Sequence[int] | None = None, value: float = 0) -> Any:
    """Tensors [length, ...] of different lengths as one [sequences, width, ...], with `value` behind their ends.

    widths: the batch gets the smallest of them that holds its longest sequence, so that all batches together have few
    shapes (`few_widths`); without them it is as wide as that. Raises WorkloadError for a sequence that is longer than
    all of them, and for tensors that differ in more than their length.
    """
    kinds = {f"{one.dtype} [{', '.join(['length', *map(str, one.shape[1:])])}]" for one in sequences}
    if len(kinds) != 1:
        raise WorkloadError(
            "padded() takes at least one tensor [length, ...], all of one dtype and shape besides their length; got "
            f"{' and '.join(sorted(kinds)) or 'none'}"
        )
    longest = max(len(one) for one in sequences)
    width = longest if widths is None else min((one for one in widths if one >= longest), default=None)
    if width is None:
        raise WorkloadError(
            f"a sequence of length {longest:,} is longer than the largest width, {max(widths or [0]):,}: cut it, or "
            "give a larger width"
        )
    batch = sequences[0].new_full((len(sequences), width, *sequences[0].shape[1:]), value)
    for row, one in zip(batch, sequences, strict=True):
        row[: len(one)] = one
    return batch


def few_widths(lengths: Sequence[int], most: int = MOST_WIDTHS) -> tuple[int, ...]:
    """At most so many widths, the last of them the greatest length, to which these lengths are padded with least waste.

    The waste is counted as if each were padded by itself; with `lengths()` a batch's are about alike.
    """
    counts = Counter(int(one) for one in lengths)
    known = sorted(counts)
    if not known or most < 1 or known[0] < 0:
        raise WorkloadError(
            f"few_widths() takes some lengths from 0 on, and at least 1 width; got {lengths!r:.60} and {most}"
        )
    numbers = [0, *accumulate(counts[one] for one in known)]
    sums = [0, *accumulate(counts[one] * one for one in known)]
    step = -(-len(known) // _CANDIDATES)
    ends = [*range(len(known) - 1, -1, -step)][::-1]  # places of the lengths that may be a width

    def waste(below: int, end: int) -> int:
        """Of the lengths from place `below` to `end`, all padded to the one at `end`."""
        return known[end] * (numbers[end + 1] - numbers[below]) - (sums[end + 1] - sums[below])

    best: dict[int, tuple[int, tuple[int, ...]]] = {end: (waste(0, end), (known[end],)) for end in ends}
    for _ in range(most - 1):
        best = {
            end: min(
                [best[end]]
                + [(best[last][0] + waste(last + 1, end), (*best[last][1], known[end])) for last in ends if last < end]
            )
            for end in ends
        }
    return best[ends[-1]][1]
