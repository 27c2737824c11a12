"""Digests of Python values: what a workload was made with, what a dataset's examples hold.

Plain values by what they are, classes and functions by name (their code is told apart where it stands) or, where they
have no name in a module, by their code and what it closes over; objects by their type and what they hold. A value
whose meaning is not in it (an open file, a generator, a lock) raises NoDigest.
"""

import copyreg
import enum
import functools
import hashlib
import io
import logging
import random
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from tuner.sources.bytecode import code_digest
from tuner.training.compiled import is_compiled, original
from tuner.training.tensor_digests import feed_tensor

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
_BY_TEXT = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, np.dtype, range, slice)
_CALLABLES = (types.FunctionType, types.BuiltinFunctionType, type)
_MOST_DEPTH = 100


class NoDigest(Exception):
    """A value that cannot be told apart from another one: `place` in what was asked about, and its type."""

    def __init__(self, place: str, value: object) -> None:
        kind = type(value)
        self.place = place
        self.kind = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        super().__init__(f"{place} is a {self.kind}")


def value_digest(
    value: object, place: str = "the value", *, folder: Path | None = None, modules: set[str] | None = None
) -> str:
    """16 hex digits. `place` names the value in NoDigest. `folder`: paths below it count from there.

    `modules` takes the names of the modules that define the classes and functions met on the way.
    """
    feeding = _Feeding(hashlib.sha256(), folder, set() if modules is None else modules)
    feeding.feed(value, place)
    return str(feeding.digest.hexdigest())[:16]


class _Feeding:
    """One value on its way into a digest; `around` are the objects that hold the one at hand, by address."""

    def __init__(self, digest: Any, folder: Path | None, modules: set[str]) -> None:
        self.digest = digest
        self.folder = str(folder) if folder else None
        self.modules = modules
        self.around: dict[int, int] = {}

    def say(self, *words: object) -> None:
        text = "\0".join(map(str, words))
        self.digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def feed(self, value: Any, place: str) -> None:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self._feed_plain(value)
        elif isinstance(value, enum.Enum):
            self._say_name("enum", type(value))
            self.say(value.name)
            self.feed(value.value, f"{place}.value")
        elif id(value) in self.around:
            self.say("the one around, at", self.around[id(value)])
        elif len(self.around) > _MOST_DEPTH:
            raise NoDigest(place, value)
        else:
            self.around[id(value)] = len(self.around)
            self._feed_whole(value, place)
            del self.around[id(value)]

    def _feed_plain(self, value: object) -> None:
        if isinstance(value, str) and self.folder and value.startswith(self.folder):
            value = "<folder of the study>" + value[len(self.folder) :]
        self.say(type(value).__name__, value.hex() if isinstance(value, float | bytes) else repr(value))

    def _feed_whole(self, value: Any, place: str) -> None:
        if isinstance(value, np.generic) or type(value) in (np.ndarray, np.memmap):
            self._feed_array(value, place)
        elif type(value) in (dict, types.MappingProxyType):
            self._feed_dict(value, place)
        elif type(value) in (list, tuple):
            self._feed_sequence(value, place)
        elif isinstance(value, Set):
            self.say(type(value).__name__, *sorted(self._apart(one, place) for one in value))
        else:
            feeds = (feed for kinds, feed in _FEEDS if isinstance(value, kinds))
            next(feeds, _Feeding._feed_object)(self, value, place)

    def _feed_dict(self, value: Mapping[Any, Any], place: str) -> None:
        self.say("dict", len(value))
        for key, held in value.items():
            self.feed(key, f"a key of {place}")
            self.feed(held, f"{place}[{key!r:.40}]")

    def _feed_tensor(self, value: torch.Tensor, place: str) -> None:
        self.say(type(value).__name__, value.requires_grad, value.device.type)
        feed_tensor(self.digest, value)

    def _feed_text(self, value: object, place: str) -> None:
        self.say(type(value).__name__)
        self._feed_plain(str(value) if isinstance(value, PurePath) else repr(value))

    def _feed_name(self, value: Any, place: str) -> None:
        """Of a module or a logger."""
        self.say(type(value).__name__, value.__name__ if isinstance(value, types.ModuleType) else value.name)

    def _feed_partial(self, value: functools.partial[Any], place: str) -> None:
        self.say("partial")
        self._feed_sequence((value.func, value.args, value.keywords), place)

    def _feed_method(self, value: types.MethodType, place: str) -> None:
        self.say("method", value.__func__.__qualname__)
        self._feed_sequence((value.__self__, value.__func__), place)

    def _feed_random(self, value: Any, place: str) -> None:
        self.say(type(value).__name__)
        self.feed(value.get_state() if isinstance(value, torch.Generator) else value.getstate(), place)

    def _refuse(self, value: object, place: str) -> None:
        raise NoDigest(place, value)

    def _apart(self, value: object, place: str) -> str:
        folder = Path(self.folder) if self.folder else None
        return value_digest(value, f"a member of {place}", folder=folder, modules=self.modules)

    def _feed_sequence(self, value: list[Any] | tuple[Any, ...], place: str) -> None:
        self.say(type(value).__name__, len(value))
        for number, held in enumerate(value):
            self.feed(held, f"{place}[{number}]")

    def _feed_array(self, value: Any, place: str) -> None:
        array = np.asarray(value)
        self.say(type(value).__name__, array.dtype, array.shape)
        if array.dtype.hasobject:
            self._feed_sequence(array.flatten().tolist(), place)
        elif array.size:
            feed_tensor(self.digest, torch.from_numpy(np.frombuffer(bytearray(array.tobytes()), np.uint8)))

    def _say_name(self, what: str, thing: Any) -> None:
        for kind in thing.__mro__ if isinstance(thing, type) else (thing,):
            self.modules.add(str(getattr(kind, "__module__", "")))
        self.say(what, *_name_of(thing))

    def _feed_named(self, value: Any, place: str) -> None:
        """A class or function by its name, where that leads to it; else by what it is made of."""
        if is_compiled(value):
            self.say("compiled")
            value = original(value)
        self._say_name("named", value)
        if is_found_by_name(value):
            return
        if isinstance(value, types.FunctionType):
            self.feed_function(value, place)
        elif isinstance(value, type):
            self._feed_class(value, place)
        elif isinstance(value.__self__, types.ModuleType | type):
            self._say_name("of", value.__self__)
        else:  # a method of an object in C
            self.feed(value.__self__, place)

    def feed_function(self, function: types.FunctionType, place: str) -> None:
        """Its code, its defaults and what it closes over."""
        self.say("code", code_digest(function.__code__))
        self._feed_sequence((function.__defaults__ or (), function.__kwdefaults__ or {}), place)
        for name, cell in closed_over(function):
            self.feed(cell, f"{place}, which uses {name}")

    def _feed_class(self, value: type, place: str) -> None:
        self._feed_sequence(value.__bases__, place)
        for name, held in sorted(vars(value).items()):
            if name in _OF_EVERY_CLASS:
                continue
            self.say(name)
            inner = held.__func__ if isinstance(held, classmethod | staticmethod) else held
            if isinstance(inner, property):
                self._feed_sequence((inner.fget, inner.fset), place)
            elif not isinstance(inner, _IN_C):
                self.feed(inner, f"{place}.{name}")

    def _feed_module(self, value: torch.nn.Module, place: str) -> None:
        """Its type, and of what every torch module has only what is not empty; of a compiled one what was compiled."""
        if is_compiled(value):
            self.say("compiled")  # how, the code of the study says; what torch made of it differs in each process
            value = original(value)
        self._say_name("module", type(value))
        if not is_found_by_name(type(value)):
            self._feed_class(type(value), place)
        empty = {name for name, held in vars(value).items() if name.startswith("_") and not held}
        state = {name: held for name, held in vars(value).items() if name not in {*empty, "_compiled_call_impl"}}
        for name, held in state.items():
            self.say(name)
            self.feed(held, f"{place}.{name}")

    def _feed_object(self, value: Any, place: str) -> None:
        """An object of any class by what copying it would take; the parts are looked at, nothing is called again."""
        reduced = copyreg.dispatch_table.get(type(value))
        try:
            parts: Any = reduced(value) if reduced else value.__reduce_ex__(4)
        except Exception as error:
            raise NoDigest(place, value) from error
        self._say_name("object", type(value))
        if not is_found_by_name(type(value)):
            self._feed_class(type(value), place)
        if isinstance(parts, str):
            self.say(parts)
            return
        made_by, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        self._say_name("made by", made_by)
        self._feed_sequence([one for one in arguments if one is not type(value)], place)
        self._feed_state(state, place)
        self._feed_sequence([list(items or ()), list(pairs or ())], place)

    def _feed_state(self, state: Any, place: str) -> None:
        if isinstance(state, dict):
            for name, held in state.items():
                self.say(name)
                self.feed(held, f"{place}.{name}")
        elif isinstance(state, tuple) and all(isinstance(part, dict | None) for part in state):
            for part in state:  # attributes, and slots
                self._feed_state(part or {}, place)
        else:
            self.feed(state, place)


