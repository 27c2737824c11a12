"""The best weights seen so far, in memory, by the selection metric (A10, B44)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tuner.design.objective import Objective
from tuner.training.copy_on_write import kept_as_it_is, shown_elsewhere
from tuner.training.extra_state import frozen_in, state_dict_of

Copy = Callable[[dict[str, torch.Tensor] | None], dict[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Weights after `step` updates and the value they had there."""

    step: int
    value: float
    weights: dict[str, torch.Tensor]


class BestKeeper:
    """Keeps the `count` best states; on a tie the earlier one; what is not finite is never kept."""

    def __init__(self, objective: Objective, count: int) -> None:
        self.objective = objective
        self.count = count
        self.kept: list[Kept] = []

    def offer(self, step: int, value: float, weights: Copy, *, reuse: bool = True) -> None:
        """Copy the weights, by `weights(memory of an older copy, or None)`, if they are among the best.

        `reuse` the memory of those that they replace; not while another thread reads it.
        """
        if len(self.kept) == self.count and not self.objective.better(value, self.kept[-1].value):
            return
        if not self.objective.better(value, float("nan")):
            return
        room = self.kept.pop().weights if len(self.kept) == self.count else None
        self._insert(Kept(step, value, weights(room if reuse else None)))

    def restore(self, step: int, value: float, weights: dict[str, torch.Tensor]) -> None:
        """Put back what an interrupted run had kept."""
        self._insert(Kept(step, value, weights))

    def _insert(self, new: Kept) -> None:
        better = self.objective.better
        place = next((i for i, old in enumerate(self.kept) if better(new.value, old.value)), len(self.kept))
        self.kept.insert(place, new)


def snapshot(model: torch.nn.Module, into: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A copy of the model's state dict, as `state_dict_of` has it; into the memory of an older copy where that fits.

    What is frozen takes no memory again until something is written into it.
    """
    state = state_dict_of(model)
    frozen = frozen_in(model)
    apart = shown_elsewhere([*(state[name] for name in frozen if name in state), *frozen.values()])
    fixed = {name: kept_as_it_is(state[name]) for name in frozen if name in state and id(state[name]) not in apart}
    own = {name: tensor for name, tensor in state.items() if name not in fixed}
    room = None if into is None else {name: into[name] for name in into if name not in fixed}
    return copied(own, room) | fixed


def snapshot_bytes(model: torch.nn.Module) -> int:
    """The memory of a copy of the model's state dict, without what is frozen."""
    frozen = frozen_in(model)
    return sum(tensor.nbytes for name, tensor in state_dict_of(model).items() if name not in frozen)


def copied(state: dict[str, torch.Tensor], into: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A copy of weights, into the memory of an older copy where that fits."""
    if into is None or _forms(into) != _forms(state):
        return {name: tensor.clone() for name, tensor in state.items()}
    torch._foreach_copy_([into[name] for name in state], list(state.values()))
    return into


def _forms(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {name: (tensor.shape, tensor.dtype, tensor.device) for name, tensor in state.items()}
