"""A group's update as a CUDA graph: one launch for the thousands of small kernels of many trials.

A graph computes at fixed addresses what was computed while it was captured. So weights, gradients and optimizer
states stay where they are, the batch is copied to a fixed place, and learning rates are read from the device.

A kernel for one small trial fills a fraction of a GPU. What loops over the trials to keep their bits is independent
from trial to trial; captured on several streams (lanes) it becomes parallel branches of the graph.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from tuner.fused.graph import base_of, writes
from tuner.training.numerics import wait_for

LANES = 16


class Lanes:
    """Streams that begin where the present one is, and are waited for by it."""

    def __init__(self, device: torch.device, count: int = LANES) -> None:
        self.streams = [torch.cuda.Stream(device) for _ in range(count)]  # type: ignore[no-untyped-call]

    def run(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of independent works, in order."""
        if len(works) == 1:
            return [works[0]()]
        present = torch.cuda.current_stream()
        used = self.streams[: len(works)]
        for stream in used:
            stream.wait_stream(present)
        results = []
        for place, work in enumerate(works):
            with torch.cuda.stream(used[place % len(used)]):
                results.append(work())
        for stream in used:
            present.wait_stream(stream)
        return results


def replay_in_lanes(module: GraphModule, lanes: Lanes, inputs: Sequence[torch.Tensor]) -> Any:
    """What the recorded graph computes from these inputs, level by level.

    A value is forgotten only when its level is through: the allocator may then give its memory to any stream.
    """
    values: dict[Node, Any] = dict(zip(_of_kind(module.graph, "placeholder"), inputs, strict=True))
    values |= {node: getattr(module, str(node.target)) for node in _of_kind(module.graph, "get_attr")}
    levels = levels_of(module.graph)
    (output,) = _of_kind(module.graph, "output")
    dead = _dead_after(levels, output.all_input_nodes)

    def compute(node: Node) -> Any:
        arguments, keywords = map_arg((node.args, node.kwargs), lambda each: values[each])
        return node.target(*arguments, **keywords)  # type: ignore[operator]

    for level, forgotten in zip(levels, dead, strict=True):
        results = lanes.run([lambda node=node: compute(node) for node in level])  # type: ignore[misc]
        values.update(zip(level, results, strict=True))
        for node in forgotten:
            del values[node]
    return map_arg(output.args[0], lambda each: values[each])


def levels_of(graph: Graph) -> list[list[Node]]:
    """Operations that need nothing of each other, by level: each level needs only those before it.

    What shares memory with something that is written into stays in its order.
    """
    nodes = _of_kind(graph, "call_function")
    written = {base_of(node.args[0]) for node in nodes if writes(node) and isinstance(node.args[0], Node)}
    level: dict[Node, int] = {}
    touched: dict[Node, int] = {}  # the last level that touched a memory that is written into
    for node in nodes:
        bases = {base_of(each) for each in node.all_input_nodes} & written
        before = [level.get(each, -1) for each in node.all_input_nodes] + [touched.get(base, -1) for base in bases]
        level[node] = 1 + max(before, default=-1)
        touched |= dict.fromkeys(bases, level[node])
    levels: list[list[Node]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for node in nodes:
        levels[level[node]].append(node)
    return levels


def _of_kind(graph: Graph, kind: str) -> list[Node]:
    return [node for node in graph.nodes if node.op == kind]


def _dead_after(levels: Sequence[Sequence[Node]], wanted: Sequence[Node]) -> list[list[Node]]:
    """For each level what no later one needs."""
    last = {
        used: place for place, level in enumerate(levels) for node in level for used in [node, *node.all_input_nodes]
    }
    kept = set(wanted)
    dead: list[list[Node]] = [[] for _ in levels]
    for node, place in last.items():
        if node not in kept:
            dead[place].append(node)
    return dead


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
    """Makes updates, by a graph as soon as there is one. `refused` holds why there is none: a graph is only a speed-up.

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
        except RuntimeError as error:  # an operation that waits for the device, for example
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
