"""How the optimizers of stacked trials make their steps: by the kernels of their record, or each one its own.

A kernel runs once for each trial on views of its rows, and once for each of its parameter groups. One call for each
parameter of each trial would keep the bits as well; one call on a flat row would not, because the kernel computes the
last elements of a tensor differently. Where a record has no kernel for stacked trials, each trial's own optimizer makes
its step, on parameters and gradients that are views of their rows. So every optimizer can be used in a group.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from tuner.errors import NotFusible
from tuner.training.compiler import plain_step
from tuner.training.optimizers import spec_of, state_bytes
from tuner.training.update import rate_of_group

Rows = list[torch.Tensor]
Rate = float | torch.Tensor  # a tensor: a float32 scalar on the device


def row_optimizer(
    optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Sequence[torch.Tensor]], gradients: Rows
) -> "KernelSteps | OwnSteps":
    """The steps of K trials. parameters: of each trial those that the loss depends on; gradients: [K, ...] of each."""
    if spec_of(optimizers[0]).row_update is not None:
        with suppress(NotFusible):
            return KernelSteps(optimizers, parameters, gradients)
    return OwnSteps(optimizers, parameters, gradients)


class _Steps:
    """What both ways share: each trial's parameters, and views of the rows of their gradients."""

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Sequence[torch.Tensor]], gradients: Rows
    ) -> None:
        self.spec = spec_of(optimizers[0])
        self.optimizers = list(optimizers)
        self.parameters = [list(own) for own in parameters]
        rows = [list(gradient.unbind(0)) for gradient in gradients]
        self.gradients: list[Rows] = [[row[trial] for row in rows] for trial in range(len(self.optimizers))]
        self.begun = [_has_state(each, own) for each, own in zip(self.optimizers, self.parameters, strict=True)]


class KernelSteps(_Steps):
    """The optimizer state of K trials as stacks; each trial's own optimizer has views of its rows.

    All optimizers have one spec. Raises NotFusible where its kernel cannot be used.
    """

    captured = True  # a CUDA graph may hold these steps

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Sequence[torch.Tensor]], gradients: Rows
    ) -> None:
        super().__init__(optimizers, parameters, gradients)
        self.values = [[parameter.data for parameter in each] for each in self.parameters]
        self._begun_alone = list(self.begun)
        device = gradients[0].device if gradients else None
        self.steps = torch.zeros(len(self.optimizers), len(gradients), device=device)  # torch counts for each parameter
        self.counters = [list(row.unbind(0)) for row in self.steps.unbind(0)]
        self.stacks: dict[str, list[torch.Tensor]] = {}
        slots = dict.fromkeys(name for each in self.optimizers for name in self.spec.slots(each))
        self.states: dict[str, list[Rows]] = {name: self._stacked(name) for name in slots}
        self._updates = [self._updates_of(trial) for trial in range(len(self.optimizers))]

    @property
    def changing(self) -> Rows:
        """What these steps change besides the parameters."""
        return [self.steps, *(stack for stacks in self.stacks.values() for stack in stacks)]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.changing)

    def kept(self) -> None:
        """What `forget` needs besides the stacks: nothing."""

    def _updates_of(self, trial: int) -> list[tuple[Callable[[Any], None], dict[str, Any]]]:
        """The update of each parameter group of a trial, and the group, which has the factor of its learning rate."""
        update, groups = self.spec.row_update, self.optimizers[trial].param_groups
        if update is None:
            raise NotFusible(f"the optimizer {self.spec.name}: it has no update for stacked trials")
        places = _places_by_group(self.optimizers[trial], self.parameters[trial])
        parts = [RowGroup(self, number, places[number]) for number in range(len(groups)) if places[number]]
        return [(update(part, trial), groups[part.number]) for part in parts]

    def _stacked(self, name: str) -> list[Rows]:
        """The state of every trial as views of one stack for each parameter; zeros where there is none yet."""
        by_parameter = []
        self.stacks[name] = []
        for place, parameter in enumerate(self.parameters[0]):
            stack = parameter.new_zeros(len(self.parameters), *parameter.shape)
            for trial, own in enumerate(self.parameters):
                state = self.optimizers[trial].state.get(own[place], {})
                if state.get(name) is not None:
                    stack[trial].copy_(state[name])
                    self.steps[trial, place] = float(state.get("step", 0.0))
            self.stacks[name].append(stack)
            by_parameter.append(stack.unbind(0))
        return [[rows[trial] for rows in by_parameter] for trial in range(len(self.parameters))]

    def count(self) -> None:
        """Another update begins. Trials that train no more are counted too: their states are saved already."""
        self.steps.add_(1.0)

    def step(self, trial: int, rate: Rate) -> None:
        """One update of one trial at a learning rate: a number, or a float32 scalar on the device."""
        for update, group in self._updates[trial]:
            update(_rate_of_group(group, rate))
        self.begun[trial] = True

    def write_back(self, trial: int, rate: float) -> None:
        """Give the trial's own optimizer the state that it would have after these updates."""
        optimizer = self.optimizers[trial]
        _write_rate(optimizer, rate)
        slots = self.spec.slots(optimizer)
        if not slots:
            return  # such an optimizer keeps nothing
        for place, parameter in enumerate(self.parameters[trial]):
            state = {name: self.states[name][trial][place] for name in slots}
            if self.spec.counts_steps:
                state = {"step": self.counters[trial][place], **state}
            optimizer.state[parameter].update(state)

    def forget(self, trial: int, rate: float, kept: None) -> None:
        """Give the trial's own optimizer the state from before this group trained it; others restore the stacks."""
        self.begun[trial] = self._begun_alone[trial]
        if self.begun[trial]:
            self.write_back(trial, rate)
        else:
            self.optimizers[trial].state.clear()
            _write_rate(self.optimizers[trial], rate)


