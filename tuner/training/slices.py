"""The slices of a batch: equal parts, whose gradients are added up by their weights, in a fixed order.

Of S slices with the weights w_v, gradients g_v and losses l_v, the gradient of the batch is the sum of g_v times its
share w_v / (w_0 + ... + w_(S-1)), and its loss that of l_v, both in the order of `tree_sum`. A weight is what the loss
of a slice is a mean over: how many examples it holds, or what `Workload.weight` says. So the sum is the gradient of
one mean over the whole batch, however the tokens are spread over the slices. A slice of weight 0 adds nothing, whatever
its loss is: the mean over no tokens is NaN.

At most 1 + log2 S gradients are in memory at a time (rounded up): that of the slice under way, and the sums of
finished branches.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tuner.design.workload import Workload
from tuner.errors import WorkloadError
from tuner.training.batches import Split

Weigh = Callable[[Any], Any]  # the weight of the batch that it is given: a number, or a tensor [] on the device
Share = float | torch.Tensor  # a number, or a float64 tensor [] on the device
Gradients = list[torch.Tensor | None]  # of the parameters of a model, in their order


class Slices:
    """The slices of one batch, made when they are asked for, `together` at a time.

    make: slice v of the batch, augmented. weigh: see `weigher`; where it is given, all are made before the first is
    computed, because each share depends on the weights of all. mine: those that are computed here; None: all.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int], Any],
        together: int = 1,
        weigh: Weigh | None = None,
        mine: range | None = None,
    ) -> None:
        self.count = count
        self.mine = range(count) if mine is None else mine
        self._make = make
        self._together = together if weigh is None else count
        self._weigh = weigh
        self._made: dict[int, Any] = {}

    def __getitem__(self, number: int) -> Any:
        if number not in self._made:
            first = number - number % self._together
            together = range(first, min(first + self._together, self.count))
            self._made = {each: self._make(each) for each in together if each in self.mine}
        return self._made[number]

    def weights(self) -> list[Any] | None:
        """The weight of each that is computed here; None where all count alike."""
        return None if self._weigh is None else [self._weigh(self[number]) for number in self.mine]


@dataclass(frozen=True, slots=True)
class Shares:
    """Of each slice its share; `total`: the sum of the weights, where that is on a device and was not looked at."""

    of_each: Sequence[Share]
    total: torch.Tensor | None = None


def weigher(workload: Workload, split: Split, taken: int) -> Weigh | None:
    """What says the weight of a slice of `taken` examples; None where all slices count alike."""
    if workload.declares("weight"):
        return workload.weight
    return (lambda batch: split.count_of(batch, taken)) if workload.declares("num_examples") else None


def shares_of(weights: Sequence[Any] | None, count: int, step: int) -> Shares:
    """The share of each of `count` slices of the batch of update number `step` (from 0).

    Weights on a GPU are not looked at here, which would wait for it; `check_totals` does it later. Raises WorkloadError
    for a batch of no weight, and for weights that are none.
    """
    if weights is None:
        return Shares([1.0 / count] * count)
    if any(isinstance(weight, torch.Tensor) and weight.device.type != "cpu" for weight in weights):
        device = next(weight.device for weight in weights if isinstance(weight, torch.Tensor))
        wide = torch.float32 if device.type == "mps" else torch.float64
        known = [torch.as_tensor(weight, dtype=wide, device=device) for weight in weights]
        total = sum(known[1:], known[0])
        return Shares([weight / total for weight in known], total)
    numbers = [float(weight) for weight in weights]
    check_weights(numbers, step)
    total_weight = math.fsum(numbers)
    return Shares([number / total_weight for number in numbers])


def check_weights(weights: Sequence[float], step: int) -> None:
    """Raise WorkloadError where nothing of a batch counts, or a weight is negative or not finite. step: from 0."""
    strange = next((one for one in weights if not (math.isfinite(one) and one >= 0.0)), None)
    if strange is not None:
        raise WorkloadError(
            f"weight() returned {strange:g} for a slice of the batch of step {step + 1:,}; return how much its loss is "
            "a mean over, a finite number from 0 on: examples, or tokens that count"
        )
    if not any(weights):
        raise WorkloadError(_no_weight(step))


def check_totals(totals: Sequence[torch.Tensor], steps: Sequence[int]) -> None:
    """As `check_weights`, for the sums of the weights of several steps (from 0), read back from the device at once."""
    if not totals:
        return
    for total, step in zip(torch.stack(list(totals)).tolist(), steps, strict=True):
        if total == 0.0:
            raise WorkloadError(_no_weight(step))
        check_weights([total], step)


def _no_weight(step: int) -> str:
    return (
        f"the weights of all slices of the batch of step {step + 1:,} are 0, so that there is no mean of its losses: "
        "leave out examples in which nothing counts (every token is padding or ignored), in data() or collate()"
    )


@dataclass(slots=True)
class WeightedSum:
    """A loss [] and gradients, multiplied by a share; or a sum of such. The gradients are its own memory."""

    loss: torch.Tensor
    gradients: Gradients

    @classmethod
    def of(cls, loss: torch.Tensor, gradients: Gradients, share: Share) -> "WeightedSum":
        """Writes into the gradients; None stands for a parameter on which the loss does not depend."""
        own = [_settled(gradient) for gradient in gradients]
        _scale([gradient for gradient in own if gradient is not None], share)
        return cls(_times(loss.detach(), share), own)

    def plus(self, other: "WeightedSum") -> "WeightedSum":
        """The sum, in this one's memory where both have a gradient."""
        pairs = list(zip(self.gradients, other.gradients, strict=True))
        both = [(mine, yours) for mine, yours in pairs if mine is not None and yours is not None]
        dense = [pair for pair in both if not (pair[0].is_sparse or pair[1].is_sparse)]
        if dense:
            torch._foreach_add_([mine for mine, _ in dense], [yours for _, yours in dense])
        return WeightedSum(self.loss + other.loss, [_sum(mine, yours) for mine, yours in pairs])


def _settled(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """Rows of a sparse gradient that come several times are added up, before they meet those of other slices."""
    return gradient.coalesce() if gradient is not None and gradient.is_sparse else gradient


def _sum(mine: torch.Tensor | None, yours: torch.Tensor | None) -> torch.Tensor | None:
    if mine is None or yours is None:
        return yours if mine is None else mine
    if mine.is_sparse or yours.is_sparse:
        both = yours + mine if mine.is_sparse and not yours.is_sparse else mine + yours  # torch adds sparse to dense
        return both.coalesce() if both.is_sparse else both
    return mine  # added up already


def _scale(gradients: Sequence[torch.Tensor], share: Share) -> None:
    """In place. A share of 0 gives 0, also of what is not finite: the mean of a loss over no token is NaN."""
    values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
    if isinstance(share, torch.Tensor):
        for value in values:
            value.mul_(share.to(value.dtype)).masked_fill_(share == 0.0, 0.0)
    elif share == 0.0:
        for value in values:
            value.zero_()
    elif values:
        torch._foreach_mul_(values, share)


def _times(loss: torch.Tensor, share: Share) -> torch.Tensor:
    if isinstance(share, torch.Tensor):
        return (loss * share.to(loss.dtype)).masked_fill_(share == 0.0, 0.0)
    return loss * share if share else torch.zeros_like(loss)
