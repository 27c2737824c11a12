"""The groups of a trial's parameters: what a workload declares, checked against the model that it built.

Every trained parameter is in exactly one group, a frozen one in none. A group is recorded with its trial as
`GroupRecord`, and the optimizer is built of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tuner.design.optimizers import ParameterGroup
from tuner.design.parameter_groups import OTHERS, NamedGroup, NamedParameter, Word, as_multiple, divided
from tuner.design.workload import Workload
from tuner.errors import TunerError, WorkloadError
from tuner.records import GroupRecord
from tuner.training.compiled import without_compiler
from tuner.training.endings import first_line

_KEYS = ("params", "rate", "decay")
# What torch calls the settings of a group, and why a study file writes something else there.
_INSTEAD = {
    "lr": "the learning rate of each step is the schedule's: write rate=, a multiple of it",
    "weight_decay": "weight_decay is the point's: write decay=, a multiple of it",
}
_OF_THE_POINT = "all groups share it: declare it in the search space"


@dataclass(frozen=True, slots=True)
class TrainedGroup:
    """Parameters that are trained alike, and what is recorded of them."""

    record: GroupRecord
    parameters: list[torch.nn.Parameter]

    def for_optimizer(self) -> ParameterGroup:
        """The group as an optimizer is built of it."""
        return ParameterGroup(params=self.parameters, rate=self.record.rate, decay=self.record.decay)


def trained_groups(workload: Workload, model: torch.nn.Module, point: Mapping[str, Any]) -> list[TrainedGroup]:
    """The groups of a model's trained parameters, each in the order of the model; one group where none is declared.

    Raises WorkloadError for a declaration that does not go with the model, KeyError for a name that the point lacks.
    """
    kind = type(workload).__name__
    if workload.no_decay not in (None, "vectors"):
        raise WorkloadError(
            f"{kind}.no_decay is {workload.no_decay!r}, and can be None or 'vectors', the parameters with fewer than "
            "two dimensions; parameter_groups() names others, by matching('...', decay=0.0)"
        )
    found = _parameters_of(model)
    declared = _declared(workload, model, point) if workload.declares("parameter_groups") else []
    if [id(one) for one, _ in _parameters_of(model)] != [id(one) for one, _ in found]:
        raise WorkloadError(f"{kind}.parameter_groups replaces parameters of the model; do that in model()")
    named = [name for _, name in found]
    if [one.requires_grad for one, _ in found] != [one.trained for one in named]:
        raise WorkloadError(f"{kind}.parameter_groups changes requires_grad of parameters; freeze them in model()")
    try:
        choices = _choices(declared, found)
        made = divided(named, choices, vectors_decay=workload.no_decay is None)
    except WorkloadError as error:
        raise WorkloadError(f"{kind}.parameter_groups: {error}") from error
    return [_trained(group, found) for group in made]


def recorded(groups: Sequence[TrainedGroup]) -> tuple[GroupRecord, ...]:
    """What is recorded of the groups of a trial: nothing where all its parameters are trained alike."""
    whole = tuple(group.record for group in groups)
    return () if [(one.name, one.rate, one.decay) for one in whole] == [(OTHERS, 1.0, 1.0)] else whole


def as_state(groups: Sequence[GroupRecord]) -> list[list[Any]]:
    """The groups as a checkpoint has them: the order of the parameters in the optimizer, and what they are given."""
    return [[one.rate, one.decay, list(one.parameters)] for one in groups]


def difference_of_groups(before: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> str:
    """What differs first between the groups of two checkpoints, in words; empty where nothing does."""
    if len(before) != len(now):
        return f"{len(before)} groups then, {len(now)} now"
    for (rate, decay, names), (rate_now, decay_now, names_now) in zip(before, now, strict=True):
        names = [without_compiler(name) for name in names]  # older versions kept what torch.compile adds
        if list(names) != list(names_now):
            moved = sorted(set(names) ^ set(names_now)) or names
            return f"{moved[0]} is in another group"
        if (rate, decay) != (rate_now, decay_now):
            return f"{names[0]} had rate {rate:g} and decay {decay:g}, and has {rate_now:g} and {decay_now:g}"
    return ""


Found = Sequence[tuple[torch.nn.Parameter, NamedParameter]]


def _parameters_of(model: torch.nn.Module) -> Found:
    """The parameters in the order of the model, each once, with all of their names."""
    names: dict[int, list[str]] = {}
    parameters: dict[int, torch.nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(without_compiler(name))
        parameters[id(parameter)] = parameter
    return [(one, NamedParameter(tuple(names[key]), one.dim(), one.requires_grad)) for key, one in parameters.items()]


def _declared(workload: Workload, model: torch.nn.Module, point: Mapping[str, Any]) -> list[Any]:
    """What `parameter_groups` returns, as a list. Raises WorkloadError; KeyError is the caller's to word."""
    what = f"{type(workload).__name__}.parameter_groups"
    try:
        groups = workload.parameter_groups(model, point)
    except (TunerError, KeyError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise WorkloadError(f"{what} failed with {type(error).__name__}: {first_line(error)}") from error
    if isinstance(groups, str | Mapping | Word | torch.Tensor) or not isinstance(groups, Iterable):
        raise WorkloadError(f"{what} must return a list of groups, got {_shown(groups)}")
    return list(groups)


def _choices(declared: Sequence[Any], found: Found) -> list[tuple[str, Sequence[NamedGroup]]]:
    """What each declared group chooses, with how an error calls the group. Raises WorkloadError."""
    named = [name for _, name in found]
    listed: dict[int, str] = {}  # places that dicts list
    choices: list[tuple[str, Sequence[NamedGroup]]] = []
    for number, group in enumerate(declared, start=1):
        if isinstance(group, Word):
            choices.append((str(group), group.chosen(named)))
        elif isinstance(group, Mapping):
            word = f"group {number}"
            one = _listed(word, group, found)
            for place in one.places:
                if place in listed:
                    raise WorkloadError(f"{named[place].name} is in params of {listed[place]} and of {word}")
                listed[place] = word
            choices.append((word, [one]))
        else:
            raise WorkloadError(
                f"group {number} must be made by vectors(...), matching(...) or by_depth(...), or be a dict with "
                f"{', '.join(_KEYS)}; got {_shown(group)}"
            )
    return choices


def _listed(word: str, group: Mapping[str, Any], found: Found) -> NamedGroup:
    """A dict as a group. Raises WorkloadError, which names the right word for a key that torch's groups would have."""
    for key in group:
        if key not in _KEYS:
            why = _INSTEAD.get(key, _OF_THE_POINT) if isinstance(key, str) else "it is no name"
            raise WorkloadError(f"{word} has {key!r}, and a group has {', '.join(_KEYS)} alone: {why}")
    if "params" not in group:
        raise WorkloadError(f"{word} has no 'params': a list of parameters of the model")
    places = {id(parameter): place for place, (parameter, _) in enumerate(found)}
    chosen: dict[int, tuple[str, ...]] = {}
    for parameter in _tensors_of(word, group["params"]):
        place = places.get(id(parameter))
        if place is None:
            raise WorkloadError(
                f"params of {word} has a tensor of the form {tuple(parameter.shape)} that is no parameter of the model"
            )
        names = found[place][1].names
        if place in chosen:
            tied = f" (tied: {' and '.join(names)})" if len(names) > 1 else ""
            raise WorkloadError(f"params of {word} has {names[0]} twice{tied}")
        chosen[place] = names
    if not chosen:
        raise WorkloadError(f"params of {word} has no parameter; an iterator that was used up before?")
    rate, decay = as_multiple(group.get("rate", 1.0), "rate", word), group.get("decay")
    return NamedGroup(word, rate, None if decay is None else as_multiple(decay, "decay", word), chosen)


def _tensors_of(word: str, given: Any) -> list[torch.Tensor]:
    """What torch takes as "params": one tensor, or several, or pairs with their names; no set, which has no order."""
    several = [given] if isinstance(given, torch.Tensor) else given
    if isinstance(given, torch.nn.Module):
        raise WorkloadError(f"params of {word} is a module ({type(given).__name__}): write its .parameters()")
    if isinstance(several, str | set | frozenset | Mapping) or not isinstance(several, Iterable):
        raise WorkloadError(f"params of {word} must be a list of parameters, got {_shown(given)}")
    tensors: list[torch.Tensor] = []
    for one in several:
        tensor = one[1] if isinstance(one, tuple) and len(one) == 2 else one
        if not isinstance(tensor, torch.Tensor):
            raise WorkloadError(f"params of {word} must have parameters only, got {_shown(tensor)}")
        tensors.append(tensor)
    return tensors


def _trained(group: NamedGroup, found: Found) -> TrainedGroup:
    places = sorted(group.places)
    parameters = [found[place][0] for place in places]
    record = GroupRecord(
        name=group.label,
        rate=group.rate,
        decay=1.0 if group.decay is None else group.decay,
        num_values=sum(parameter.numel() for parameter in parameters),
        parameters=tuple(found[place][1].name for place in places),
    )
    return TrainedGroup(record, parameters)


def _shown(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} of the form {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{kind}: {value!r:.80}"