class RowGroup:
    """One parameter group of stacked trials, as the update of a record reads it.

    values, gradients, counters, and each of `states`: of each trial a list over the parameters of the group. begun: of
    each trial, whether it has made an update.
    """

    def __init__(self, steps: KernelSteps, number: int, places: Sequence[int]) -> None:
        self.number = number
        self.optimizers = steps.optimizers
        self.begun = steps.begun

        def part(rows: Sequence[Rows]) -> list[Rows]:
            return [[row[place] for place in places] for row in rows]

        self.values, self.gradients, self.counters = map(part, (steps.values, steps.gradients, steps.counters))
        self.states = {name: part(rows) for name, rows in steps.states.items()}

    def settings(self, trial: int) -> dict[str, Any]:
        """The parameter group of a trial's own optimizer."""
        group: dict[str, Any] = self.optimizers[trial].param_groups[self.number]
        return group


class OwnSteps(_Steps):
    """Each trial's own optimizer makes its steps. What it keeps stays where it keeps it, whatever that is."""

    captured = False  # it may read numbers back, count in Python, and put its state elsewhere at each step
    changing: tuple[torch.Tensor, ...] = ()

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[Sequence[torch.Tensor]], gradients: Rows
    ) -> None:
        super().__init__(optimizers, parameters, gradients)
        self._makes = [plain_step(each) for each in optimizers]

    @property
    def num_bytes(self) -> int:
        """Bytes of the state of all trials, once each has made a step."""
        return len(self.optimizers) * state_bytes(self.optimizers[0])

    def kept(self) -> list[tuple[Any, Any]]:
        """Copies of the state and the settings of each trial's optimizer."""
        return [_copied(optimizer) for optimizer in self.optimizers]

    def count(self) -> None:
        """Each optimizer counts its own updates."""

    def step(self, trial: int, rate: Rate) -> None:
        """One update of one trial. Outside of inference mode: a state that is made there cannot be used elsewhere."""
        with torch.inference_mode(False):
            for parameter, gradient in zip(self.parameters[trial], self.gradients[trial], strict=True):
                if parameter.grad is not gradient:
                    parameter.grad = gradient
            _write_rate(self.optimizers[trial], float(rate))
            self._makes[trial]()
        self.begun[trial] = True

    def write_back(self, trial: int, rate: float) -> None:
        """The trial's own optimizer has the state already."""
        _write_rate(self.optimizers[trial], rate)

    def forget(self, trial: int, rate: float, kept: list[tuple[Any, Any]]) -> None:
        """Give the trial's own optimizer the state from before this group trained it."""
        optimizer = self.optimizers[trial]
        state, settings = cloned(kept[trial], _themselves(optimizer))
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, before in zip(optimizer.param_groups, settings, strict=True):
            for name in group.keys() - before.keys() - {"params"}:  # settings that it made itself
                del group[name]
            group.update(before)
        self.begun[trial] = _has_state(optimizer, self.parameters[trial])


def _copied(optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Copies of an optimizer's state and of the settings of its parameter groups; the parameters are themselves."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return cloned((dict(optimizer.state), settings), _themselves(optimizer))  # type: ignore[no-any-return]


def _themselves(optimizer: torch.optim.Optimizer) -> dict[int, Any]:
    return {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}


def cloned(value: Any, themselves: dict[int, Any]) -> Any:
    """A copy of a state in its own memory, where a deep copy of a view would be one of the whole stack.

    themselves: by their ids, what is not copied.
    """
    if id(value) in themselves:
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {key: cloned(one, themselves) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(cloned(one, themselves) for one in value)
    return copy.deepcopy(value, themselves)


def _write_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate_of_group(group, rate)


def _rate_of_group(group: dict[str, Any], rate: Rate) -> Rate:
    """As `rate_of_group`; of a scalar on the device it is rounded as there."""
    if isinstance(rate, torch.Tensor):
        return (rate.double() * group["lr_factor"]).float() if "lr_factor" in group else rate
    return rate_of_group(group, rate)


def _places_by_group(optimizer: torch.optim.Optimizer, parameters: Rows) -> list[list[int]]:
    """For each parameter group the places of its parameters among these."""
    place_of = {id(parameter): place for place, parameter in enumerate(parameters)}
    return [
        [place_of[id(parameter)] for parameter in group["params"] if id(parameter) in place_of]
        for group in optimizer.param_groups
    ]


def _has_state(optimizer: torch.optim.Optimizer, parameters: Rows) -> bool:
    return any(optimizer.state.get(parameter) for parameter in parameters)
