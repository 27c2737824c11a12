"""Rules of the profile `fast`: fewer and larger kernels, rounded otherwise than each trial's own would.

Nothing loops here that the exact rules let loop for the sake of bits alone. What has no rule here keeps its exact one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

from tuner.fused import rules, rules_compute, rules_elementwise, rules_loss, rules_matmul
from tuner.fused.operations import ANY, Operations, name_of
from tuner.fused.trial_tensor import TrialTensor, is_number, is_trial, rank, seen_shape


def convolution(operations: Operations, function: Any, value: Any, weight: Any, *rest: Any, **named: Any) -> Any:
    """All trials' filters as one convolution: groups of channels, or only more filters where the input is shared."""
    spatial = int(next(letter for letter in name_of(function) if letter.isdigit()))
    names = ("bias", "stride", "padding", "dilation", "groups")
    options: dict[str, Any] = dict(zip(names, rest, strict=False)) | named
    bias, groups, trials = options.pop("bias", None), options.pop("groups", 1), operations.num_trials
    if rank(value) != spatial + 2 or not is_trial(weight):
        return NotImplemented
    filters = weight.stacked.flatten(0, 1)
    biases = None if bias is None else operations.stacked(bias).flatten(0, 1)
    if is_trial(value) or groups > 1:
        images = _channels_of_all(operations.stacked(value))
        result = function(images, filters, biases, groups=trials * groups, **options)
    else:
        result = function(value, filters, biases, **options)
    return operations.trial(_trials_first(result, trials))


def _channels_of_all(stacked: torch.Tensor) -> torch.Tensor:
    """[K, B, C, ...] as [B, K * C, ...]: no copy for what such a kernel has just written."""
    return stacked.transpose(0, 1).flatten(1, 2)


def _trials_first(result: torch.Tensor, trials: int) -> torch.Tensor:
    return result.view(len(result), trials, -1, *result.shape[2:]).transpose(0, 1)


def batch_norm(operations: Operations, function: Any, value: Any, *rest: Any, **named: Any) -> Any:
    """Every channel is normalized for itself: trials are more channels. Running statistics are views, written into."""
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    options: dict[str, Any] = dict(zip(names, rest, strict=False)) | named
    if is_trial(value) and not any(is_trial(each) for each in options.values()) and not options.get("training"):
        return operations.trial(F.batch_norm(value.stacked.flatten(0, 1), **options).reshape(value.stacked.shape))
    if rank(value) < 2 or any(options.get(name) is not None and not is_trial(options[name]) for name in names[:2]):
        return rules_compute.batch_norm(operations, function, value, **options)
    flat: dict[str, Any] = {
        name: operations.stacked(options[name]).flatten(0, 1) if isinstance(options.get(name), torch.Tensor) else None
        for name in names[:4]
    }
    settings: dict[str, Any] = {name: options[name] for name in names[4:] if name in options}
    result = F.batch_norm(_channels_of_all(operations.stacked(value)), **flat, **settings)
    return operations.trial(_trials_first(result, operations.num_trials))


def layer_norm(
    operations: Operations, function: Any, value: Any, shape: Any, weight: Any = None, *rest: Any, **named: Any
) -> Any:
    """The rows of all trials at once; scale and shift of each trial afterwards."""
    options: dict[str, Any] = dict(zip(("bias", "eps"), rest, strict=False)) | named
    normal = F.layer_norm(operations.stacked(value), tuple(shape), eps=options.get("eps", 1e-5))
    scale, shift = (
        None if part is None else operations.aligned(_of_each(operations, part), rank(value))
        for part in (weight, options.get("bias"))
    )
    if scale is not None and shift is not None:
        return operations.trial(torch.addcmul(shift, normal, scale))
    scaled = normal if scale is None else normal * scale
    return operations.trial(scaled if shift is None else scaled + shift)


def _of_each(operations: Operations, value: torch.Tensor) -> TrialTensor:
    return operations.trial(operations.stacked(value))


def linear(operations: Operations, function: Any, value: Any, weight: Any, bias: Any = None) -> Any:
    shape, (width_out, _) = seen_shape(value), seen_shape(weight)
    if is_trial(value) and not is_trial(weight):
        product = F.linear(value.stacked, weight, None if is_trial(bias) else bias)
        return operations.trial(product) + bias if is_trial(bias) else operations.trial(product)
    inputs = operations.stacked(value).reshape(operations.num_trials, -1, shape[-1])
    matrix = operations.stacked(weight).transpose(1, 2)
    if bias is None:
        product = torch.bmm(inputs, matrix)
    else:
        product = torch.baddbmm(operations.stacked(bias).unsqueeze(1), inputs, matrix)
    return operations.trial(product.view(operations.num_trials, *shape[:-1], width_out))


