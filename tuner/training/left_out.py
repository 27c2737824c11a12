"""What a checkpoint leaves out: tensors of a base file, each marked by its name there.

In a training state a dict stands in place of such a tensor. A file of weights has no places for what is no tensor: its
header says which names were left out.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tuner.records import BaseFile

_MARK = "__frozen__"  # the only key of the dict that stands for a tensor
_NAMED = "frozen"  # of a state: path, sha256 and size of the base file
_HEADER = "frozen"  # of the metadata of a safetensors file: JSON, the names that were left out
_UNTRAINED = "untrained"  # and the names of all frozen parameters, left out or not


@dataclass(frozen=True, slots=True)
class PartedWeights:
    """Weights as a file holds them: without those `left_out`, which are in `base` under the same names.

    frozen: the names of all parameters that are not trained.
    """

    tensors: Mapping[str, torch.Tensor]
    left_out: Collection[str] = ()
    base: BaseFile | None = None
    frozen: Collection[str] = ()


def with_marks(value: Any, name_of: Callable[[torch.Tensor], str | None]) -> Any:
    """The same containers, but a mark for each tensor that has a name; what holds none of them is not copied."""
    if isinstance(value, torch.Tensor):
        name = name_of(value)
        return value if name is None else {_MARK: name}
    if type(value) is dict:
        items = {key: with_marks(item, name_of) for key, item in value.items()}
        return items if any(items[key] is not item for key, item in value.items()) else value
    if type(value) in (list, tuple):
        marked = [with_marks(item, name_of) for item in value]
        same = all(new is old for new, old in zip(marked, value, strict=True))
        return value if same else type(value)(marked)
    return value


def marked_names(value: Any) -> Iterator[str]:
    """The names of all marks in nested containers, repeated where a mark is."""
    if isinstance(value, dict) and _is_mark(value):
        yield value[_MARK]
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from marked_names(item)


def put_back(value: Any, base: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `with_marks`; each tensor in its own memory. Raises LookupError for a name that is not there."""
    if isinstance(value, dict):
        if _is_mark(value):
            return base[value[_MARK]].clone()
        return {key: put_back(item, base) for key, item in value.items()}
    return type(value)(put_back(item, base) for item in value) if isinstance(value, list | tuple) else value


def with_base(state: Mapping[str, Any], base: BaseFile) -> dict[str, Any]:
    """A state that says which base file it needs."""
    return {**state, _NAMED: [base.file, base.digest, base.num_bytes]}


def whole_state(state: dict[str, Any], base: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The state with what was left out of it. Raises LookupError for what the base file lacks."""
    if base_named_by(state) is None:
        return state
    whole: dict[str, Any] = put_back({key: value for key, value in state.items() if key != _NAMED}, base)
    return whole


def base_named_by(state: Mapping[str, Any]) -> BaseFile | None:
    """The base file that a state needs; None for a whole one."""
    named = state.get(_NAMED)
    return BaseFile(*named) if named and any(True for _ in marked_names(state)) else None


def _is_mark(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(_MARK), str)


def header_of(left_out: Collection[str], frozen: Collection[str] = ()) -> dict[str, str] | None:
    """The metadata of a file of weights that lacks some, or of which some are frozen, by name; None for any other."""
    named = {_HEADER: left_out, _UNTRAINED: frozen}
    return {key: json.dumps(sorted(names)) for key, names in named.items() if names} or None


def left_out_of(content: bytes) -> list[str]:
    """The names that a file of weights lacks. Raises ValueError for a damaged header."""
    return _names_in(content, _HEADER)


def frozen_in(content: bytes) -> list[str]:
    """The names of all frozen parameters of a file of weights. Raises ValueError for a damaged header."""
    return _names_in(content, _UNTRAINED)


def _names_in(content: bytes, key: str) -> list[str]:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    names: list[str] = json.loads(header.get("__metadata__", {}).get(key, "[]"))
    return names
