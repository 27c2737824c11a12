"""The models of K trials as one: parameters and buffers stacked, differing settings as numbers of each trial."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tuner.errors import NotFusible
from tuner.fused.likeness import check_alike
from tuner.fused.operations import Operations
from tuner.fused.trial_tensor import TrialTensor, seen_shape
from tuner.training.python_state import attributes

Place = tuple[torch.nn.Module, str]  # a module and the name it knows a tensor by


@dataclass(frozen=True, slots=True)
class Own:
    """What a module itself holds and each trial has its own of: a number or a tensor, stacked to [K, ...]."""

    module: torch.nn.Module
    name: str
    values: torch.Tensor
    is_number: bool


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
    settings: list[Own] = field(default_factory=list)

    @classmethod
    def of(cls, models: Sequence[torch.nn.Module]) -> "StackedModel":
        """Stack the models and make their tensors views of the stacks. Raises NotFusible when they differ."""
        check_alike(models)
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

    def install(
        self, tensors: Mapping[str, torch.Tensor], settings: Sequence[torch.Tensor], operations: Operations
    ) -> None:
        """Put stacked tensors into the template as trial tensors, tied ones everywhere."""
        for name, tensor in tensors.items():
            trial = TrialTensor(tensor, operations)
            trial._is_param = name in self.parameters  # what torch reads in isinstance(x, nn.Parameter)
            for module, key in self.places[name]:
                (module._parameters if key in module._parameters else module._buffers)[key] = trial  # type: ignore[assignment]
        for own, values in zip(self.settings, settings, strict=True):
            own.module.__dict__[own.name] = TrialTensor(values, operations, is_number=own.is_number)
        for module in self.template.modules():
            if isinstance(module, torch.nn.RNNBase):
                module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]

    def write_back(self, tensors: Mapping[str, torch.Tensor], operations: Operations) -> None:
        """Where the model has put a new tensor in the place of a buffer, let the buffer have its values."""
        for name, buffer in ((name, tensors[name]) for name in self.buffers):
            module, key = self.places[name][0]
            new: Any = module._buffers[key]
            if isinstance(new, TrialTensor) and new.stacked is buffer:
                continue
            if not isinstance(new, torch.Tensor) or (seen_shape(new), new.dtype) != (buffer.shape[1:], buffer.dtype):
                raise NotFusible(f"the buffer {name} becomes a tensor of another form")
            buffer.copy_(operations.stacked(new).detach())

    def reclaim(self, trial: int, model: torch.nn.Module) -> None:
        """Let buffers that the trial's own module has put in the place of others be views of its row again."""
        for name, buffer in model.named_buffers():
            row = self.buffers[name][trial]
            if buffer.data_ptr() != row.data_ptr():
                row.copy_(buffer)
                buffer.data = row


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


def _settings(template: torch.nn.Module, models: Sequence[torch.nn.Module]) -> list[Own]:
    """Numbers and tensors that a module itself holds and that differ between trials: a dropout rate, frequencies."""
    found = []
    device = next((parameter.device for parameter in template.parameters()), None)
    others = [list(model.modules()) for model in models]
    for place, module in enumerate(template.modules()):
        for key, value in attributes(module):
            if not isinstance(value, float | torch.Tensor):
                continue
            values = [vars(modules[place])[key] for modules in others]
            if isinstance(value, torch.Tensor) and not all(torch.equal(each, value) for each in values):
                found.append(Own(module, key, torch.stack(values), is_number=False))
            elif isinstance(value, float) and any(each != value for each in values):
                stacked = torch.tensor(values, dtype=torch.float64, device=device)
                found.append(Own(module, key, stacked, is_number=True))
    return found
