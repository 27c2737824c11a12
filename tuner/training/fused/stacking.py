"""The models of K trials as one: parameters and buffers stacked, differing settings as numbers of each trial."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tuner.errors import NotFusible

Place = tuple[torch.nn.Module, str]  # a module and the name it knows a tensor by

_SKIPPED = frozenset({"_parameters", "_buffers", "_modules", "training", "_flat_weights", "_flat_weight_refs"})


@dataclass(slots=True)
class StackedModel:
    """A template module, and for each tensor in it the places where it stands and the values of all trials.

    Each trial's own module holds views of its row: it can be evaluated, saved and trained alone at any time.
    """

    template: torch.nn.Module
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    places: dict[str, list[Place]]
    trained: tuple[str, ...]  # names of the parameters that have gradients
    settings: list[tuple[torch.nn.Module, str, torch.Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, models: Sequence[torch.nn.Module]) -> "StackedModel":
        """Stack the models and make their tensors views of the stacks. Raises NotFusible when they differ."""
        forms = [form_of(model) for model in models]
        differing = [key for key, value in forms[0].items() if any(form.get(key) != value for form in forms)]
        if differing or any(len(form) != len(forms[0]) for form in forms):
            raise NotFusible(f"the models of the trials are not alike: {', '.join(differing[:3]) or 'other modules'}")
        template = copy.deepcopy(models[0])
        made = cls(
            template,
            _stacked([dict(model.named_parameters()) for model in models]),
            _stacked([dict(model.named_buffers()) for model in models]),
            _places(template),
            tuple(name for name, parameter in models[0].named_parameters() if parameter.requires_grad),
        )
        made.settings = _settings(template, models)
        return made

    def install(self, tensors: Mapping[str, torch.Tensor], settings: Sequence[Any]) -> None:
        """Put tensors (trial tensors, while recording) into the template, tied ones everywhere."""
        for name, tensor in tensors.items():
            for module, key in self.places[name]:
                (module._parameters if key in module._parameters else module._buffers)[key] = tensor  # type: ignore[assignment]
        for (module, key, _), value in zip(self.settings, settings, strict=True):
            module.__dict__[key] = value
        for module in self.template.modules():
            if isinstance(module, torch.nn.RNNBase):
                module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]


def form_of(model: torch.nn.Module) -> dict[str, object]:
    """What must be equal for models to be stacked: names, shapes and types of tensors, the modules' settings."""
    form: dict[str, object] = {}
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            form[f"{kind} {name}"] = (tuple(tensor.shape), tensor.dtype, tensor.requires_grad)
    for name, module in model.named_modules():
        form[f"module {name}"] = type(module)
        for key, value in vars(module).items():
            if key not in _SKIPPED and isinstance(value, bool | int | str | tuple):
                form[f"{name}.{key}".lstrip(".")] = value
    return form


def _stacked(tensors: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stacks by name; the given tensors become views of their rows."""
    stacks = {}
    for name in tensors[0]:
        stack = torch.stack([one[name].detach() for one in tensors])
        for one, row in zip(tensors, stack.unbind(0), strict=True):
            one[name].data = row
        stacks[name] = stack
    return stacks


def _places(template: torch.nn.Module) -> dict[str, list[Place]]:
    names = {id(tensor): name for name, tensor in [*template.named_parameters(), *template.named_buffers()]}
    places: dict[str, list[Place]] = {name: [] for name in names.values()}
    for module in template.modules():
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                places[names[id(tensor)]].append((module, key))
    return places


def _settings(
    template: torch.nn.Module, models: Sequence[torch.nn.Module]
) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
    """Floats that a module holds and that differ between trials: a dropout rate, a temperature."""
    found = []
    device = next((parameter.device for parameter in template.parameters()), None)
    others = [list(model.modules()) for model in models]
    for place, module in enumerate(template.modules()):
        for key, value in vars(module).items():
            if isinstance(value, float):
                values = [vars(modules[place])[key] for modules in others]
                if any(each != value for each in values):
                    found.append((module, key, torch.tensor(values, dtype=torch.float64, device=device)))
    return found
