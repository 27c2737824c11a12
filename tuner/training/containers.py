"""Examples and batches of any form (tuples, named tuples, dataclasses, mappings, nested), which keep their types."""

import copy
from collections import UserDict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from tuner.errors import WorkloadError

Key = Any  # of a mapping, the name of a field, or a place in a sequence


def collated(examples: Sequence[Any]) -> Any:
    """Examples as one batch of their form, whose leaves are made by torch's `default_collate`.

    A tuple becomes a tuple, a list a list, a named tuple, dataclass or mapping one of its own type. Raises
    WorkloadError for what no batch can be made of.
    """
    first = examples[0]
    if isinstance(first, tuple | list):
        if any(len(example) != len(first) for example in examples):
            sizes = sorted({len(example) for example in examples})
            raise WorkloadError(f"the examples of one batch have {sizes} parts; give all examples the same parts")
        return _rebuilt(first, range(len(first)), [collated(values) for values in zip(*examples, strict=True)])
    parts = _parts(first)
    if parts is None:
        return _collated_leaves(examples)
    keys = [key for key, _ in parts]
    known = [dict(_parts(example) or ()) for example in examples]
    other = next((each for each in known if each.keys() != known[0].keys()), None)
    if other is not None:
        raise WorkloadError(
            f"the examples of one batch have different parts: {', '.join(map(str, keys)) or 'none'} and "
            f"{', '.join(map(str, other)) or 'none'}; give all examples the same parts"
        )
    return _rebuilt(first, keys, [collated([each[key] for each in known]) for key in keys])


def _collated_leaves(examples: Sequence[Any]) -> Any:
    first = examples[0]
    if isinstance(first, str | bytes) or all(example is None for example in examples):
        return None if first is None else tuple(examples)
    try:
        return default_collate(list(examples))
    except TypeError as error:
        kinds = " and ".join(dict.fromkeys(type(example).__name__ for example in examples))
        raise WorkloadError(
            f"no batch can be made of examples that hold {kinds} ({error}); return tensors, arrays, numbers or texts, "
            "in tuples, mappings or dataclasses, or add the type to default_collate_fn_map in "
            "torch.utils.data._utils.collate"
        ) from error


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with all of its tensors on the device. An object with a `to` method moves itself."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if callable(getattr(batch, "to", None)) and not isinstance(batch, type):
        itself = batch.to(device)
        return batch if itself is None else itself
    parts = _parts(batch)
    if parts is None:
        return batch
    return _rebuilt(batch, [key for key, _ in parts], [moved(value, device) for _, value in parts])


def pinned(batch: Any) -> Any:
    """The batch with all of its tensors in memory that is not paged. An object with a `pin_memory` method does it."""
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory() if batch.layout is torch.strided else batch
    if callable(getattr(batch, "pin_memory", None)) and not isinstance(batch, type):
        return batch.pin_memory()
    parts = _parts(batch)
    if parts is None:
        return batch
    return _rebuilt(batch, [key for key, _ in parts], [pinned(value) for _, value in parts])


def leaves(batch: Any) -> Iterator[Any]:
    """What a batch holds, at any depth, in the order of their names where it is a mapping."""
    parts = _parts(batch)
    if parts is None:
        yield batch
        return
    if isinstance(batch, Mapping):
        parts = sorted(parts, key=lambda pair: repr(pair[0]))
    for _, value in parts:
        yield from leaves(value)


@dataclass(frozen=True, slots=True)
class Form:
    """What remains of a batch without its leaves. Equal for batches that differ in leaves alone."""

    kind: type | None
    keys: tuple[Key, ...] = ()
    inside: tuple["Form", ...] = ()
    template: Any = field(default=None, compare=False, repr=False)

    def filled(self, values: Iterator[Any]) -> Any:
        """A batch of this form with the next of `values` as its leaves."""
        if self.kind is None:
            return next(values)
        if self.kind is type(None):
            return None
        return _rebuilt(self.template, list(self.keys), [each.filled(values) for each in self.inside])


