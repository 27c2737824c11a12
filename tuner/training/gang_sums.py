"""The sum of all slices of a batch, of which each rank of a gang has computed its own.

The sum of a rank is a subtree of `tree_sum`; the rest of the tree is made here, on equal shards: each rank gets the
same shard of all ranks, adds these up in the order of the tree, and all get the sums of all shards. So each byte is
sent as often as by a ring, and the order of the additions does not depend on the number of ranks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from tuner.training.gang import Gang, all_gather
from tuner.training.slices import WeightedSum
from tuner.training.tree_sum import tree_sum


def all_weights(gang: Gang, weights: Sequence[Any] | None) -> list[Any] | None:
    """The weight of each slice of the batch, from those of each rank's own."""
    if weights is None:
        return None
    mine = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
    rows = gang.exchanged(gang.wish(), mine.view(torch.uint8))
    return [float(one) for row in rows for one in row[: mine.nbytes].contiguous().view(torch.float64)]


def whole_sum(gang: Gang, mine: WeightedSum) -> WeightedSum:
    """The loss and gradients of the whole batch, from those of each rank's slices; the same bits on all ranks.

    Raises MateFailed where another rank has failed in this update.
    """
    present = torch.tensor([gradient is not None for gradient in mine.gradients], dtype=torch.uint8)
    rows = gang.exchanged(gang.wish(), present)
    anywhere = rows[:, : len(present)].any(dim=0).tolist()
    like = [gradient for gradient in mine.gradients if gradient is not None]
    tensors = [mine.loss.reshape(1), *like]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    if len(like) != len(mine.gradients):
        raise NotImplementedError(anywhere)
    shard = -(-len(flat) // gang.world)
    padded = torch.zeros(shard * gang.world, dtype=flat.dtype)
    padded[: len(flat)] = flat
    parts = torch.empty_like(padded)
    dist.all_to_all_single(parts, padded, group=gang.large)
    rows = parts.view(gang.world, shard)
    total = tree_sum(lambda rank: rows[rank], range(gang.world), torch.Tensor.add_)
    all_gather(padded, total, group=gang.large)
    found = torch.split(padded[: len(flat)], [tensor.numel() for tensor in tensors])
    gradients: list[torch.Tensor | None] = [a.view_as(b) for a, b in zip(found[1:], like, strict=True)]
    return WeightedSum(found[0].reshape(()), gradients)
