"""What code keeps in Python from one step to the next: no checkpoint holds it, and a recording would freeze it."""

import hashlib
import itertools
import random
import sys
import types
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch

_DEPTH, _FEW = 3, 100  # so deep, and in so short lists, it is looked for
_PLAIN = (bool, int, float, str, types.NoneType)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
_OTHERS = (torch.nn.Module, type, types.MethodType, types.ModuleType)
_NOT_OF_USERS = frozenset({"torch", "tuner", "builtins"})
_OF_TORCH = frozenset({"_parameters", "_buffers", "_modules", "training", "_flat_weights", "_flat_weight_refs"})


def remembered(owner: object, model: torch.nn.Module) -> dict[str, object]:
    """What a workload, a model and its modules hold, their classes and files too, by where it stands.

    Numbers and texts, the lengths of lists, the states of generators, and tensors that are no parameters or buffers.
    """
    found: dict[str, object] = {}
    kinds = _kinds(owner, *model.modules())
    for file in dict.fromkeys(kind.__module__ for kind in kinds):
        found |= _held(vars(sys.modules[file]).items(), file, 1)
    for kind in kinds:
        found |= _held(vars(kind).items(), kind.__name__, 1)
    found |= _plain(owner, type(owner).__name__, _DEPTH)
    for name, module in model.named_modules():
        found |= _held(attributes(module), name, _DEPTH)
    return found


def attributes(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module holds besides its parameters, buffers and modules; hooks without the numbers of their handles."""
    for key, value in vars(module).items():
        if "_hooks" in key and isinstance(value, dict):
            if value:
                yield key, list(value.values())
        elif key not in _OF_TORCH:
            yield key, value


def _kinds(*values: object) -> list[type]:
    """The users' own classes among those of some values."""
    every = dict.fromkeys(kind for value in values for kind in type(value).__mro__)
    files = {kind: kind.__module__ for kind in every if kind.__module__ in sys.modules}
    return [kind for kind, file in files.items() if file.split(".")[0] not in _NOT_OF_USERS]


def _held(pairs: Iterable[tuple[str, Any]], where: str, depth: int) -> dict[str, object]:
    """What stands behind some names, without Python's own."""
    own = {f"{where}.{key}".strip("."): value for key, value in pairs if not key.startswith("__")}
    return {place: each for name, value in own.items() for place, each in _plain(value, name, depth)}


def _plain(value: Any, name: str, depth: int) -> Iterator[tuple[str, object]]:
    """What is plain in a value, so deep, each with its name."""
    if isinstance(value, (*_PLAIN, torch.Tensor)):
        yield name, value
    elif isinstance(value, np.ndarray | np.generic):
        yield name, value.tolist() if value.size <= _FEW else value.shape
    elif isinstance(value, _GENERATORS):
        yield f"the state of {name}", _state_of(value)
    elif isinstance(value, itertools.count):
        yield name, repr(value)
    elif depth and not isinstance(value, _OTHERS):
        for key, each in _inside(value):
            yield from _plain(each, f"{name}{key}", depth - 1)


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables that a function (a hook, for example) closes over; among them may be a whole model."""
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not set yet
            value = cell.cell_contents
            pairs = attributes(value) if isinstance(value, torch.nn.Module) else [("", value)]
            yield from ((f"'s {variable}.{key}".strip("."), each) for key, each in pairs)


def _state_of(generator: Any) -> str:
    """A word for where a generator stands."""
    state: object
    if isinstance(generator, random.Random):
        state = generator.getstate()
    elif isinstance(generator, np.random.RandomState):
        state = generator.get_state(legacy=False)
    else:
        state = generator.bit_generator.state
    return hashlib.sha256(repr(state).encode()).hexdigest()[:8]


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _CONTAINERS):
        yield " (length)", len(value)
        if len(value) <= _FEW and not isinstance(value, set | frozenset):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            yield from ((f"[{key!r}]", each) for key, each in pairs)
        return
    if isinstance(value, types.FunctionType):
        yield from _closed_over(value)
        return
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    names = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    yield from ((f".{key}", each) for key, each in names.items())


def changed(before: dict[str, object], after: dict[str, object], read: Collection[int] = ()) -> str:
    """What is new or another than before, and how; empty where nothing is. `read`: ids of the tensors that were read.

    A tensor that is written at each step and never read does not count.
    """
    for name, value in after.items():
        old = before.get(name, before)
        if isinstance(old, torch.Tensor) or isinstance(value, torch.Tensor):
            if old is not value and (id(old) in read or not isinstance(old, torch.Tensor)):
                return f"the tensor {name}"
        elif old is not value and old != value:  # the first for what is not even equal to itself
            return f"{name} to {value!r}"
    return ""
