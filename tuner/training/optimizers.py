"""Optimizers by name, with torch's fused kernel where it is right.

Defaults are torch's, but weight decay, which is 0 unless a search space says otherwise: a sweep must be able to
trust that what was not declared is off (D2).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from tuner.design.optimizers import check_optimizer
from tuner.errors import WorkloadError


def make_optimizer(
    name: object, parameters: Iterable[torch.nn.Parameter], point: Mapping[str, Any], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of a point. The trainer writes the learning rate of each step into its parameter groups.

    Raises WorkloadError where there is nothing to train.
    """
    check_optimizer(name)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise WorkloadError(
            "the model has no parameter to train: it has none at all, each has requires_grad=False, or they stand in "
            "a plain list or dict, where torch does not find them (write nn.ParameterList or nn.ModuleList)"
        )
    return _MAKERS[str(name)](trained, point, learning_rate, fused_is_right(trained))


def settle_sparse(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Make sparse gradients, where there are any, into what the optimizer takes. To be called before each step.

    Plain SGD gets them coalesced, and from then on torch's unfused kernel, which changes the rows of the batch alone.
    With momentum or weight decay every row changes in every step: there a gradient is made dense, and the update is
    that of the dense gradient. Raises TypeError for an optimizer that takes no sparse gradients.
    """
    sparse = [parameter for parameter in parameters if parameter.grad is not None and parameter.grad.is_sparse]
    if not sparse:
        return
    if not isinstance(optimizer, torch.optim.SGD):
        name = type(optimizer).__name__.lower()
        raise TypeError(
            f"{name} takes no sparse gradients, and a parameter of the form {tuple(sparse[0].shape)} has one: write "
            "sparse=False where the model makes its embedding, or take optimizer='sgd'"
        )
    group = optimizer.param_groups[0]
    every_row = bool(group["momentum"]) or bool(group["weight_decay"])
    for parameter in sparse:
        gradient: Any = parameter.grad
        parameter.grad = gradient.to_dense() if every_row else gradient.coalesce()
    if not every_row:
        group["fused"] = False  # a checkpoint holds it, so that a resumed trial takes the same kernel


def num_slots(optimizer: torch.optim.Optimizer) -> int:
    """How many tensors as large as a parameter an optimizer keeps for it once it has made a step."""
    if isinstance(optimizer, torch.optim.SGD):
        return int(optimizer.defaults["momentum"] != 0.0)
    return 2  # Adam's two means


def fused_is_right(parameters: Iterable[torch.nn.Parameter]) -> bool:
    """Whether torch's fused kernels may be used.

    On the CPU the fused AdamW reads a gradient as if it were contiguous. Autograd gives a gradient the layout of
    its parameter, so contiguous parameters are safe and others are not (PyTorch 2.13, measured).
    """
    known = {"cpu", "cuda"}
    return all(
        p.is_contiguous() and p.is_floating_point() and p.device.type in known and not p.is_sparse for p in parameters
    )


def _sgd(parameters: list[torch.nn.Parameter], point: Mapping[str, Any], rate: float, fused: bool) -> Any:
    return torch.optim.SGD(
        parameters,
        lr=rate,
        momentum=point.get("momentum", 1.0 - point.get("one_minus_momentum", 1.0)),
        nesterov=bool(point.get("nesterov", False)),
        weight_decay=point.get("weight_decay", 0.0),
        fused=fused,
    )


def _adam(parameters: list[torch.nn.Parameter], point: Mapping[str, Any], rate: float, fused: bool) -> Any:
    return torch.optim.Adam(parameters, lr=rate, fused=fused, **_adam_settings(point))


def _adamw(parameters: list[torch.nn.Parameter], point: Mapping[str, Any], rate: float, fused: bool) -> Any:
    return torch.optim.AdamW(parameters, lr=rate, fused=fused, **_adam_settings(point))


def _adam_settings(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "betas": (1.0 - point.get("one_minus_beta1", 0.1), 1.0 - point.get("one_minus_beta2", 0.001)),
        "eps": point.get("epsilon", 1e-8),
        "weight_decay": point.get("weight_decay", 0.0),
    }


_MAKERS: dict[str, Callable[[list[torch.nn.Parameter], Mapping[str, Any], float, bool], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}
