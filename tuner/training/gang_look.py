"""What the loss of a slice changes in a model, and whether the ranks of a gang still have the same state."""

import copy
import zlib
from collections.abc import Iterable

import torch

from tuner.training.copy_on_write import same_bits
from tuner.training.extra_state import extra_state_of
from tuner.training.gang_norms import RankNorms
from tuner.training.trial_run import TrialRun
from tuner.training.update import Update

_COUNTED = 1 << 24  # numbers that are widened at a time


def changed_by_loss(run: TrialRun, model: torch.nn.Module) -> list[str]:
    """Names of what the loss of the first slice changes in the model, forward and backward.

    Running statistics of batch norms are left out where a gang keeps them in the order of the slices (see `RankNorms`).
    Costs the gradient of a slice on a copy; the model given stays as it is. Raises WorkloadError for batch norms of
    which a gang cannot do so.
    """
    copied = copy.deepcopy(model)
    norms = RankNorms(copied)
    buffers = {name: one.detach().clone() for name, one in copied.named_buffers()}
    extra = {name: one.clone() for name, one in extra_state_of(copied).items()}
    parameters = list(copied.named_parameters())
    weights = _sums(one.detach() for _, one in parameters)
    update = Update(run.setup, run.rule, copied, [one for _, one in parameters if one.requires_grad], run.optimizer)
    batch = run.slice_at(0)
    update.prepare(0, host_draws=True)
    with norms.of_slice():
        update.loss(copied, batch, run.point).backward()
    changed = [name for name, one in copied.named_buffers() if not _is_same(one.detach(), buffers.get(name))]
    changed += [
        f"the extra state of {name.rpartition('.')[0] or 'the model'}"
        for name, one in extra_state_of(copied).items()
        if not _is_same(one, extra.get(name))
    ]
    now = _sums(one.detach() for _, one in parameters)
    return changed + [name for (name, _), one, other in zip(parameters, weights, now, strict=True) if one != other]


def state_checksum(run: TrialRun) -> int:
    """A checksum of what an update changes: 32 bits, read back from the device once.

    That is parameters, buffers and the state of the optimizer, averages of the weights, and the scale of the loss.

    Of each tensor the sum of its bytes, as int32 where that goes, in int64: the same whatever the order of the sum.
    """
    named = {f"model.{name}": one for name, one in [*run.model.named_parameters(), *run.model.named_buffers()]}
    for number, kept in run.optimizer.state_dict()["state"].items():
        named |= {f"{number}.{name}": one for name, one in kept.items() if isinstance(one, torch.Tensor)}
    if run.averages is not None:
        named |= {f"average.{name}": one for name, one in run.averages.state().items()}
    scale = None if run.scale is None else (run.scale.value, run.scale.good, run.scale.skipped)
    sums = _sums(one.detach() for one in named.values())
    return zlib.crc32(repr([run.step, scale, *zip(named, sums, strict=True)]).encode())


def _is_same(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or one.layout is not torch.strided:
        return other is not None and _sums([one]) == _sums([other])
    return same_bits(one, other)


def _sums(tensors: Iterable[torch.Tensor]) -> list[int]:
    found = [_sum(tensor) for tensor in tensors]
    if not found:
        return []
    device = max(found, key=lambda one: one.device.type != "cpu").device
    sums: list[int] = torch.stack([one.to(device) for one in found]).tolist()
    return sums


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """Of all its bytes, int64 []."""
    if tensor.is_sparse:
        settled = tensor.coalesce()
        return _sum(settled.indices()) * 3 + _sum(settled.values())
    if tensor.is_quantized:
        return _sum(tensor.int_repr())
    content = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    content = content.clone() if content.storage_offset() % 4 else content
    numbers = content.view(torch.int32) if len(content) % 4 == 0 else content
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(numbers), _COUNTED):
        total += numbers[start : start + _COUNTED].sum(dtype=torch.int64)
    return total