def matmul(operations: Operations, function: Any, left: Any, right: Any) -> Any:
    """Leading dimensions become one, copied where they must be."""
    dims = (rank(left), rank(right))
    if is_number(left) or is_number(right) or min(dims) < 2 or dims[0] < dims[1]:
        return rules_matmul.matmul(operations, function, left, right)
    first, second = operations.stacked(left), operations.stacked(right)
    if dims[1] == 2 and is_trial(left) and not is_trial(right):
        product = torch.matmul(first, right)
    elif dims[1] == 2:
        product = torch.bmm(first.reshape(first.shape[0], -1, first.shape[-1]), second)
    elif seen_shape(left)[:-2] == seen_shape(right)[:-2]:
        product = torch.bmm(first.reshape(-1, *first.shape[-2:]), second.reshape(-1, *second.shape[-2:]))
    else:
        return rules_matmul.matmul(operations, function, left, right)
    return operations.trial(product.view(operations.num_trials, *seen_shape(left)[:-1], seen_shape(right)[-1]))


def cross_entropy(
    operations: Operations, function: Any, logits: Any, target: Any, weight: Any = None, *rest: Any, **named: Any
) -> Any:
    """The mean of all examples of each trial, by one gather."""
    smoothing = named.get("label_smoothing", 0.0)
    usual = {name: value for name, value in named.items() if value is not None} or {}
    plain = weight is None and not rest and set(usual) <= {"label_smoothing", "reduction", "ignore_index"}
    plain = plain and usual.get("reduction", "mean") == "mean" and usual.get("ignore_index", -100) == -100
    if rank(logits) != 2 or not plain or target.is_floating_point():
        return rules_loss.cross_entropy(operations, function, logits, target, weight, *rest, **named)
    logs = torch.log_softmax(operations.stacked(logits), -1)
    if torch.is_autocast_enabled(logs.device.type):
        logs = logs.float()  # as torch's own loss takes its mean
    likelihood = -logs.gather(2, operations.stacked(target).unsqueeze(2)).squeeze(2).mean(1)
    if not is_trial(smoothing) and smoothing == 0.0:
        return operations.trial(likelihood)
    share = smoothing.stacked.to(logs.dtype) if isinstance(smoothing, TrialTensor) else smoothing
    return operations.trial(likelihood * (1.0 - share) - logs.mean((1, 2)) * share)


def elementwise(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    return rules_elementwise.arithmetic(operations, function, *arguments, **keywords)


def mapped(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    """By vmap, which often has one kernel for all trials. The bits may differ from those of each trial alone."""
    if name_of(function) in _NOT_MAPPED:
        return NotImplemented
    leaves, form = pytree.tree_flatten((arguments, keywords))
    varying = [place for place, leaf in enumerate(leaves) if is_trial(leaf)]

    def once(*values: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, value in zip(varying, values, strict=True):
            filled[place] = value
        given, named = pytree.tree_unflatten(filled, form)
        return function(*given, **named)

    try:
        with _vmap_by_rules():
            results = torch.vmap(once)(*[leaves[place].stacked for place in varying])
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return NotImplemented  # vmap cannot; a loop over the trials can
    return pytree.tree_map(lambda r: operations.trial(r) if isinstance(r, torch.Tensor) else r, results)


@contextmanager
def _vmap_by_rules() -> Iterator[None]:
    """Without vmap's own loops: they warn, and ours keep each trial's own call."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)


_NOT_MAPPED = frozenset({"gru", "lstm", "rnn_tanh", "rnn_relu", "ctc_loss"})  # vmap has no rule, or wrong values
_TRANSCENDENTAL = [name for name, rule in rules.TABLE.items() if rule is rules_elementwise.transcendental]

TABLE: dict[str, Any] = {
    **rules.TABLE,
    **dict.fromkeys(_TRANSCENDENTAL, elementwise),
    **dict.fromkeys([f"conv{n}d" for n in (1, 2, 3)], convolution),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "linear": linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm"), matmul),
    "cross_entropy": cross_entropy,
    ANY: mapped,
}
