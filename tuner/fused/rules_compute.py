"""Rules of operations that sum: reductions, softmax, normalization, convolution, pooling, embedding.

A kernel that works through rows one by one gives each row the same bits however many there are; those run stacked.
Convolution and normalization choose their way by the number of channels; those loop over the trials.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from tuner.errors import NotFusible
from tuner.fused.operations import Operations, name_of
from tuner.fused.trial_tensor import TrialTensor, inner, inner_all, is_trial, rank

_SPLIT = 32768  # values; torch divides as many and more between its threads


def reduction(
    operations: Operations, function: Any, value: Any, dim: Any = None, keepdim: bool = False, **keywords: Any
) -> Any:
    """Over the given dimensions, or over all of a trial's."""
    dim = keywords.pop("axis", dim) if dim is None else dim
    if is_trial(dim) or isinstance(dim, torch.Tensor) or operations.care > 1 or not is_trial(value):
        return NotImplemented
    reduce = getattr(torch, name_of(function))
    options = {name: option for name, option in keywords.items() if option is not None}
    if _is_of_all(dim, rank(value)) and not _is_a_row(value):
        return NotImplemented
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        flat = value.stacked.reshape(value.stacked.shape[0], -1)
        return operations.trial(reduce(flat, 1, **options))
    result = reduce(value.stacked, inner_all(dim, rank(value)), keepdim=keepdim, **options)
    if isinstance(result, torch.Tensor):
        return operations.trial(result)
    return type(result)([operations.trial(part) for part in result])


def _is_of_all(dim: Any, dims: int) -> bool:
    return dim is None or (isinstance(dim, list | tuple) and len(dim) in (0, dims))


def _is_a_row(value: TrialTensor) -> bool:
    """Whether a reduction of all of a trial's values runs through them as through a row of a matrix.

    Only if they lie in memory in their order, and are not split between threads, or over a GPU. It gives but one
    number, whose bits could be the same at a few updates by chance.
    """
    stacked = value.stacked
    split = stacked.is_cuda or (torch.get_num_threads() > 1 and math.prod(stacked.shape[1:]) >= _SPLIT)
    return stacked.shape[0] == 0 or (stacked[0].is_contiguous() and not split)


def softmax(
    operations: Operations, function: Any, value: TrialTensor, dim: Any = None, *rest: Any, **keywords: Any
) -> Any:
    dtype = next((item for item in rest if isinstance(item, torch.dtype)), keywords.get("dtype"))
    if dim is None or operations.care > 1:
        return NotImplemented
    kernel = torch.log_softmax if "log" in name_of(function) else torch.softmax
    return operations.trial(kernel(value.stacked, inner(dim, rank(value)), dtype=dtype))


def loop(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    """The trial's own call, once for each trial."""
    return operations.loop(function, arguments, keywords)


def batch_norm(
    operations: Operations,
    function: Any,
    value: Any,
    running_mean: Any = None,
    running_var: Any = None,
    *rest: Any,
    **keywords: Any,
) -> Any:
    """Running statistics are written into, but for those of a batch norm in eval mode."""
    writes = name_of(function) != "batch_norm" or (rest[2] if len(rest) > 2 else keywords.get("training", False))
    for statistics in (running_mean, running_var):
        if writes and statistics is not None and not is_trial(statistics):
            operations.refuse_write(name_of(function), statistics)
    return operations.loop(function, (value, running_mean, running_var, *rest), keywords, writes=True)


def layer_norm(
    operations: Operations,
    function: Any,
    value: Any,
    shape: Any,
    weight: Any = None,
    bias: Any = None,
    *rest: Any,
    **named: Any,
) -> Any:
    """Without own parameters each row is normalized for itself."""
    varying = any(is_trial(item) for item in (weight, bias, *named.values()))
    if varying or operations.care > 1 or not is_trial(value):
        return operations.loop(function, (value, shape, weight, bias, *rest), named)
    return operations.trial(F.layer_norm(value.stacked, shape, weight, bias, *rest, **named))


def pooling(operations: Operations, function: Any, value: TrialTensor, *rest: Any, **keywords: Any) -> Any:
    """Every plane is pooled for itself: trials are more examples."""
    name = name_of(function)
    spatial = int(next(letter for letter in name if letter.isdigit()))
    if rank(value) != spatial + 2 or operations.care > 1:
        return NotImplemented
    trials, examples = value.stacked.shape[:2]
    pooled = function(value.stacked.reshape(trials * examples, *value.stacked.shape[2:]), *rest, **keywords)
    if not isinstance(pooled, torch.Tensor):
        return tuple(operations.trial(part.reshape(trials, examples, *part.shape[1:])) for part in pooled)
    return operations.trial(pooled.reshape(trials, examples, *pooled.shape[1:]))


def embedding(  # noqa: PLR0913 - torch's arguments
    operations: Operations,
    function: Any,
    indices: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """The tables of all trials under each other, looked up with shifted indices.

    Indices of each trial's own are looked up alone: one that is out of range must not meet a mate's table.
    """
    if max_norm is not None or sparse:
        raise NotFusible("embedding with max_norm or sparse gradients")
    if (is_trial(indices) and is_trial(weight)) or padding_idx is not None or scale_grad_by_freq:
        rest = (padding_idx, max_norm, norm_type, scale_grad_by_freq)
        return operations.loop(function, (indices, weight, *rest), {})
    if not is_trial(weight):
        return operations.trial(F.embedding(operations.stacked(indices), weight))
    stacked = operations.stacked(weight)
    trials, rows, width = stacked.shape
    shift = torch.arange(0, trials * rows, rows, device=stacked.device)
    shifted = operations.stacked(indices) + shift.reshape(trials, *([1] * rank(indices)))
    return operations.trial(F.embedding(shifted, stacked.reshape(trials * rows, width)))


def cosine_similarity(
    operations: Operations, function: Any, first: Any, second: Any, dim: int = 1, eps: float = 1e-8
) -> Any:
    """Torch's own formula on the stacks: its gradients reach a tensor in several parts, added up as in one trial."""
    if operations.care > 1 or rank(first) != rank(second) or rank(first) < 2:
        return NotImplemented
    values = function(operations.stacked(first), operations.stacked(second), inner(dim, rank(first)), eps)
    return operations.trial(values)


_CONVOLUTIONS = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
_POOLS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]

RULES: dict[str, Any] = {
    **dict.fromkeys("sum mean amax amin argmax argmin prod logsumexp all any".split(), reduction),
    **dict.fromkeys("softmax log_softmax".split(), softmax),
    **dict.fromkeys([*_CONVOLUTIONS, "group_norm", "rms_norm"], loop),
    **dict.fromkeys(_POOLS, pooling),
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    "layer_norm": layer_norm,
    "cosine_similarity": cosine_similarity,
    "embedding": embedding,
}
