"""An update of a model in shards: each rank computes its own slices, and changes its own rows.

The gradients of a rank's slices are added up in their order; the sum over the ranks is torch's reduce-scatter, whose
order depends on the number of ranks. So the same bits come at the same number of ranks alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from tuner.errors import WorkloadError
from tuner.training.fsdp_group import ShardGroup
from tuner.training.fsdp_units import Shard
from tuner.training.gang import Gang
from tuner.training.gang_sums import all_weights
from tuner.training.slices import Slices, shares_of
from tuner.training.stability import clip_factor
from tuner.training.update import Update


class HasShards(Protocol):
    """A run whose model is in shards."""

    shards: Sequence[Shard]
    group: ShardGroup


class ShardUpdate(Update):
    """Makes updates of one trial whose model is in shards; `parameters` are the rows of this rank."""

    def __init__(self, run: HasShards, *given: Any) -> None:
        super().__init__(*given)
        self._shards = [one for one in run.shards if one.parameter.requires_grad]
        self._group = run.group

    def share_with(self, gang: Gang | None) -> None:
        """Nothing: the group of the shards is known."""

    def by_slices(self, slices: Slices, point: Mapping[str, Any], step: int) -> torch.Tensor:
        """The loss [] of a batch in slices; each row's gradient is that of the batch afterwards.

        A slice of no weight is computed like another one, and not counted: all ranks gather the same number of times.
        Raises WorkloadError where no slice of a rank has a weight.
        """
        gang = self._group.gang
        weights = self._weights(gang, slices)
        shares = shares_of(weights, slices.count, step).of_each
        mine = gang.share(slices.count)
        counted = [part for part in mine if shares[part]]
        if not counted:
            raise WorkloadError(
                f"all slices of rank {gang.rank} have the weight 0 in the batch of step {step + 1:,}, which "
                'shard="fsdp2" cannot leave out: take larger slices, or fewer ranks'
            )
        for one in self._shards:
            one.parameter.grad = None
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        for part in mine:
            share = float(shares[part])
            loss = self._added(slices, part if share else counted[0], share, point, step, is_last=part == mine[-1])
            total = total + loss.float() * share
        for one in self._shards:
            gradient: Any = one.parameter.grad
            one.rows.grad = None if gradient is None else gradient.to_local()
        return self._group.gathered(total).sum()

    def _weights(self, gang: Gang, slices: Slices) -> list[Any] | None:
        """The weights of all slices; with them, or without, it is agreed whether this is the last update of a block."""
        own = slices.weights()
        weights = all_weights(gang, None if own is None else [float(one) for one in own])
        if weights is None:
            gang.exchanged(gang.wish())
        return weights

    def _added(
        self, slices: Slices, part: int, share: float, point: Mapping[str, Any], step: int, *, is_last: bool
    ) -> torch.Tensor:
        """The loss of a slice; its gradient times its share is added up. FSDP divides by the number of ranks."""
        batch = slices[part]  # first: whoever makes it seeds the same generators
        self.prepare(step, host_draws=True, part=part)
        model: Any = self.model
        model.set_requires_gradient_sync(is_last)
        loss: torch.Tensor = self.loss(self.model, batch, point)
        self.backward(loss * (share * self._group.gang.world))
        return loss.detach() if share else torch.zeros_like(loss.detach())

    def clipped(self, limit: float) -> torch.Tensor:
        """Scale the rows of the gradient to a norm of at most `limit` over all ranks; returns the norm before."""
        gradients = [one.rows.grad for one in self._shards if one.rows.grad is not None]
        norm = norm_over(self._group, gradients, self.device)
        if gradients:
            torch._foreach_mul_(gradients, clip_factor(norm, limit))
        return norm


def norm_over(group: ShardGroup, rows: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The L2 norm [] of tensors whose rows are on all ranks; the same bits on each."""
    norms = torch._foreach_norm([one.detach() for one in rows]) if rows else ()
    mine = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros((), device=device)
    total: torch.Tensor = torch.linalg.vector_norm(group.gathered(mine))
    return total
