"""Rules of operations that only move or choose values: views, joins, indexing."""

from typing import Any

import torch

from tuner.errors import NotFusible
from tuner.fused.operations import Operations, name_of
from tuner.fused.trial_tensor import TrialTensor, inner, inner_all, is_trial, rank, seen_shape


def _sizes(given: Any, keywords: dict[str, Any]) -> Any:
    """Sizes as torch takes them: one by one, as a sequence, or named."""
    if not given:
        return keywords.get("shape", keywords.get("size", keywords.get("dims")))
    return given[0] if len(given) == 1 and isinstance(given[0], list | tuple | torch.Size) else given


def reshape(operations: Operations, function: Any, value: TrialTensor, *shape: Any, **keywords: Any) -> Any:
    if shape and isinstance(shape[0], torch.dtype):
        return operations.trial(value.stacked.view(*shape))
    return operations.trial(value.stacked.reshape(value.stacked.shape[0], *_sizes(shape, keywords)))


def reshape_as(operations: Operations, function: Any, value: TrialTensor, other: torch.Tensor) -> Any:
    return operations.trial(value.stacked.reshape(value.stacked.shape[0], *seen_shape(other)))


def flatten(operations: Operations, function: Any, value: TrialTensor, start_dim: int = 0, end_dim: int = -1) -> Any:
    dims = rank(value)
    if dims == 0:
        return operations.trial(value.stacked.unsqueeze(1))
    return operations.trial(value.stacked.flatten(inner(start_dim, dims), inner(end_dim, dims)))


def permute(operations: Operations, function: Any, value: TrialTensor, *dims: Any, **keywords: Any) -> Any:
    order = inner_all(tuple(_sizes(dims, keywords)), rank(value))
    return operations.trial(value.stacked.permute(0, *order))


def two_dims(operations: Operations, function: Any, value: TrialTensor, first: Any, second: Any) -> Any:
    """For transpose and movedim: two dimensions of the user's, or two lists of them."""
    dims = rank(value)
    moved = getattr(value.stacked, name_of(function))
    return operations.trial(moved(inner_all(first, dims), inner_all(second, dims)))


def matrix_transpose(operations: Operations, function: Any, value: TrialTensor) -> Any:
    return operations.trial(value.stacked.transpose(-1, -2)) if rank(value) >= 2 else value


def one_dim(operations: Operations, function: Any, value: TrialTensor, dim: int, *rest: Any, **keywords: Any) -> Any:
    """For select, narrow and unflatten: a dimension, and what to do there."""
    if any(is_trial(item) for item in rest):
        return NotImplemented
    return operations.trial(getattr(value.stacked, name_of(function))(inner(dim, rank(value)), *rest, **keywords))


def unsqueeze(operations: Operations, function: Any, value: TrialTensor, dim: int) -> Any:
    return operations.trial(value.stacked.unsqueeze(inner(dim, rank(value) + 1)))


def squeeze(operations: Operations, function: Any, value: TrialTensor, dim: Any = None) -> Any:
    if dim is None:
        kept = [size for size in seen_shape(value) if size != 1]
        return operations.trial(value.stacked.reshape(value.stacked.shape[0], *kept))
    return operations.trial(value.stacked.squeeze(inner_all(dim, rank(value))))


def expand(operations: Operations, function: Any, value: TrialTensor, *sizes: Any, **keywords: Any) -> Any:
    wanted = _sizes(sizes, keywords)
    wide = operations.aligned(value, len(wanted)).expand(value.stacked.shape[0], *wanted)
    return operations.trial(operations.spread(value, wide.shape[1:]) if operations.care > 1 else wide)


def expand_as(operations: Operations, function: Any, value: torch.Tensor, other: torch.Tensor) -> Any:
    if not isinstance(value, TrialTensor):
        return value.expand(seen_shape(other))
    return expand(operations, function, value, seen_shape(other))


def repeat(operations: Operations, function: Any, value: TrialTensor, *sizes: Any) -> Any:
    wanted = _sizes(sizes, {})
    return operations.trial(operations.aligned(value, len(wanted)).repeat(1, *wanted))


def join(operations: Operations, function: Any, tensors: Any, dim: int = 0, **keywords: Any) -> Any:
    """For cat and stack; what all trials share is repeated for each."""
    dims = rank(tensors[0]) + (name_of(function) == "stack")
    parts = [operations.stacked(tensor) for tensor in tensors]
    return operations.trial(function(parts, inner(keywords.get("axis", dim), dims)))


