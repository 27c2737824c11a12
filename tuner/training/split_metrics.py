"""Metrics of a whole split: the values of all its examples, put together, and what `split_metrics` makes of them.

F1, AUC, R2 and the like are no means of the metrics of batches: what they are made of is kept for each example until
the split was seen once.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch

from tuner.design.workload import Workload
from tuner.errors import WorkloadError

ON_DEVICE = 256 * 2**20  # bytes that are kept on a GPU until they are copied to the CPU at once
_FLOAT = "a metric of a split is one number, float(...), or None where it has no value"


class Gathered:
    """What `metrics` returned for all examples so far, copied: a workload may use its memory again.

    Floats are kept in float64, on `device` in the end. size: for so many examples there is room from the beginning:
    small tensors that come and go between the large ones of a model make an evaluation on the CPU a tenth slower.
    trials: of a group, whose values are kept together.
    """

    def __init__(self, owner: str, device: torch.device, size: int, trials: int = 1) -> None:
        self.owner = owner
        self.device = device
        self.size = size
        self.trials = trials
        self._rows: dict[str, torch.Tensor] = {}  # [trials, room, ...] by name
        self._lists: dict[str, list[torch.Tensor]] = {}
        self._filled: dict[str, int] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of the values of all examples that there is room for."""
        of_lists = sum(each.nbytes for values in self._lists.values() for each in values)
        return sum(rows.nbytes for rows in self._rows.values()) + of_lists

    def add(self, name: str, values: torch.Tensor | Sequence[torch.Tensor]) -> None:
        """Keep the values of one batch: a tensor [examples, ...], or a tensor for each example.

        Raises WorkloadError where those of one example have another shape than those of the batch before.
        """
        if isinstance(values, torch.Tensor) and name not in self._lists:
            self.add_rows(name, values[None])
            return
        if name in self._rows or isinstance(values, torch.Tensor):
            self._refuse(name, *("a tensor", "a list")[:: 1 if name in self._rows else -1])
        self._lists.setdefault(name, []).extend(_copied(each) for each in values)
        self._filled[name] = self._filled.get(name, 0) + len(values)

    def add_rows(self, name: str, values: torch.Tensor, first: int = 0) -> None:
        """The same of several trials, from number `first` on: [trials, examples, ...]."""
        values = values.detach()
        if not first:  # the other trials follow with the same examples
            self._filled[name] = self._filled.get(name, 0) + values.shape[1]
        start, kind, rows = self._filled[name] - values.shape[1], _kind(values), self._rows.get(name)
        if rows is not None and (rows.shape[2:] != values.shape[2:] or rows.dtype != kind):
            before, now = (f"{tuple(one.shape[2:])} of {_kind(one)}" for one in (rows, values))
            self._refuse(name, before, now)
        if rows is None or rows.shape[1] < start + values.shape[1]:
            rows = self._rows[name] = self._with_room(rows, start, values)
        rows[first : first + len(values), start : start + values.shape[1]].copy_(values)

    def _refuse(self, name: str, before: str, now: str) -> None:
        raise WorkloadError(
            f"{self.owner}.metrics returns {name!r} as {before} for each example, and as {now} in another batch; where "
            "examples differ in shape return a list of one tensor for each example, without what pads it"
        )

    def _with_room(self, rows: torch.Tensor | None, start: int, values: torch.Tensor) -> torch.Tensor:
        """Room for the values and all that are expected, with the rows that are there."""
        room = max(self.size, start + values.shape[1], 0 if rows is None else 2 * rows.shape[1])
        shape, kind = (self.trials, room, *values.shape[2:]), _kind(values)
        num_bytes = math.prod(shape) * kind.itemsize + sum(rows.nbytes for rows in self._rows.values())
        larger = torch.empty(shape, dtype=kind, device=values.device if num_bytes <= ON_DEVICE else self.device)
        if rows is not None:
            larger[:, :start].copy_(rows[:, :start])
        return larger

    def of_trials(self, total: int) -> dict[str, torch.Tensor]:
        """The values of all trials by name, [trials, examples, ...].

        Raises WorkloadError where there are not `total` examples.
        """
        for name, count in self._filled.items():
            if count != total:
                raise WorkloadError(
                    f"{self.owner}.metrics returned {name!r} for {count:,} of {total:,} examples; return the same "
                    "names for each batch"
                )
        return {name: rows[:, :total].to(self.device) for name, rows in self._rows.items()}

    def whole(self, total: int) -> dict[str, Any]:
        """The values by name, in the order in which `metrics` names them: tensors [examples, ...], or lists of tensors.

        Raises WorkloadError where there are not `total` examples.
        """
        rows = self.of_trials(total)
        return {
            name: rows[name][0] if name in rows else [each.to(self.device) for each in self._lists[name]]
            for name in self._filled
        }


def _kind(values: torch.Tensor) -> torch.dtype:
    return torch.float64 if values.is_floating_point() else values.dtype


def _copied(values: torch.Tensor) -> torch.Tensor:
    return values.detach().to(_kind(values), copy=True, memory_format=torch.contiguous_format)


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
