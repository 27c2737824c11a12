"""The models of K trials as one: what is frozen and equal held once, the rest of parameters and buffers stacked.

Settings that differ become numbers of each trial.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import torch

from tuner.errors import NotFusible
from tuner.fused.likeness import check_alike
from tuner.fused.operations import Operations, WritesShared
from tuner.fused.sharing import Holder, copied, holders, stand_in, strayed, tied
from tuner.fused.trial_tensor import TrialTensor, seen_shape
from tuner.training.copy_on_write import address, shown
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

    `shared`: what is frozen and equal in all trials, [*shape]; all else is stacked, [K, *shape]. Each trial's own
    module holds views of its row, and tensors that show what is shared: it can be evaluated, saved and trained alone
    at any time. `parted`: what was shared, as it was before a trial wrote into its own.
    """

    template: torch.nn.Module
    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    shared: dict[str, torch.Tensor]
    places: dict[str, list[Place]]
    held: list[dict[str, Holder]]  # where each trial's own module holds what is shared
    trained: tuple[str, ...]  # names of the parameters that have gradients
    settings: list[Own] = field(default_factory=list)
    parted: dict[str, torch.Tensor] = field(default_factory=dict)
    _memory: dict[str, torch.Tensor] = field(default_factory=dict)  # as `shared`; nobody computes with these
    _frozen: AbstractSet[str] = frozenset()  # names of the parameters among these; the others are buffers

    @classmethod
    def of(cls, models: Sequence[torch.nn.Module]) -> "StackedModel":
        """Stack the models and make their tensors views of the stacks. Raises NotFusible when they differ."""
        check_alike(models)
        memory = tied(models)
        template = copied(models[0])
        made = cls(
            template,
            _stacked([dict(model.named_parameters()) for model in models], memory),
            _stacked([dict(model.named_buffers()) for model in models], memory),
            {name: shown(one) for name, one in memory.items()},
            _places(template),
            [{name: place for name, place in holders(model).items() if name in memory} for model in models],
            tuple(name for name, parameter in models[0].named_parameters() if parameter.requires_grad),
        )
        made.settings = _settings(template, models)
        made._memory = memory
        made._frozen = memory.keys() & dict(models[0].named_parameters()).keys()
        return made

    @property
    def stacks(self) -> dict[str, torch.Tensor]:
        """All that is [K, ...]: parameters, then buffers."""
        return {**self.parameters, **self.buffers}

    @property
    def shared_bytes(self) -> int:
        """Memory of what is held once for all trials."""
        return sum(tensor.nbytes for tensor in self.shared.values())

    def stand_ins(self) -> dict[str, torch.Tensor]:
        """What is shared, as parameters and buffers for a pass through the loss, which may write into them."""
        return {name: stand_in(one, is_parameter=name in self._frozen) for name, one in self._memory.items()}

    def strayed(self, trials: Iterable[int]) -> set[str]:
        """Names of what is shared and was written into by one of these trials' own code."""
        starts = {name: address(one) for name, one in self._memory.items()}
        return {name for trial in trials for name in strayed(self.held[trial], self._memory, starts)}

    def part(self, names: Iterable[str]) -> None:
        """Stack what was shared: each trial's own values from now on."""
        for name in names:
            tensors = [held[key] for held, key in (places.pop(name) for places in self.held)]
            if len({(tensor.shape, tensor.dtype) for tensor in tensors}) > 1:
                raise NotFusible(f"the buffer {name} becomes a tensor of another form")
            kind = self.parameters if name in self._frozen else self.buffers
            kind[name] = _stack(tensors)
            self.parted[name] = self._memory.pop(name)
            del self.shared[name]

    def install(
        self, tensors: Mapping[str, torch.Tensor], settings: Sequence[torch.Tensor], operations: Operations
    ) -> None:
        """Put stacked tensors into the template as trial tensors, shared ones as they are, tied ones everywhere."""
        for name, tensor in tensors.items():
            value = tensor
            if name not in self.shared:
                value = TrialTensor(tensor, operations)
                value._is_param = name in self.parameters  # what torch reads in isinstance(x, nn.Parameter)
            for module, key in self.places[name]:
                (module._parameters if key in module._parameters else module._buffers)[key] = value  # type: ignore[assignment]
        for own, values in zip(self.settings, settings, strict=True):
            own.module.__dict__[own.name] = TrialTensor(values, operations, is_number=own.is_number)
        for module in self.template.modules():
            if isinstance(module, torch.nn.RNNBase):
                module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]

    def write_back(self, tensors: Mapping[str, torch.Tensor], operations: Operations) -> None:
        """Where the model has put a new tensor in the place of a buffer, let the buffer have its values."""
        self._check_shared(tensors)
        for name, buffer in ((name, tensors[name]) for name in self.buffers):
            module, key = self.places[name][0]
            new: Any = module._buffers[key]
            if isinstance(new, TrialTensor) and new.stacked is buffer:
                continue
            if not isinstance(new, torch.Tensor) or (seen_shape(new), new.dtype) != (buffer.shape[1:], buffer.dtype):
                raise NotFusible(f"the buffer {name} becomes a tensor of another form")
            buffer.copy_(operations.stacked(new).detach())

    def _check_shared(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raise WritesShared, naming all of them, where the model has written into what the trials share."""
        found = []
        for name, memory in self._memory.items():
            module, key = self.places[name][0]
            new = (module._parameters if key in module._parameters else module._buffers)[key]
            if new is not tensors[name] or address(tensors[name]) != address(memory):
                found.append(name)
        if found:
            raise WritesShared(f"the code writes into {', '.join(found[:3])}, which all trials share", found)

    def reclaim(self, trial: int, model: torch.nn.Module) -> None:
        """Let buffers that the trial's own module has put in the place of others be views of its row again."""
        for name, buffer in ((name, buffer) for name, buffer in model.named_buffers() if name in self.buffers):
            row = self.buffers[name][trial]
            if buffer.data_ptr() != row.data_ptr():
                row.copy_(buffer)
                buffer.data = row


def _stacked(tensors: list[dict[str, torch.Tensor]], but: Collection[str]) -> dict[str, torch.Tensor]:
    """Stacks by name, `but` of some."""
    return {name: _stack([one[name] for one in tensors]) for name in tensors[0] if name not in but}


def _stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """[K, ...]; the given tensors become views of its rows."""
    stack = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, row in zip(tensors, stack.unbind(0), strict=True):
        tensor.data = row
    return stack


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
