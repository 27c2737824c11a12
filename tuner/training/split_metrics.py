"""Metrics of a whole split: the values of all its examples, put together, and what `split_metrics` makes of them.

F1, AUC, R2 and the like are no means of the metrics of batches: what they are made of is kept for each example until
the split was seen once.
"""

import numbers
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch

from tuner.design.workload import Workload
from tuner.errors import WorkloadError

ON_DEVICE = 64 * 2**20  # bytes that wait on a GPU for the copy to the CPU
_FLOAT = "a metric of a split is one number, float(...), or None where it has no value"


class Gathered:
    """What `metrics` returned for all examples so far, copied: a workload may use its memory again.

    Floats are kept in float64, on `device`. dim: the dimension of the examples; 1 behind that of the trials of a group.
    """

    def __init__(self, owner: str, device: torch.device, dim: int = 0) -> None:
        self.owner = owner
        self.device = device
        self.dim = dim
        self.num_bytes = 0
        self._parts: dict[str, list[torch.Tensor]] = {}
        self._elsewhere = 0  # bytes that are not on `device` yet
        self._ragged: set[str] = set()

    def add(self, name: str, values: torch.Tensor | Sequence[torch.Tensor]) -> None:
        """Keep the values of one batch: a tensor [examples, ...], or a tensor for each example.

        Raises WorkloadError where those of one example have another shape than those of the batch before.
        """
        known = self._parts.setdefault(name, [])
        if isinstance(values, torch.Tensor):
            self._check_shape(name, values)
            new = [_copied(values)]
        else:
            self._ragged.add(name)
            new = [_copied(each) for each in values]
        known += new
        self.num_bytes += sum(part.nbytes for part in new)
        self._elsewhere += sum(part.nbytes for part in new if part.device != self.device)
        if self._elsewhere > ON_DEVICE:
            self._move()

    def _check_shape(self, name: str, values: torch.Tensor) -> None:
        known = self._parts[name]
        if name not in self._ragged and (not known or known[0].shape[self.dim + 1 :] == values.shape[self.dim + 1 :]):
            return
        before = "a list" if name in self._ragged else f"{tuple(known[0].shape[1:])} for each example"
        raise WorkloadError(
            f"{self.owner}.metrics returned {name!r} as {before}, and as {tuple(values.shape[1:])} in a later batch; "
            "where examples differ in shape return a list of one tensor for each example, without what pads it"
        )

    def _move(self) -> None:
        for name, parts in self._parts.items():
            self._parts[name] = [part.to(self.device) for part in parts]
        self._elsewhere = 0

    def whole(self, total: int) -> dict[str, Any]:
        """The values by name: tensors [examples, ...], or lists of a tensor for each example.

        Raises WorkloadError where there are not `total` examples.
        """
        found: dict[str, Any] = {}
        for name, parts in self._parts.items():
            ragged = name in self._ragged
            held: Any = [part.to(self.device) for part in parts] if ragged else torch.cat(_on_one(parts), self.dim)
            count = len(held) if ragged else held.shape[self.dim]
            if count != total:
                raise WorkloadError(
                    f"{self.owner}.metrics returned {name!r} for {count:,} of {total:,} examples; return the same "
                    "names for each batch"
                )
            found[name] = held if ragged else held.to(self.device)
        return found


def _copied(values: torch.Tensor) -> torch.Tensor:
    kind = torch.float64 if values.is_floating_point() else values.dtype
    return values.detach().to(kind, copy=True, memory_format=torch.contiguous_format)


def _on_one(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """All on the device of the first of them: on the CPU where some were moved there already."""
    return [part.to(parts[0].device) for part in parts]


class _Each(dict[str, Any]):
    """What `split_metrics` is given; a name that is not there is an error that names those that are."""

    def __init__(self, owner: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._owner = owner

    def __missing__(self, name: object) -> Any:
        owner = self._owner
        raise WorkloadError(
            f"{owner}.split_metrics reads {name!r}, which {owner}.metrics does not return{nearest(name, self)}"
        )


def nearest(name: object, names: Mapping[str, Any]) -> str:
    """The end of a message about a name that is not there: what it may have meant, and what there is."""
    close = get_close_matches(str(name), list(names), n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{meant} there are: {', '.join(map(repr, names))}"


def split_measured(workload: Workload, each: Mapping[str, Any], averaged: Sequence[str]) -> dict[str, float | None]:
    """The metrics of the whole split, by name; None for one that has no value.

    averaged: names of metrics that are means over the examples. Raises WorkloadError for what is no plain number, and
    for a name that is taken.
    """
    owner = type(workload).__name__
    with torch.no_grad():
        found: Any = workload.split_metrics(_Each(owner, each))
    if not isinstance(found, Mapping):
        raise WorkloadError(f"{owner}.split_metrics must return a dict of floats, got {type(found).__name__}")
    checked: dict[str, float | None] = {}
    for name, value in found.items():
        if not isinstance(name, str) or not name:
            raise WorkloadError(f"{owner}.split_metrics names a metric {name!r}; a name is a text")
        if name in averaged or name in workload.not_averaged:
            raise WorkloadError(
                f"{owner}.split_metrics returns {name!r}, which is a name of {owner}.metrics, too; give it another one"
            )
        checked[name] = None if value is None else _number(owner, name, value)
    return checked


def with_values(measured: Mapping[str, float | None]) -> dict[str, float]:
    """Those metrics that have a value."""
    return {name: value for name, value in measured.items() if value is not None}


def _number(owner: str, name: str, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        what = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise WorkloadError(f"{owner}.split_metrics returns {what} for {name!r}; {_FLOAT}")
    return float(value)
