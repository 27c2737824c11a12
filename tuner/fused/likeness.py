"""Whether models are alike but for the values of their tensors, looked at in Python: one stands for all of them.

Numbers and tensors that a module itself holds may differ: each trial is given its own. Whatever else a forward pass
could read (functions and what they close over, lists, dicts, objects of settings) has to be the same.
"""

import functools
import types
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tuner.errors import NotFusible
from tuner.training.python_state import attributes

_OF_CLASSES = frozenset({"__dict__", "__weakref__", "__doc__", "__slotnames__"})  # Python's own, the last by a copy


def check_alike(models: Sequence[torch.nn.Module]) -> None:
    """Raise NotFusible, naming what differs first, when one model cannot stand for all."""
    difference = difference_of(models)
    if difference:
        raise NotFusible(difference)


def difference_of(models: Sequence[torch.nn.Module]) -> str:
    """What differs first between models; empty where they are alike."""
    looks = [_Look.at(model) for model in models]
    found = (_first_difference(looks[0], other) for other in looks[1:])
    return next((f"the models of the trials are not alike: {name}" for name in found if name), "")


def largest_kind(models: Iterable[torch.nn.Module], enough: int) -> list[int]:
    """Places of models that are alike: as soon as there are so many, or at the end the most that are."""
    kinds: list[tuple[_Look, list[int]]] = []
    for place, model in enumerate(models):
        look = _Look.at(model)
        mates = next((mates for first, mates in kinds if not _first_difference(first, look)), None)
        if mates is None:
            mates = []
            kinds.append((look, mates))
        mates.append(place)
        if len(mates) == enough:
            return mates
    return max((mates for _, mates in kinds), key=len, default=[])


def _form(tensor: torch.Tensor) -> object:
    return type(tensor), tensor.shape, tensor.dtype, tensor.requires_grad


@dataclass(frozen=True, slots=True)
class _Look:
    """What is compared of a model: the forms of its tensors by name, and each module's attributes.

    `names`: by id, what the model knows its own modules and tensors by.
    """

    forms: dict[str, object]
    modules: list[tuple[str, torch.nn.Module, dict[str, Any]]]
    names: dict[int, str]

    @classmethod
    def at(cls, model: torch.nn.Module) -> "_Look":
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        modules = [(name, module, dict(attributes(module))) for name, module in model.named_modules()]
        forms: dict[str, object] = {f"parameter {name}": _form(each) for name, each in parameters.items()}
        forms |= {f"buffer {name}": _form(each) for name, each in buffers.items()}
        forms |= {f"module {name}": name for name, _, _ in modules}
        names = {id(each): f"tensor {name}" for name, each in (parameters | buffers).items()}
        return cls(forms, modules, names | {id(module): f"module {name}" for name, module, _ in modules})


def _first_difference(first: _Look, other: _Look) -> str:
    for name in first.forms | other.forms:
        if first.forms.get(name) != other.forms.get(name):
            return name
    alike = _Likeness(first.names, other.names)
    for (name, mine, own), (_, theirs, others) in zip(first.modules, other.modules, strict=True):
        if not alike(type(mine), type(theirs)):
            return f"module {name}"
        for key in own | others:
            if key not in own or key not in others or not _goes_with(alike, own[key], others[key]):
                return f"{name}.{key}".strip(".") + _advice(own.get(key))
    return ""


def _advice(value: Any) -> str:
    """What to do about tensors and modules that stand where torch does not look for them."""
    held = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(held, list | tuple):
        return ""
    kind = type(value).__name__
    if any(isinstance(each, torch.nn.Module) for each in held):
        return f", a {kind} of modules, which torch neither trains nor saves: write nn.ModuleList or nn.ModuleDict"
    if any(isinstance(each, torch.nn.Parameter) for each in held):
        return (
            f", a {kind} of parameters, which torch neither trains nor saves: write nn.ParameterList or ParameterDict"
        )
    if any(isinstance(each, torch.Tensor) for each in held):
        return f", a {kind} of tensors: hold each by register_buffer, or in an attribute of its own"
    if any(type(each) is float for each in held):
        return f", a {kind}: hold a number that differs between trials in an attribute of its own"
    return ""


def _goes_with(alike: "_Likeness", one: Any, other: Any) -> bool:
    """Whether two attributes are alike, or each trial can be given its own: both numbers, or tensors of one form."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return _form(one) == _form(other)
    return (type(one) is float and type(other) is float) or alike(one, other)


class _Likeness:
    """Compares values of two models; a part of the model itself is like the part of the same name."""

    def __init__(self, mine: Mapping[int, str], theirs: Mapping[int, str]) -> None:
        self.mine = mine
        self.theirs = theirs
        self.known: dict[tuple[int, int], tuple[Any, Any]] = {}  # alike, or being compared; kept alive for their ids

    def __call__(self, one: Any, other: Any) -> bool:
        if one is other or (id(one), id(other)) in self.known:
            return True
        if id(one) in self.mine or id(other) in self.theirs:
            return self.mine.get(id(one)) == self.theirs.get(id(other))
        if isinstance(one, type) and isinstance(other, type):
            return self._same_class(one, other)
        if not self(type(one), type(other)):
            return False
        self.known[id(one), id(other)] = one, other
        return self._same_value(one, other)

    def _same_value(self, one: Any, other: Any) -> bool:
        if isinstance(one, torch.Tensor):
            return _form(one) == _form(other) and torch.equal(one, other)
        if isinstance(one, np.ndarray):
            return one.dtype == other.dtype and np.array_equal(one, other)
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(map(self, one, other))
        if isinstance(one, Mapping):
            return self([*one.keys(), *one.values()], [*other.keys(), *other.values()])
        parts = _parts(one)
        return bool(one == other) if parts is None else self(parts, _parts(other))

    def _same_class(self, one: type, other: type) -> bool:
        """Classes that each model makes again (by a parametrization, in a function) are compared by their members."""
        if (one.__module__, one.__qualname__) != (other.__module__, other.__qualname__):
            return False
        self.known[id(one), id(other)] = one, other
        held = [{key: value for key, value in vars(each).items() if key not in _OF_CLASSES} for each in (one, other)]
        return self(held[0], held[1]) and self(one.__bases__, other.__bases__)


def _parts(value: Any) -> Any:
    """What decides how a function or an object acts; None for what cannot be looked into."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
    for kind, names in _INSIDE.items():
        if isinstance(value, kind):
            return [getattr(value, name) for name in names]
    compares_itself = "__eq__" in vars(type(value))
    return None if compares_itself else getattr(value, "__dict__", None)


_INSIDE: dict[type, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    property: ("fget", "fset"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    weakref.ReferenceType: (),
}