def split(operations: Operations, function: Any, value: TrialTensor, size: Any, dim: int = 0) -> Any:
    parts = getattr(value.stacked, name_of(function))(size, inner(dim, rank(value)))
    return tuple(operations.trial(part) for part in parts)


def unbind(operations: Operations, function: Any, value: TrialTensor, dim: int = 0) -> Any:
    return tuple(operations.trial(part) for part in value.stacked.unbind(inner(dim, rank(value))))


def iterate(operations: Operations, function: Any, value: TrialTensor) -> Any:
    return iter(unbind(operations, function, value))


def unfold(
    operations: Operations, function: Any, value: TrialTensor, dimension: int, size: int = 0, step: int = 0, **_: Any
) -> Any:
    """The method; the function of torch.nn of the same name is another."""
    if function is not torch.Tensor.unfold:
        return NotImplemented
    return operations.trial(value.stacked.unfold(inner(dimension, rank(value)), size, step))


def last_dims(operations: Operations, function: Any, value: TrialTensor, *rest: Any, **keywords: Any) -> Any:
    """For what looks at the last dimensions, or at each number alone."""
    return operations.trial(function(value.stacked, *rest, **keywords))


def diagonal(
    operations: Operations, function: Any, value: TrialTensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Any:
    dims = rank(value)
    return operations.trial(value.stacked.diagonal(offset, inner(dim1, dims), inner(dim2, dims)))


def get_item(operations: Operations, function: Any, value: torch.Tensor, index: Any) -> Any:
    """Slices, integers and one run of shared index tensors; anything else is left to the loop."""
    parts = index if isinstance(index, tuple) else (index,)
    if not isinstance(value, TrialTensor) or any(is_trial(part) for part in parts):
        return NotImplemented
    listed = [place for place, part in enumerate(parts) if isinstance(part, torch.Tensor | list)]
    if any(isinstance(parts[place], torch.Tensor) and parts[place].dtype == torch.bool for place in listed):
        return NotImplemented
    if len(listed) > 1 and (listed[-1] - listed[0] >= len(listed) or any(isinstance(part, int) for part in parts)):
        return NotImplemented
    return operations.trial(value.stacked[(slice(None), *parts)])


def set_item(operations: Operations, function: Any, value: torch.Tensor, index: Any, new: Any) -> None:
    parts = index if isinstance(index, tuple) else (index,)
    if not isinstance(value, TrialTensor):
        operations.refuse_write("__setitem__", value)
    if any(is_trial(part) for part in parts):
        raise NotFusible("__setitem__ at places that differ between trials")
    place = (slice(None), *parts)
    value.stacked[place] = operations.aligned(new, value.stacked[place].dim() - 1) if is_trial(new) else new


def gather(operations: Operations, function: Any, value: Any, dim: int, index: Any, **keywords: Any) -> Any:
    chosen = torch.gather(operations.stacked(value), inner(dim, rank(value)), operations.stacked(index))
    return operations.trial(chosen)


def index_select(operations: Operations, function: Any, value: Any, dim: int, index: torch.Tensor) -> Any:
    if is_trial(index):
        return NotImplemented
    return operations.trial(torch.index_select(value.stacked, inner(dim, rank(value)), index))


def pad(
    operations: Operations,
    function: Any,
    padded: TrialTensor,
    pad: Any,
    mode: str = "constant",
    value: Any = None,
) -> Any:
    if mode != "constant" or is_trial(value):
        return NotImplemented
    return operations.trial(torch.nn.functional.pad(padded.stacked, pad, "constant", value))


RULES: dict[str, Any] = {
    **dict.fromkeys(("view", "reshape"), reshape),
    **dict.fromkeys(("view_as", "reshape_as"), reshape_as),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "movedim", "moveaxis"), two_dims),
    **dict.fromkeys(("get:T", "get:H", "t", "get:mT", "get:mH", "adjoint"), matrix_transpose),
    **dict.fromkeys(("select", "narrow", "unflatten"), one_dim),
    **dict.fromkeys(("expand", "broadcast_to"), expand),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), join),
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "tensor_split"), split),
    **dict.fromkeys(("tril", "triu", "view_as_real", "view_as_complex", "get:real", "get:imag"), last_dims),
    "diagonal": diagonal,
    "flatten": flatten,
    "permute": permute,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand_as": expand_as,
    "repeat": repeat,
    "unbind": unbind,
    "unfold": unfold,
    "__iter__": iterate,
    "__getitem__": get_item,
    "__setitem__": set_item,
    "gather": gather,
    "index_select": index_select,
    "pad": pad,
}
