"""The torch optimizer of a point, made by the record of its name, and what the trainer must know of it."""

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch

from tuner.design.optimizers import OPTIMIZERS, Groups, OptimizerSpec
from tuner.errors import WorkloadError

_MADE_BY: WeakKeyDictionary[torch.optim.Optimizer, OptimizerSpec] = WeakKeyDictionary()


def make_optimizer(
    name: object, groups: Groups, point: Mapping[str, Any], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of a point. The trainer writes the learning rate of each step into its parameter groups.

    groups: of trained parameters; one that has none is left out.

    Raises DeclarationError for an unknown name, and WorkloadError where there is nothing to train, or where the record
    of the name builds something that the trainer cannot use.
    """
    spec = OPTIMIZERS.get(name)
    groups = [group for group in groups if group["params"]]
    trained = [parameter for group in groups for parameter in group["params"]]
    if not trained:
        raise WorkloadError(
            "the model has no parameter to train: it has none at all, each has requires_grad=False, or they stand in "
            "a plain list or dict, where torch does not find them (write nn.ParameterList or nn.ModuleList)"
        )
    optimizer = spec.build(groups, point, learning_rate, fused_is_right(trained))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise WorkloadError(
            f"the optimizer {spec.name!r} of {OPTIMIZERS.source_of(spec.name)} must build a torch.optim.Optimizer, got "
            f"{optimizer!r}"
        )
    _MADE_BY[optimizer] = spec
    return optimizer


def spec_of(optimizer: torch.optim.Optimizer) -> OptimizerSpec:
    """The record that an optimizer was made by."""
    return _MADE_BY[optimizer]


def settle_sparse(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Make sparse gradients, where there are any, into what the optimizer takes. To be called before each step.

    Raises TypeError for an optimizer that takes no sparse gradients.
    """
    sparse = [parameter for parameter in parameters if parameter.grad is not None and parameter.grad.is_sparse]
    if not sparse:
        return
    spec = spec_of(optimizer)
    if spec.settle_sparse is None:
        raise TypeError(
            f"{spec.name} takes no sparse gradients, and a parameter of the form {tuple(sparse[0].shape)} has one: "
            "write sparse=False where the model makes its embedding, or take optimizer='sgd'"
        )
    spec.settle_sparse(optimizer, sparse)


def num_slots(optimizer: torch.optim.Optimizer) -> int:
    """How many tensors as large as a parameter an optimizer keeps for it once it has made a step."""
    return len(spec_of(optimizer).slots(optimizer))


def fused_is_right(parameters: Iterable[torch.nn.Parameter]) -> bool:
    """Whether torch's fused kernels may be used.

    On the CPU the fused AdamW reads a gradient as if it were contiguous. Autograd gives a gradient the layout of
    its parameter, so contiguous parameters are safe and others are not (PyTorch 2.13, measured).
    """
    known = {"cpu", "cuda"}
    return all(
        p.is_contiguous() and p.is_floating_point() and p.device.type in known and not p.is_sparse for p in parameters
    )
