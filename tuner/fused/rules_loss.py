"""Rules of losses. Cross entropy follows torch's own formula, so that each trial may have its label smoothing."""

from typing import Any

import torch
import torch.nn.functional as F

from tuner.fused.operations import Operations
from tuner.fused.rules_compute import loop
from tuner.fused.rules_elementwise import SINGLE
from tuner.fused.trial_tensor import is_trial, rank, seen_shape

IGNORED = -100  # torch's label for "does not count"
_AFTER_WEIGHT = ("size_average", "ignore_index", "reduce", "reduction", "label_smoothing")


def cross_entropy(
    operations: Operations, function: Any, logits: Any, target: Any, weight: Any = None, *rest: Any, **named: Any
) -> Any:
    options = dict(zip(_AFTER_WEIGHT, rest, strict=False)) | named
    weight = options.pop("weight", weight)
    if logits.dtype.itemsize < SINGLE and torch.is_autocast_enabled(logits.device.type):
        logits = logits.float()  # which is how autocast computes it
    smoothing = options.get("label_smoothing", 0.0)
    plain = weight is None and options.get("reduction", "mean") == "mean" and options.get("ignore_index", -100) == -100
    single = logits.dtype.itemsize >= SINGLE  # else torch rounds less in between than tensors of half as many bits
    plain = plain and (single if is_trial(smoothing) else smoothing == 0.0)
    if rank(logits) == 2 and plain and not target.is_floating_point():
        return _mean_of_classes(operations, logits, target, smoothing)
    if options.get("reduction") == "none" and weight is None and not is_trial(smoothing) and smoothing == 0.0:
        return _of_each_example(operations, logits, target, options.get("ignore_index", -100))
    return operations.loop(function, (logits, target, weight), options)


def _mean_of_classes(operations: Operations, logits: Any, target: Any, smoothing: Any) -> Any:
    """[examples, classes] and labels: log-softmax of all trials at once, then each trial's own mean."""
    logs = torch.log_softmax(logits, -1)
    likelihood = operations.trial(_mean_negative(operations.stacked(logs), operations.stacked(target)))
    if not is_trial(smoothing):
        return likelihood
    kind = logs.dtype
    ignored = torch.eq(target, IGNORED)
    smooth = torch.masked_fill(torch.neg(torch.sum(logs, -1)), ignored, 0.0)
    mean = torch.sum(smooth) / torch.sum(torch.logical_not(ignored))
    kept = operations.trial((1.0 - smoothing.stacked).to(kind))
    spread = operations.trial((smoothing.stacked / seen_shape(logits)[-1]).to(kind))
    return likelihood * kept + mean * spread


class _MeanNegative(torch.autograd.Function):
    """The mean of -logs[k, i, target[k, i]] over i, added up in the order of torch's own kernel for one trial."""

    @staticmethod
    def forward(context: Any, logs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(target)
        context.shape = logs.shape
        pairs = zip(logs.unbind(0), target.unbind(0), strict=True)
        return torch.stack([F.nll_loss(one, labels) for one, labels in pairs])

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (target,) = context.saved_tensors
        known = target.ne(IGNORED)
        share = (gradients[0] / known.sum(1)).neg().unsqueeze(1) * known
        empty = gradients[0].new_zeros(context.shape)
        return empty.scatter(2, target.clamp(min=0).unsqueeze(2), share.unsqueeze(2)), None


def _mean_negative(logs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _MeanNegative.apply(logs, target)  # type: ignore[no-untyped-call]
    return result


def _of_each_example(operations: Operations, logits: Any, target: Any, ignored: int) -> Any:
    """No sum over examples: trials are more examples."""
    if rank(logits) < 2 or target.is_floating_point():
        return NotImplemented
    rows = operations.stacked(logits).flatten(0, 1)
    labels = operations.stacked(target).flatten(0, 1)
    losses = F.cross_entropy(rows, labels, ignore_index=ignored, reduction="none")
    return operations.trial(losses.reshape(operations.num_trials, -1, *losses.shape[1:]))


_LOSSES = """nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits
 kl_div multi_margin_loss soft_margin_loss poisson_nll_loss gaussian_nll_loss hinge_embedding_loss""".split()

RULES: dict[str, Any] = {"cross_entropy": cross_entropy, **dict.fromkeys(_LOSSES, loop)}
