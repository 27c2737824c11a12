"""Models without their adapters: the changes added to the weights, plain modules as before."""

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from tuner.adapters.low_rank import DROPOUT, adapted_modules, adapter_names
from tuner.errors import WorkloadError

Model = TypeVar("Model", bound=nn.Module)


def merged_copy(model: Model) -> Model:
    """See `tuner.adapters.lora.merged`."""
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"merged takes a torch.nn.Module, got {type(model).__name__}")
    plain = copy.deepcopy(model)
    found = list(adapted_modules(plain))
    if not found:
        raise WorkloadError(f"merged: {type(model).__name__} has no adapters, so there is nothing to merge")
    with torch.no_grad():
        for _, module in found:
            _merge(module)
    return plain


def _merge(module: Any) -> None:
    """module: an `Adapted`, which becomes one of the class that it had."""
    names = [name for one in module.adapted for name in adapter_names(one, embedding=module.is_embedding(one))]
    values = {one: module.changed(one) for one in module.adapted}
    trained = {one: module._parameters[one].requires_grad for one in module.adapted}
    module.__class__ = module.adapted_from
    for one in names:
        module._parameters.pop(one, None)
        module._buffers.pop(one, None)
    module._modules.pop(DROPOUT, None)
    for one, value in values.items():
        module._parameters[one] = nn.Parameter(value, requires_grad=trained[one])
