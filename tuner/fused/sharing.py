"""Frozen parameters and constant buffers that are equal in all trials of a group: one memory holds them.

Each trial's model keeps a tensor of its own that shows this memory, by torch's copy on write: whoever writes into such
a tensor is given a copy first. So nothing that a trial's code, optimizer or evaluation does reaches its mates, and
where a tensor no longer shows the memory it was written into (or read by NumPy, which torch cannot tell from writing).
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tuner.training.copy_on_write import address, is_shareable, same_bits, shown

Holder = tuple[dict[str, Any], str]  # the dict of a module that holds a tensor, and the key


def constants(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters without a gradient and, where there are some, all buffers, by name; those that can be shared.

    A model that trains all of its parameters has none: its buffers are mostly written at each step. A tensor that
    another one of the model overlaps (a frozen decoder that shows the weight of its encoder) stays where it is: a
    write into one is to be seen in both.
    """
    frozen = {name: each for name, each in model.named_parameters() if not each.requires_grad}
    every: dict[str, torch.Tensor] = {**frozen, **dict(model.named_buffers())} if frozen else {}
    found = {name: each for name, each in every.items() if is_shareable(each)}
    overlapped = _overlapped(model) if found else set()
    return {name: each for name, each in found.items() if id(each) not in overlapped}


def _overlapped(model: torch.nn.Module) -> set[int]:
    """The ids of tensors of a model whose memory another of its tensors, or an array that it holds, shows too."""
    spans: dict[int, tuple[int, int]] = {}
    for module in model.modules():
        for one in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(one, torch.Tensor | np.ndarray) and (span := _span(one)):
                spans[id(one)] = span
    found, last, reach = set[int](), 0, -1
    for key, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if start < reach:
            found |= {key, last}
        if end > reach:
            last, reach = key, end
    return found


def _span(one: torch.Tensor | np.ndarray[Any, Any]) -> tuple[int, int] | None:
    """The first address of a tensor's values and the one behind the last; None for what lies nowhere."""
    if isinstance(one, np.ndarray):
        start, strides, width = int(one.__array_interface__["data"][0]), one.strides, one.itemsize
    elif is_shareable(one):
        width = one.element_size()
        start, strides = address(one), tuple(stride * width for stride in one.stride())
    else:
        return None
    if 0 in one.shape:
        return None
    steps = [(size - 1) * stride for size, stride in zip(one.shape, strides, strict=True)]
    return start + sum(step for step in steps if step < 0), start + sum(step for step in steps if step > 0) + width


def tie(model: torch.nn.Module, to: Mapping[str, torch.Tensor]) -> None:
    """Have the constants of a model show the memory of those of the same names that have the same bits."""
    for name, tensor in constants(model).items():
        if name in to and address(tensor) != address(to[name]) and same_bits(tensor, to[name]):
            tensor.data = shown(to[name])


def tied(models: Sequence[torch.nn.Module], apart: Iterable[str] = ()) -> dict[str, torch.Tensor]:
    """Tie what is constant and has the same bits in all models, but for the names `apart`; one tensor for each."""
    own = [constants(model) for model in models]
    found: dict[str, torch.Tensor] = {}
    for name in [name for name in own[0] if name not in set(apart)]:
        tensors = [each[name] for each in own if name in each]
        if len(tensors) == len(models) and all(same_bits(tensors[0], other) for other in tensors[1:]):
            found[name] = one = _one_for_all(tensors[0])
            for tensor in tensors:
                if address(tensor) != address(one):
                    tensor.data = shown(one)
    return found


def _one_for_all(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that others can show: memory that is not torch's own (NumPy's, a mapped file's) is copied first."""
    try:
        return shown(tensor)
    except RuntimeError:
        tensor.data = tensor.detach().clone()
        return shown(tensor)


def copied(model: torch.nn.Module) -> torch.nn.Module:
    """A deep copy whose constants show the memory of the model's own."""
    known = {}
    for one in constants(model).values():
        known[id(one)] = stand_in(_one_for_all(one), is_parameter=isinstance(one, torch.nn.Parameter))
    return copy.deepcopy(model, known)


def stand_in(tensor: torch.Tensor, *, is_parameter: bool) -> torch.Tensor:
    """A parameter or buffer that shows the memory of a tensor."""
    new = shown(tensor)
    return torch.nn.Parameter(new, requires_grad=False) if is_parameter else new


def holders(model: torch.nn.Module) -> dict[str, Holder]:
    """Where the modules of a model hold its parameters and buffers, by name."""
    return dict(_holders(model))


def _holders(model: torch.nn.Module) -> Iterator[tuple[str, Holder]]:
    known: set[int] = set()
    for prefix, module in model.named_modules():
        for held in (module._parameters, module._buffers):
            for key, tensor in held.items():
                if tensor is not None and id(tensor) not in known:
                    known.add(id(tensor))
                    yield f"{prefix}.{key}".strip("."), (held, key)


def strayed(places: Mapping[str, Holder], one: Mapping[str, torch.Tensor], starts: Mapping[str, int]) -> list[str]:
    """Names of the tensors of a model that hold other bits than the one of all; what was only read is tied again.

    starts: the address of each of `one`.
    """
    found = []
    for name, (held, key) in places.items():
        tensor = held[key]
        if tensor is None or address(tensor) != starts[name]:
            if isinstance(tensor, torch.Tensor) and same_bits(tensor, one[name]):
                tensor.data = shown(one[name])
            else:
                found.append(name)
    return found
