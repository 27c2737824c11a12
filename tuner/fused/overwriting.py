"""Values that nobody reads any more are written over: no new memory, and what was just read is still in the cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from tuner.fused.graph import is_view, writes

_ATEN = torch.ops.aten
# Operations on each element alone, and the same ones with the result where the first argument was.
_IN_PLACE: dict[Any, Any] = {
    _ATEN.add.Tensor: _ATEN.add_.Tensor,
    _ATEN.sub.Tensor: _ATEN.sub_.Tensor,
    _ATEN.mul.Tensor: _ATEN.mul_.Tensor,
    _ATEN.div.Tensor: _ATEN.div_.Tensor,
    _ATEN.relu.default: _ATEN.relu_.default,
}
_INTO_GRADIENT: dict[Any, Any] = {
    _ATEN.threshold_backward.default: _ATEN.threshold_backward.grad_input,
    _ATEN.gelu_backward.default: _ATEN.gelu_backward.grad_input,
    _ATEN.tanh_backward.default: _ATEN.tanh_backward.grad_input,
    _ATEN.sigmoid_backward.default: _ATEN.sigmoid_backward.grad_input,
}
_EITHER = (_ATEN.add.Tensor, _ATEN.mul.Tensor)  # of their arguments


def write_over(graph: Graph) -> None:
    """Let operations put their results where an argument stands that nobody reads afterwards."""
    place = {node: number for number, node in enumerate(graph.nodes)}
    last = dict.fromkeys(graph.nodes, 0)  # where the memory that a node took is read for the last time
    for node in graph.nodes:
        for read in node.all_input_nodes:
            last[memory_of(read)] = place[node]
    for node in graph.nodes:
        for argument in _arguments(node):
            memory = memory_of(argument)
            if memory.op == "call_function" and last[memory] == place[node] and _fits(argument, node):
                _rewrite(node, argument)
                last[memory] = max(last[memory], last[node])
                break


def memory_of(node: Node) -> Node:
    """The node that took the memory in which this one's value lies."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], Node):
        if not (is_view(node) or writes(node)):
            break
        node = node.args[0]
    return node


def _arguments(node: Node) -> Iterator[Node]:
    """Those that might be written over, if nobody reads them afterwards and no other argument lies there."""
    if node.target not in _IN_PLACE and node.target not in _INTO_GRADIENT:
        return
    given = node.args[:2] if node.target in _EITHER and not node.kwargs else node.args[:1]
    for argument in given:
        others = [other for other in node.all_input_nodes if other is not argument]
        if isinstance(argument, Node) and all(memory_of(other) is not memory_of(argument) for other in others):
            yield argument


def _fits(argument: Node, node: Node) -> bool:
    """Whether the values are as many, of one type, and in the same order in memory."""
    known = node.meta.get("layout")
    return known is not None and known == argument.meta.get("layout")


def _rewrite(node: Node, argument: Node) -> None:
    """Let the result be where the argument was."""
    if node.target in _INTO_GRADIENT:
        node.target, node.kwargs = _INTO_GRADIENT[node.target], {**node.kwargs, "grad_input": argument}
        return
    if argument is not node.args[0]:
        node.args = (argument, node.args[0])
    node.target = _IN_PLACE[node.target]
