"""Small CUDA kernels beside each other: independent work is spread over streams while a graph is captured.

A kernel for one small trial fills a fraction of a GPU. What loops over the trials to keep their bits is independent
from trial to trial; captured on several streams it becomes parallel branches of the graph.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from tuner.fused.graph import base_of, writes

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
