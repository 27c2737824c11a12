"""Optimizer steps of stacked trials: torch's fused kernels, called once for each trial on views of its rows.

One call for each parameter of each trial would keep the bits as well; one call on a flat row would not, because the
kernel computes the last elements of a tensor differently.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tuner.errors import NotFusible

Rows = list[torch.Tensor]
_ADAM = ("exp_avg", "exp_avg_sq")


class RowOptimizer:
    """The optimizer state of K trials as stacks; each trial's own optimizer holds views of its rows."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], used: Sequence[int], gradients: Rows) -> None:
        first = optimizers[0]
        if not first.defaults.get("fused"):
            raise NotFusible("the optimizer: its fused kernel needs contiguous floating-point parameters")
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
        self.states: dict[str, list[Rows]] = {}
        self._kind = type(first)
        for name in _ADAM if self._kind is not torch.optim.SGD else ("momentum_buffer",):
            self.states[name] = self._stacked(name)
        self._kernels = [_KERNELS[self._kind](self, trial) for trial in range(len(self.optimizers))]

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
        """Another update begins. Those that train no more are counted too: their states are saved already."""
        self.steps.add_(1.0)

    def step(self, trial: int, rate: float | torch.Tensor) -> None:
        """One update of one trial, at the learning rate given: a number, or a float32 scalar on the device."""
        self._kernels[trial](rate)
        self.begun[trial] = True

    def write_back(self, trial: int, rate: float) -> None:
        """Let the trial's own optimizer show what it would after these updates."""
        optimizer = self.optimizers[trial]
        optimizer.param_groups[0]["lr"] = rate
        if self._kind is torch.optim.SGD and not optimizer.param_groups[0]["momentum"]:
            return  # such an optimizer keeps nothing
        for place, parameter in enumerate(self.parameters[trial]):
            state = {name: rows[trial][place] for name, rows in self.states.items()}
            if self._kind is not torch.optim.SGD:
                state = {"step": self.counters[trial][place], **state}
            optimizer.state[parameter].update(state)

    def forget(self, trial: int, rate: float) -> None:
        """Show the trial's own optimizer as it was before this group trained it; the stacks are restored by others."""
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


def _adam(kernel: Any) -> Any:
    def kernel_of(rows: RowOptimizer, trial: int) -> Callable[[Any], None]:
        group = rows.optimizers[trial].param_groups[0]
        tensors: tuple[Rows, ...] = (
            rows.values[trial],
            rows.gradients[trial],
            rows.states["exp_avg"][trial],
            rows.states["exp_avg_sq"][trial],
            [],
            rows.counters[trial],
        )
        beta1, beta2 = group["betas"]
        settings = {"beta1": beta1, "beta2": beta2, "weight_decay": group["weight_decay"], "eps": group["eps"]}

        def update(rate: float | torch.Tensor) -> None:
            kernel(*tensors, lr=rate, **settings, amsgrad=False, maximize=False)

        return update

    return kernel_of


def _sgd(rows: RowOptimizer, trial: int) -> Callable[[Any], None]:
    group = rows.optimizers[trial].param_groups[0]
    buffers = rows.states["momentum_buffer"][trial] if group["momentum"] else []
    settings = {name: group[name] for name in ("weight_decay", "momentum", "dampening", "nesterov")}

    def update(rate: float | torch.Tensor) -> None:
        first = bool(group["momentum"]) and not rows.begun[trial]
        torch._fused_sgd_(
            rows.values[trial],
            rows.gradients[trial],
            buffers,
            lr=rate,
            **settings,
            maximize=False,
            is_first_step=first,
        )

    return update


# For each kind of optimizer: one trial's kernel, which takes the learning rate.
_KERNELS: dict[Any, Any] = {
    torch.optim.AdamW: _adam(torch._fused_adamw_),
    torch.optim.Adam: _adam(torch._fused_adam_),
    torch.optim.SGD: _sgd,
}
