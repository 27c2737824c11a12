"""When a trial has diverged: the first step whose loss, or whose gradient or weights, are not finite (D27, D45)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Divergence:
    """What stopped being finite, and at which update (counted from 1)."""

    step: int
    what: str

    def __str__(self) -> str:
        return f"diverged at step {self.step}: {self.what}"


def diverged_loss(losses: Sequence[float], first_step: int) -> Divergence | None:
    """The first non-finite training loss; `losses[i]` belongs to update number `first_step + i + 1`."""
    for offset, loss in enumerate(losses):
        if not math.isfinite(loss):
            return Divergence(first_step + offset + 1, f"the loss became {loss}")
    return None


def diverged_weights(gradient_norm: float, parameters: Iterable[torch.Tensor], step: int) -> Divergence | None:
    """Whether the last gradient or the weights after it are not finite, though the losses were.

    Needed where a broken weight is not read at once, such as a row of an embedding.
    """
    if not math.isfinite(gradient_norm):
        return Divergence(step, f"the gradient norm became {gradient_norm}")
    norm = float(total_norm(parameters))
    if not math.isfinite(norm):
        return Divergence(step, f"the norm of the weights became {norm}")
    return None


def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Scale all gradients so that their norm is at most `limit`, as `torch.nn.utils.clip_grad_norm_` does it.

    That function takes no sparse gradients; here they count with their coalesced values. Returns their norm [] before;
    nothing is read back from the device.
    """
    parameters = list(parameters)
    if not any(parameter.grad is not None and parameter.grad.is_sparse for parameter in parameters):
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
    values = [dense_values(parameter.grad) for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(values)
    factor = clip_factor(norm, limit)
    for value in values:
        value.mul_(factor)
    return norm


def clip_factor(norm: torch.Tensor, limit: float) -> torch.Tensor:
    """By what `torch.nn.utils.clip_grad_norm_` multiplies gradients of this norm."""
    return torch.clamp(limit / (norm + 1e-6), max=1.0)


def clipped_share(norms: Sequence[float], limit: float) -> float:
    """Of gradients of these norms before clipping, the share that was above `limit`."""
    return sum(norm > limit for norm in norms) / len(norms)


def dense_values(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself; of a coalesced sparse one its values, in the same memory. All others are coalesced first."""
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def total_norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """The L2 norm of all entries together; 0 for no tensors."""
    listed = [dense_values(tensor.detach()) for tensor in tensors]
    if not listed:
        return torch.zeros(())
    if any((one.dtype, one.device) != (listed[0].dtype, listed[0].device) for one in listed):
        return torch.nn.utils.get_total_norm(listed)
    norms = torch._foreach_norm(listed)  # what torch does, without sorting them by device
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total