def taken_apart(batch: Any) -> tuple[list[Any], Form]:
    """The leaves of a batch, and its form, to which a part that is None belongs.

    An object with a `to` method is opened where it is no more than its attributes; any other is a leaf.
    """
    parts = parts_of(batch)
    if parts is None:
        return ([], Form(type(None))) if batch is None else ([batch], Form(None))
    found = [taken_apart(value) for _, value in parts]
    keys = [key for key, _ in parts]
    empty = _rebuilt(batch, keys, [None] * len(keys))
    form = Form(type(batch), tuple(keys), tuple(inner for _, inner in found), empty)
    return [leaf for inside, _ in found for leaf in inside], form


def _parts(value: Any) -> list[tuple[Key, Any]] | None:
    """What a container holds, by key; None for anything else."""
    if isinstance(value, torch.Tensor | str | bytes | int | float):
        return None
    if isinstance(value, Mapping):
        return list(value.items())
    if is_dataclass(value) and not isinstance(value, type):
        return [(one.name, getattr(value, one.name)) for one in fields(value)]
    return list(enumerate(value)) if isinstance(value, Sequence) else None


def parts_of(batch: Any) -> list[tuple[Key, Any]] | None:
    """What a batch holds, by key: a container's parts, or a plain object's attributes; None for anything else."""
    parts = _parts(batch)
    return _attributes(batch) if parts is None else parts


def _attributes(value: Any) -> list[tuple[Key, Any]] | None:
    """What a plain object with a `to` method holds, by name; None for anything else.

    Plain: another object with the same attributes is the same, because its class has no say in how they are set, read
    and copied, and keeps nothing besides them.
    """
    kind: Any = type(value)
    held = getattr(value, "__dict__", None)
    if not held or isinstance(value, type | torch.nn.Module | torch.Tensor) or not callable(getattr(value, "to", None)):
        return None
    own = {name for base in kind.__mro__ if base is not object for name in vars(base)}
    return None if own & _SPECIAL else list(held.items())


_SPECIAL = frozenset({"__slots__", "__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__copy__",
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"})  # fmt: skip


def _rebuilt(like: Any, keys: Sequence[Key], values: list[Any]) -> Any:
    """A container of the type of `like`, and with what else it carries, that holds these values."""
    kind: Any = type(like)
    if kind is tuple or kind is list:
        return kind(values)
    if isinstance(like, Mapping):
        return _mapping_like(like, dict(zip(keys, values, strict=True)))
    if is_dataclass(like) or _attributes(like):
        made = copy.copy(like)
        for key, value in zip(keys, values, strict=True):
            object.__setattr__(made, key, value)  # a frozen one, too; its checks are those of single examples
        return made
    if hasattr(kind, "_fields"):
        return tuple.__new__(kind, values)
    try:
        return kind(values)
    except TypeError:  # of a sequence that takes other things
        return tuple(values) if isinstance(like, tuple) else values


def _mapping_like(like: Mapping[Any, Any], held: dict[Any, Any]) -> Any:
    if type(like) is dict:
        return held
    if isinstance(like, dict | UserDict):
        return _updated(copy.copy(like), held)  # with its attributes, and the default of a defaultdict
    kind: Any = type(like)
    for arguments, named in (((held,), {}), ((), held)):
        with suppress(TypeError):
            made = kind(*arguments, **named)
            if made.keys() == held.keys():
                return made
    if isinstance(like, MutableMapping):
        return _updated(copy.deepcopy(like), held)
    raise WorkloadError(
        f"no batch can be made of examples of the type {kind.__name__}, which takes neither a dict nor keywords; let "
        "the dataset return a dict"
    )


def _updated(mapping: Any, held: dict[Any, Any]) -> Any:
    for key, value in held.items():
        mapping[key] = value
    return mapping
