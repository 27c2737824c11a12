"""What one update of a trial is: its order, its random numbers, its clipping. Every way of training reads it here.

The update of step s (from 0), in this order:

1. The batch of s is taken, and augmented where the study says so.
2. The generators that user code draws from are seeded for s (`Draws`).
3. Gradients are cleared, and the model is in train mode.
4. The loss of the batch is computed and goes backward.
5. Sparse gradients become what the optimizer takes.
6. The gradient is clipped to the norm `clip_norm`, where the point has one.
7. The optimizer makes its step at the learning rate of s.

`Update` makes it for a trial alone. Trials that train together have it made by other operations on stacked tensors
(`tuner.fused.group`), with the same rule and the same order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch

from tuner.training.compiler import plain_step
from tuner.training.host_generators import HOST
from tuner.training.optimizers import settle_sparse
from tuner.training.precision import computed
from tuner.training.randomness import seed_torch_generators, step_seed
from tuner.training.setup import TrainingSetup
from tuner.training.stability import clip_gradients


class Draws(IntEnum):
    """Who draws random numbers at a step. Each has its own seed: its number, xor the seed of the trial."""

    LOSS = 0  # torch's generators
    AUGMENTATION = 1  # the generator that augment() is given
    EVALUATION = 2  # all global generators
    AUGMENTATION_TORCH = 3  # torch's global generators within augment()
    AUGMENTATION_HOST = 4  # Python's and NumPy's within augment()
    LOSS_HOST = 5  # Python's and NumPy's within the loss


def draw_seed(draws: Draws, trial_seed: int, step: int) -> int:
    """The seed from which something draws at a step of a trial."""
    return step_seed(trial_seed ^ draws, step)


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """What decides the updates of a trial besides its model, loss and data.

    seed: of the trial. rates: the learning rate of each step. clip_norm: the largest norm of a gradient, or None.
    slices: the parts that each batch is cut into. precision: in which loss and gradient are computed (see `precision`).
    """

    seed: int
    rates: tuple[float, ...]
    clip_norm: float | None = None
    slices: int = 1
    precision: str = ""

    def rate(self, step: int) -> float:
        """The learning rate of a step; that of the last one beyond the end."""
        return self.rates[min(step, len(self.rates) - 1)]

    def draw_seed(self, draws: Draws, step: int) -> int:
        """The seed from which something draws at a step."""
        return draw_seed(draws, self.seed, step)


class Update:
    """Makes updates of one trial alone. What stays the same from step to step is looked up once."""

    def __init__(
        self,
        setup: TrainingSetup,
        rule: UpdateRule,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.rule = rule
        self.device = setup.device
        self.loss: Callable[..., Any] = computed(setup.workload.loss, rule.precision, setup.device)
        self.model = model
        self.parameters = parameters
        self.optimizer = optimizer
        self._groups = optimizer.param_groups
        self._step = plain_step(optimizer)

    def make(
        self, batch: Any, point: Mapping[str, Any], step: int, *, host_draws: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The whole update of a step. Nothing is read back from the device.

        Returns the loss [] before it, and the norm [] of its gradient before clipping; None where nothing is clipped.
        `host_draws`: an earlier step drew from Python's or NumPy's generators, so they are seeded for this one.
        """
        loss = self.differentiate(batch, point, step, host_draws=host_draws)
        settle_sparse(self.optimizer, self.parameters)
        limit = self.rule.clip_norm
        norm = None if limit is None else clip_gradients(self.parameters, limit)
        self.apply(step)
        return loss, norm

    def differentiate(self, batch: Any, point: Mapping[str, Any], step: int, *, host_draws: bool) -> torch.Tensor:
        """The loss [] of a batch; the gradients of the parameters are those of it afterwards."""
        self.prepare(step, host_draws=host_draws)
        loss = self.loss(self.model, batch, point)
        loss.backward()
        return loss.detach()  # type: ignore[no-any-return]

    def prepare(self, step: int, *, host_draws: bool) -> None:
        """Seed the generators that the loss may draw from; clear the gradients; train mode."""
        seed_torch_generators(draw_seed(Draws.LOSS, self.rule.seed, step), self.device)
        if host_draws:
            HOST.seed(draw_seed(Draws.LOSS_HOST, self.rule.seed, step))
        else:
            HOST.rest()
        for parameter in self.parameters:
            parameter.grad = None
        if not self.model.training:  # the last loss left it so; a trial that is resumed here would not know
            self.model.train()

    def apply(self, step: int) -> None:
        """The optimizer's step at the learning rate of this step, times the factor of each parameter group."""
        for group in self._groups:
            group["lr"] = rate_of_group(group, self.rule.rates[step])
        self._step()


def rate_of_group(group: Mapping[str, Any], rate: float) -> float:
    """The learning rate of a parameter group at a step: the step's rate times the group's factor.

    On CUDA it is a float32, as the step's rates are: a graph of kernels reads it from the device (see `TrialRun`).
    """
    factor = group.get("lr_factor")
    if factor is None:
        return rate
    product: float = factor * rate
    return float(np.float32(product)) if group["params"][0].device.type == "cuda" else product
