"""Optimizers by name, with torch's fused kernel where it is right.

Defaults are torch's, but weight decay, which is 0 unless a search space says otherwise: a sweep must be able to
trust that what was not declared is off (D2).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from tuner.design.optimizers import check_optimizer


def make_optimizer(
    name: object, parameters: Iterable[torch.nn.Parameter], point: Mapping[str, Any], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of a point. The trainer writes the learning rate of each step into its parameter groups."""
    check_optimizer(name)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return _MAKERS[str(name)](trained, point, learning_rate, fused_is_right(trained))


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
