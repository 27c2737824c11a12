"""What code remembers in Python from one step to the next: a recording would freeze it."""

import copy
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from tuner.errors import NotFusible
from tuner.training.trial_run import TrialRun

_EXAMPLES = 2
_DEPTH, _FEW = 3, 100  # so deep, and in so short lists, it is looked for
_OTHERS = (torch.Tensor, torch.nn.Module, type, types.FunctionType, types.MethodType, types.ModuleType)


def remembered(owner: object, model: torch.nn.Module) -> dict[str, object]:
    """The numbers and texts that a workload, a model and its modules hold, by where they stand."""
    found = dict(_plain(owner, type(owner).__name__, _DEPTH))
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key != "training":
                found |= _plain(value, f"{name}.{key}".strip("."), _DEPTH)
    return found


@contextmanager
def left_as_it_was(owner: object) -> Iterator[None]:
    """What the code of a workload puts into it meanwhile is taken out again: it belongs to no trial."""
    held = getattr(owner, "__dict__", {})
    before = dict(held)
    try:
        yield
    finally:
        held.clear()
        held.update(before)


def check_evaluation(run: TrialRun) -> None:
    """Raise NotFusible where an evaluation changes what a model remembers in Python, and training may read."""
    workload, model, change = run.setting.workload, copy.deepcopy(run.model).eval(), ""
    with torch.no_grad(), left_as_it_was(workload), suppress(Exception):  # an error shows when it is evaluated
        batch = run.setting.data.validation.first(_EXAMPLES)
        workload.metrics(model, batch)
        before = remembered(None, model)
        workload.metrics(model, batch)
        change = changed(before, remembered(None, model))
    if change:
        raise NotFusible(f"each evaluation changes {change}, which a recording would freeze")


def _plain(value: Any, name: str, depth: int) -> Iterator[tuple[str, object]]:
    if isinstance(value, bool | int | float | str):
        yield name, value
    elif depth and not isinstance(value, _OTHERS):
        for key, each in _inside(value):
            yield from _plain(each, f"{name}{key}", depth - 1)


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple) and len(value) <= _FEW:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return ((f"[{key!r}]", each) for key, each in pairs)
    return ((f".{key}", each) for key, each in getattr(value, "__dict__", {}).items())


def changed(before: dict[str, object], after: dict[str, object]) -> str:
    """What is new or another than before, and how; empty where nothing is."""
    for name, value in after.items():
        if before.get(name, before) != value:
            return f"{name} to {value!r}"
    return ""
