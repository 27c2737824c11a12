"""What one update of a trial is: its order, its random numbers, its clipping. Every way of training reads it here.

The update of step s (from 0), in this order:

1. The batch of s is taken, and augmented where the study says so.
2. The generators that user code draws from are seeded for s (`Draws`).
3. Gradients are cleared, and the model is in train mode.
4. The loss of the batch is computed and goes backward.
5. Sparse gradients become what the optimizer takes. In fp16 all are divided by the scale of the loss; where one is not
   finite, the update ends here, and is no step (`loss_scale`).
6. The gradient is clipped to the norm `clip_norm`, where the point has one.
7. The optimizer makes its step at the learning rate of s.
8. Averages of the weights move, where they are evaluated in place of the weights (`TrialRun.moved`).

Where a batch is cut into slices (see `slices`), each slice has 1 to 4 for itself, one after the other, with seeds of
its own; then their gradients are added up by their weights, and what follows is done once. So the running statistics
of batch norms are updated slice by slice, in order. Where several ranks share the slices (see `gang`), each computes
its own, and the sums over all are made in the same order.

`Update` makes it for a trial alone. Trials that train together have it made by other operations on stacked tensors
(`tuner.fused.group`), with the same rule and the same order.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch

from tuner.training.compiled import compiled_loss, compiled_parts
from tuner.training.compiler import plain_step
from tuner.training.gang import Gang
from tuner.training.gang_sums import GangSums, all_weights
from tuner.training.host_generators import HOST
from tuner.training.loss_scale import LossScale, Untouched
from tuner.training.optimizers import settle_sparse
from tuner.training.precision import computed
from tuner.training.randomness import seed_torch_generators, step_seed
from tuner.training.setup import TrainingSetup
from tuner.training.slices import Slices, WeightedSum, shares_of
from tuner.training.stability import clip_gradients
from tuner.training.tree_sum import tree_sum


class Draws(IntEnum):
    """Who draws random numbers at a step. Each has its own seed: its number, xor the seed of the trial."""

    LOSS = 0  # torch's generators
    AUGMENTATION = 1  # the generator that augment() is given
    EVALUATION = 2  # all global generators
    AUGMENTATION_TORCH = 3  # torch's global generators within augment()
    AUGMENTATION_HOST = 4  # Python's and NumPy's within augment()
    LOSS_HOST = 5  # Python's and NumPy's within the loss


def draw_seed(draws: Draws, trial_seed: int, step: int, part: int = 0) -> int:
    """The seed from which something draws at a step of a trial, for slice `part` of its batch."""
    seed = step_seed(trial_seed ^ draws, step)
    return step_seed(seed, part) if part else seed


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

    def draw_seed(self, draws: Draws, step: int, part: int = 0) -> int:
        """The seed from which something draws at a step, for slice `part` of its batch."""
        return draw_seed(draws, self.seed, step, part)


class Update:
    """Makes updates of one trial alone. What stays the same from step to step is looked up once.

    sums: what it exchanges with the ranks that share the slices of each batch (see `share_with`); None where this
    process computes all of them.
    """

    sums: GangSums | None = None

    def __init__(
        self,
        setup: TrainingSetup,
        rule: UpdateRule,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scale: LossScale | None = None,
    ) -> None:
        self.rule = rule
        self.scale = scale
        self.device = setup.device
        self.loss: Callable[..., Any] = computed(setup.workload.loss, rule.precision, setup.device)
        self.model = model
        self.parameters = parameters
        self.optimizer = optimizer
        self.totals: dict[int, torch.Tensor] = {}  # by step, sums of weights that are on a device and not looked at
        self._groups = optimizer.param_groups
        self._step = plain_step(optimizer)
        # Compiled kernels may be recorded with the addresses of parameters.
        loss = setup.workload.loss
        self._is_compiled = scale is not None and (compiled_loss(loss) is not None or any(compiled_parts(model)))

    def make(
        self, batch: Any, point: Mapping[str, Any], step: int, *, host_draws: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """The whole update of a step. Nothing is read back from the device, unless a loss is scaled.

        batch: that of the loss, or `Slices`.
        Returns the loss [] before it, and the norm [] of its gradient before clipping; None where nothing is clipped.
        None alone for an update that was skipped: all but the scale is as before, and the same step comes next.
        `host_draws`: an earlier step drew from Python's or NumPy's generators, so they are seeded for this one.
        """
        before = None if self.scale is None else Untouched(self.model, in_place=self._is_compiled)
        if isinstance(batch, Slices):
            loss = self.by_slices(batch, point, step)
        else:
            self.prepare(step, host_draws=host_draws)
            loss = self.loss(self.model, batch, point)
            self.backward(loss)
            loss = loss.detach()
        settle_sparse(self.optimizer, self.parameters)
        if self.scale is not None and before is not None and not self.scale.made(loss, self.parameters, step):
            before.put_back()
            self._clear_gradients()
            return None
        del before  # the optimizer writes into parameters that nothing else shows: without a copy
        limit = self.rule.clip_norm
        norm = None if limit is None else self.clipped(limit)
        self.apply(step)
        return loss, norm

    def by_slices(self, slices: Slices, point: Mapping[str, Any], step: int) -> torch.Tensor:
        """The loss [] of a batch in slices; the gradients of the parameters are those of it afterwards.

        Raises WorkloadError, with nothing changed, where no slice has a weight.
        """
        sums, weights = self.sums, slices.weights()
        if sums is not None:
            sums.norms.forget()
            weights = all_weights(sums.gang, weights)
        shares = shares_of(weights, slices.count, step)
        if shares.total is not None:
            self.totals[step] = shares.total

        def leaf(part: int) -> WeightedSum:
            batch = slices[part]  # first: whoever makes it seeds the same generators
            self.prepare(step, host_draws=True, part=part)
            with nullcontext() if sums is None else sums.norms.of_slice():
                loss = self.loss(self.model, batch, point)
                self.backward(loss)
            return WeightedSum.of(loss, [parameter.grad for parameter in self.parameters], shares.of_each[part])

        whole = tree_sum(leaf, slices.mine, WeightedSum.plus)
        if sums is not None:
            whole = sums.whole(whole)
        for parameter, gradient in zip(self.parameters, whole.gradients, strict=True):
            parameter.grad = gradient
        return whole.loss

    def share_with(self, gang: Gang | None) -> None:
        """Compute the slices of this rank only, and have the sums over all ranks. None: alone."""
        self.sums = None if gang is None else GangSums(gang, self.model, self.parameters)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss to those of the parameters: times the scale, where losses are scaled."""
        scaled: Any = loss if self.scale is None else self.scale.scaled(loss)
        scaled.backward()

    def clipped(self, limit: float) -> torch.Tensor:
        """Scale the gradient to a norm of at most `limit`; returns its norm [] before."""
        return clip_gradients(self.parameters, limit)

    def prepare(self, step: int, *, host_draws: bool, part: int = 0) -> None:
        """Seed the generators that the loss may draw from, for slice `part`; clear the gradients; train mode."""
        seed_torch_generators(draw_seed(Draws.LOSS, self.rule.seed, step, part), self.device)
        if host_draws:
            HOST.seed(draw_seed(Draws.LOSS_HOST, self.rule.seed, step, part))
        else:
            HOST.rest()
        self._clear_gradients()
        if not self.model.training:  # the last loss left it so; a trial that is resumed here would not know
            self.model.train()

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

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
