"""A group's update as a CUDA graph: one launch for the thousands of small kernels of many trials.

A graph computes at fixed addresses what was computed while it was captured. So weights, gradients and optimizer
states stay where they are, the batch is copied to a fixed place, and learning rates are read from the device.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tuner.training.numerics import wait_for

WARM_UP = 3  # updates before a capture: libraries set themselves up, and optimizers begin their state
Rates = Sequence[float] | Sequence[torch.Tensor]
Apply = Callable[[Sequence[torch.Tensor], Rates], torch.Tensor]  # one update: (batch, learning rates) to losses


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    leaves: list[torch.Tensor]
    rates: torch.Tensor
    losses: torch.Tensor

    def replay(self, leaves: Sequence[torch.Tensor], rates: Sequence[float]) -> torch.Tensor:
        """One update with this batch and these learning rates; the losses [K]."""
        for place, leaf in zip(self.leaves, leaves, strict=True):
            place.copy_(leaf)
        self.rates.copy_(torch.tensor(rates, dtype=torch.float32), non_blocking=True)
        self.graph.replay()
        return self.losses.clone()


class CapturedUpdates:
    """Makes updates, by a graph as soon as there is one. `refused` says why there is none: it is only a speed-up.

    A graph is trusted only after its first update was compared, bit for bit, with the same one made without it.
    """

    def __init__(self) -> None:
        self.refused = ""
        self._captured: dict[object, Captured] = {}
        self._made: dict[object, int] = {}

    @property
    def in_use(self) -> bool:
        return bool(self._captured)

    def forget(self) -> None:
        """Drop all graphs and their memory: what they compute is wanted no more."""
        self._captured.clear()
        self._made.clear()

    def update(
        self,
        key: object,
        leaves: Sequence[torch.Tensor],
        rates: Sequence[float],
        apply: Apply,
        changing: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """The losses of one update. `key`: equal for updates that one graph serves; `changing`: what they change."""
        captured = self._captured.get(key)
        if captured is not None:
            return captured.replay(leaves, rates)
        self._made[key] = self._made.get(key, 0) + 1
        if self.refused or self._made[key] <= WARM_UP:
            return apply(leaves, rates)
        return self._captured_at(key, leaves, rates, apply, changing)

    def _captured_at(
        self,
        key: object,
        leaves: Sequence[torch.Tensor],
        rates: Sequence[float],
        apply: Apply,
        changing: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Make this update without a graph, then capture one, which has to come to the same bits in less time."""
        before = [tensor.clone() for tensor in changing]
        device = leaves[0].device
        losses, seconds = _timed(lambda: apply(leaves, rates).clone(), device)
        after = [tensor.clone() for tensor in changing]
        _copy(before, changing)
        try:
            captured = _capture(leaves, rates, apply)
            graphed, graphed_seconds = _timed(lambda: captured.replay(leaves, rates), device)
            if not _same([losses, *after], [graphed, *changing]):
                self.refused = "the graph's bits are not those of the same update without it"
            elif graphed_seconds >= seconds:
                self.refused = f"the graph is not faster ({1e3 * graphed_seconds:.2f} ms, {1e3 * seconds:.2f} without)"
            else:
                self._captured[key] = captured
        except RuntimeError as error:  # an operation that waits for the device, say
            self.refused = f"cannot be captured: {str(error).splitlines()[0]}"
        _copy(after, changing)
        return losses


def _capture(leaves: Sequence[torch.Tensor], rates: Sequence[float], apply: Apply) -> Captured:
    device = leaves[0].device
    places = [leaf.clone() for leaf in leaves]
    given = torch.tensor(rates, dtype=torch.float32, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = apply(places, given.unbind(0))
    return Captured(graph, places, given, losses)


def _timed(work: Callable[[], torch.Tensor], device: torch.device) -> tuple[torch.Tensor, float]:
    wait_for(device)
    began = time.perf_counter()
    result = work()
    wait_for(device)
    return result, time.perf_counter() - began


def _copy(sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _same(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Equal bits, but that any NaN is as good as another."""
    pairs = zip(first, second, strict=True)
    return all(torch.equal(one.nan_to_num(7e33), other.nan_to_num(7e33)) for one, other in pairs)
