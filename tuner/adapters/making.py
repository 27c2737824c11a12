"""Which weights of a model a pattern names, and their adapters made: what `with_lora` does once torch is there."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tuner.adapters.low_rank import (
    ATTENTION_TENSORS,
    Adapted,
    adapt,
    adapted_modules,
    adapter_names,
    can_branch,
    layer_of,
    smaller_dimension,
)
from tuner.design.parameter_groups import no_match
from tuner.errors import WorkloadError

_SUPPORTED = (
    "nn.Linear, nn.Conv1d/2d/3d, nn.Embedding, nn.MultiheadAttention, and other tensors of two dimensions or more that "
    "the last part of a pattern names without a wildcard"
)
# Layers with matrices that their forward reads in ways of its own: an adapter there would do nothing, or fail.
_OTHER_LAYERS = (
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Bilinear,
    nn.EmbeddingBag,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_WILD = "*?["
_DONE = "_frozen_by_with_lora"  # of a module that was given to with_lora


class _Place(NamedTuple):
    """A tensor of a module, and the name under which it was found."""

    module: nn.Module
    tensor: str
    name: str


def make_adapters(model: nn.Module, pattern: str, rank: int, scale: float, dropout: float, trained: str) -> None:
    """Freeze the model, and make the adapters of what the pattern names. Raises WorkloadError before that."""
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"with_lora takes a torch.nn.Module, got {type(model).__name__}")
    places = [place for one in pattern.split("|") for place in _places(model, one.strip())]
    unique = list({(id(place.module), place.tensor): place for place in places}.values())
    for place in unique:
        _check_place(model, place, rank, dropout)
    besides = _besides(model, unique, trained) if trained else []
    _freeze(model)
    for place in unique:
        adapt(place.module, place.tensor, rank, scale, dropout)
    for parameter in besides:
        parameter.requires_grad_(True)


def _freeze(model: nn.Module) -> None:
    """Freeze what no earlier call has frozen, or left trained on purpose: a part of the model may have had one."""
    done = {id(one) for module in model.modules() if _DONE in vars(module) for one in module.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in done:
            parameter.requires_grad_(False)
    vars(model)[_DONE] = True


def _own_tensors(model: nn.Module) -> Iterator[tuple[str, str, _Place]]:
    """Each parameter of the base with the name of its module and its own, under all names that lead to it."""
    for name, module in model.named_modules(remove_duplicate=False):
        adapters = _adapters_of(module)
        for tensor, parameter in module._parameters.items():
            if parameter is not None and tensor not in adapters:
                yield name, f"{name}.{tensor}".strip("."), _Place(module, tensor, name or "the model")


def _adapters_of(module: nn.Module) -> set[str]:
    tensors = module.adapted if isinstance(module, Adapted) else ()
    return {name for one in tensors for kind in (False, True) for name in adapter_names(one, embedding=kind)}


def _places(model: nn.Module, pattern: str) -> list[_Place]:
    """The tensors that one pattern names and that can have a change. Raises WorkloadError where there is none."""
    found, passed = [], []
    bare_is_named = not any(letter in pattern.rpartition(".")[2] for letter in _WILD)
    inside = _outputs_of_attention(model, pattern)
    for module_name, name, place in _own_tensors(model):
        by_name = fnmatchcase(name, pattern)
        by_module = module_name and fnmatchcase(module_name, pattern)
        if not by_name and not by_module and id(place.module) not in inside:
            continue
        if _can_adapt(place, named=by_name and bare_is_named):
            found.append(place._replace(name=name if place.tensor != "weight" else place.name))
        else:
            passed.append((name, place))
    _refuse_made_weights(model, pattern)
    if not found and passed:
        name, place = passed[0]
        raise WorkloadError(
            f"with_lora: {pattern!r} names {name} of {type(place.module).__name__}, which cannot have an adapter: it "
            f"takes a weight of two dimensions or more. It knows {_SUPPORTED}"
        )
    if not found:
        names = [name for _, name, _ in _own_tensors(model)]
        raise no_match("with_lora", pattern, names, "module or parameter")
    return found


def _outputs_of_attention(model: nn.Module, pattern: str) -> set[int]:
    """The ids of the output layers of attention that a pattern names: to name attention is to name both."""
    named = model.named_modules(remove_duplicate=False)
    found = (one for name, one in named if isinstance(one, nn.MultiheadAttention) and fnmatchcase(name, pattern))
    return {id(one.out_proj) for one in found}


def _can_adapt(place: _Place, *, named: bool) -> bool:
    """Whether a tensor gets a change. Raises WorkloadError for the matrices of layers that cannot have one."""
    module = place.module
    parameter: Any = module._parameters[place.tensor]
    if is_lazy(parameter):
        raise WorkloadError(
            f"with_lora: {place.name} ({type(module).__name__}) has not made its weights yet: write the layer with its "
            "sizes given, or call the model once before"
        )
    if parameter.dim() < 2:
        return False
    if isinstance(module, _OTHER_LAYERS):
        raise WorkloadError(
            f"with_lora: {place.name} is a {type(module).__name__}, which cannot have an adapter: its forward reads "
            f"its matrices in a way of its own. Let the pattern name other layers: {_SUPPORTED}"
        )
    if layer_of(module) is not None and place.tensor == "weight":
        return True
    return (isinstance(module, nn.MultiheadAttention) and place.tensor in ATTENTION_TENSORS) or named


def _refuse_made_weights(model: nn.Module, pattern: str) -> None:
    """Raise WorkloadError for a named layer whose weight is made by something else at each call."""
    for name, module in model.named_modules(remove_duplicate=False):
        is_named = fnmatchcase(name, pattern) or fnmatchcase(f"{name}.weight", pattern)
        if is_named and layer_of(module) is not None and "weight" not in module._parameters:
            raise WorkloadError(
                f"with_lora: the weight of {name} ({type(module).__name__}) is made at each call, by weight_norm, "
                "spectral_norm or another parametrization, and is no parameter; remove that first "
                "(torch.nn.utils.parametrize.remove_parametrizations), or name other layers"
            )


def _check_place(model: nn.Module, place: _Place, rank: int, dropout: float) -> None:
    """Raise WorkloadError for a tensor that cannot have this change."""
    module, name = place.module, f"{place.name} ({type(place.module).__name__})"
    weight: Any = module._parameters[place.tensor]
    if isinstance(module, Adapted) and place.tensor in module.adapted:
        raise WorkloadError(
            f"with_lora: {place.name} has an adapter already, by an earlier call or under another name; let each "
            "weight match once"
        )
    if not weight.is_floating_point():
        raise WorkloadError(f"with_lora: the weight of {name} is {weight.dtype}, and LoRA needs real numbers")
    is_embedding = place.tensor == "weight" and isinstance(module, nn.Embedding)
    taken = [one for one in adapter_names(place.tensor, embedding=is_embedding) if hasattr(module, one)]
    if taken:
        raise WorkloadError(f"with_lora: {name} has a {taken[0]} of its own, which an adapter would replace; rename it")
    largest = smaller_dimension(module, weight)
    if rank > largest:
        raise WorkloadError(
            f"with_lora: rank {rank} is above {largest}, the smaller dimension of {name}, whose weight is "
            f"{' x '.join(map(str, weight.shape))}: a change of a larger rank does not exist; take rank <= {largest}, "
            "or leave this layer out"
        )
    if getattr(module, "max_norm", None) is not None:
        raise WorkloadError(
            f"with_lora: {name} has max_norm={module.max_norm!r}, which rewrites its frozen rows at each call; make it "
            "without max_norm"
        )
    if dropout and (why := _without_dropout(model, place)):
        raise WorkloadError(
            f"with_lora: dropout={dropout!r} cannot act on {name}: {why}; call with_lora for it without dropout, and "
            "once more with dropout for the other layers"
        )


def _without_dropout(model: nn.Module, place: _Place) -> str:
    """Why nothing goes into an adapter that could be dropped; "" where something does."""
    if isinstance(place.module, nn.Embedding):
        return "what goes into an embedding are numbers of rows"
    if not (place.tensor == "weight" and can_branch(place.module)):
        return "its weights are read with the change added (a parametrization), and no input goes through the adapter"
    outside = (one.out_proj for one in model.modules() if isinstance(one, nn.MultiheadAttention))
    if any(one is place.module for one in outside):
        return "attention reads its weight without calling it, so no input goes through the adapter"
    return ""


def _besides(model: nn.Module, places: list[_Place], pattern: str) -> list[torch.nn.Parameter]:
    """The parameters that stay trained. Raises WorkloadError where a pattern names none, or an adapted weight."""
    named = list(_own_tensors(model))
    adapted = {id(place.module._parameters[place.tensor]): place.name for place in places}
    for name, module in adapted_modules(model):  # of earlier calls
        adapted |= {id(module._parameters[one]): name or one for one in module.adapted}
    found: list[torch.nn.Parameter] = []
    for one in (each.strip() for each in pattern.split("|")):
        mine = [place for _, name, place in named if fnmatchcase(name, one) or fnmatchcase(name, f"{one}.*")]
        if not mine:
            raise no_match("trained= of with_lora", one, [name for _, name, _ in named], "module or parameter")
        for place in mine:
            parameter: Any = place.module._parameters[place.tensor]
            if id(parameter) in adapted:
                raise WorkloadError(
                    f"trained= of with_lora: {one!r} names {adapted[id(parameter)]}, which has an adapter: its weight "
                    "is frozen. Take it out of one of the two patterns"
                )
            found.append(parameter)
    return found
