"""The optimizer state of stacked trials as rows, and their updates by the kernel of the optimizer's record.

A kernel runs once for each trial on views of its rows. One call for each parameter of each trial would keep the bits
as well; one call on a flat row would not, because the kernel computes the last elements of a tensor differently.
"""

from collections.abc import Sequence

import torch

from tuner.errors import NotFusible
from tuner.training.optimizers import spec_of

Rows = list[torch.Tensor]


class RowOptimizer:
    """The optimizer state of K trials as stacks; each trial's own optimizer has views of its rows.

    All optimizers have one spec; `used` are the places of the parameters that the loss depends on, and `gradients` are
    [K, ...], one for each of them. Raises NotFusible for an optimizer without an update for stacked trials.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], used: Sequence[int], gradients: Rows) -> None:
        self.spec = spec_of(optimizers[0])
        if self.spec.row_update is None:
            raise NotFusible(
                f"the optimizer {self.spec.name}: it has no update for stacked trials (row_update of its OptimizerSpec)"
            )
        if len(optimizers[0].param_groups) > 1:
            raise NotFusible(f"the optimizer {self.spec.name}: it has several parameter groups")
        self.optimizers = list(optimizers)
        self.parameters = [[_parameters(each)[place] for place in used] for each in optimizers]
        rows = [list(gradient.unbind(0)) for gradient in gradients]
        self.gradients: list[Rows] = [[row[trial] for row in rows] for trial in range(len(self.optimizers))]
        self.values = [[parameter.data for parameter in each] for each in self.parameters]
        self._begun_alone = [_has_state(each, own) for each, own in zip(self.optimizers, self.parameters, strict=True)]
        self.begun = list(self._begun_alone)
        device = gradients[0].device if gradients else None
        self.steps = torch.zeros(len(self.optimizers), len(gradients), device=device)  # torch counts for each parameter
        self.counters = [list(row.unbind(0)) for row in self.steps.unbind(0)]
        self.stacks: dict[str, list[torch.Tensor]] = {}
        slots = dict.fromkeys(name for each in self.optimizers for name in self.spec.slots(each))
        self.states: dict[str, list[Rows]] = {name: self._stacked(name) for name in slots}
        self._updates = [self.spec.row_update(self, trial) for trial in range(len(self.optimizers))]

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

    def step(self, trial: int, rate: float | torch.Tensor) -> None:
        """One update of one trial at a learning rate: a number, or a float32 scalar on the device."""
        self._updates[trial](rate)
        self.begun[trial] = True

    def write_back(self, trial: int, rate: float) -> None:
        """Give the trial's own optimizer the state that it would have after these updates."""
        optimizer = self.optimizers[trial]
        optimizer.param_groups[0]["lr"] = rate
        slots = self.spec.slots(optimizer)
        if not slots:
            return  # such an optimizer keeps nothing
        for place, parameter in enumerate(self.parameters[trial]):
            state = {name: self.states[name][trial][place] for name in slots}
            if self.spec.counts_steps:
                state = {"step": self.counters[trial][place], **state}
            optimizer.state[parameter].update(state)

    def forget(self, trial: int, rate: float) -> None:
        """Give the trial's own optimizer the state from before this group trained it; others restore the stacks."""
        self.begun[trial] = self._begun_alone[trial]
        if self.begun[trial]:
            self.write_back(trial, rate)
        else:
            self.optimizers[trial].state.clear()
            self.optimizers[trial].param_groups[0]["lr"] = rate


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return list(optimizer.param_groups[0]["params"])


def _has_state(optimizer: torch.optim.Optimizer, parameters: Rows) -> bool:
    return any(optimizer.state.get(parameter) for parameter in parameters)