_Feed = Callable[[_Feeding, Any, str], None]
_FEEDS: tuple[tuple[Any, _Feed], ...] = (
    (torch.Tensor, _Feeding._feed_tensor),
    ((*_BY_TEXT, PurePath), _Feeding._feed_text),
    ((types.ModuleType, logging.Logger), _Feeding._feed_name),
    (functools.partial, _Feeding._feed_partial),
    (types.MethodType, _Feeding._feed_method),
    (_CALLABLES, _Feeding._feed_named),
    ((torch.Generator, random.Random), _Feeding._feed_random),
    ((types.GeneratorType, io.IOBase), _Feeding._refuse),
    (torch.nn.Module, _Feeding._feed_module),
)
_OF_EVERY_CLASS = ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__",
                   "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__")  # fmt: skip


# Parts of a class that is written in C: its name says what they do.
_IN_C = (types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType,
         types.MethodDescriptorType, types.ClassMethodDescriptorType)  # fmt: skip


def is_found_by_name(thing: Any) -> bool:
    """Whether a class or function is what its module knows under its name."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    for part in name.split("."):
        found = getattr(found, part, None) if found is not None and part != "<locals>" else None
    return found is not None and found is thing


def closed_over(function: Callable[..., Any]) -> Iterator[tuple[str, object]]:
    """The names of outer functions that a function uses, with their values."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if isinstance(function, types.FunctionType) else ()
    for name, cell in zip(names, cells, strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # has no value yet
            continue


def _name_of(thing: Any) -> tuple[str, str]:
    """Module and name; of a study file, which has another module name in each process, without the module."""
    module, name = str(getattr(thing, "__module__", "")), str(getattr(thing, "__qualname__", thing))
    return ("" if module.startswith("tuner_study_") or module == "__main__" else module), name
