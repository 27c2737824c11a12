"""A recorded graph: what it must not hold, what it can do without, and which values may be written over."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from tuner.errors import NotFusible

_ATEN = torch.ops.aten
FRESH = "fresh"  # the copy of a constant, as the code makes a new one each time
_NOTHING = (_ATEN.detach.default, _ATEN.alias.default)


def check_graph(graph: Graph, num_own: int) -> None:
    """Refuse writes into what trials share: inputs after the first `num_own`, and tensors that the code holds."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    shared = set(inputs[num_own:])
    for node in graph.nodes:
        if not (writes(node) and isinstance(node.args[0], Node)):
            continue
        base = base_of(node.args[0])
        if base in shared:
            raise NotFusible(f"{_name(node)} writes into the batch or into a hyperparameter")
        if base.op == "get_attr":
            raise NotFusible(f"{_name(node)} writes into a tensor that is no parameter or buffer of the model")


def drawing(graph: Graph) -> str:
    """The operations that draw random numbers."""
    names = {_name(node) for node in graph.nodes if _draws(node)}
    return ", ".join(sorted(names)) or "the loss"


def _draws(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]


def base_of(node: Node) -> Node:
    """The node whose memory a view shows."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], Node) and is_view(node):
        node = node.args[0]
    return node


def is_view(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", "") == "getitem"
    if node.target is _ATEN._unsafe_view.default:  # torch does not declare it as one, because of autograd
        return True
    returned = node.target._schema.returns
    return any(result.alias_info is not None and not result.alias_info.is_write for result in returned)


def writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def simplify(graph: Graph) -> None:
    """Take out what changes no bit, and give weight gradients the order of the single trial's product."""
    _drop(graph, _NOTHING)
    _share_constants(graph)
    _turn_weight_gradients(graph)
    _unstack(graph)
    _join_parts(graph)
    _sweep(graph)
    graph.lint()


def _drop(graph: Graph, targets: tuple[object, ...]) -> None:
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in targets:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _share_constants(graph: Graph) -> None:
    """A tensor that the code makes of a number is made again at each replay only where it is written into."""
    written = {base_of(node.args[0]) for node in graph.nodes if writes(node) and isinstance(node.args[0], Node)}
    for node in list(graph.nodes):
        if FRESH in node.meta and node not in written:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_transpose(node: object) -> bool:
    return isinstance(node, Node) and node.target is _ATEN.transpose.int and tuple(node.args[1:]) == (1, 2)


def _turn_weight_gradients(graph: Graph) -> None:
    """(X^T dY)^T becomes dY^T X: what autograd computes for one linear layer, and without a transposing copy."""
    for node in list(graph.nodes):
        product = node.args[0] if _is_transpose(node) else None
        if not isinstance(product, Node) or product.target is not _ATEN.bmm.default or len(product.users) != 1:
            continue
        left, right = product.args
        if not _is_transpose(left):
            continue
        with graph.inserting_before(node):
            turned = graph.call_function(_ATEN.transpose.int, (right, 1, 2))
            direct = graph.call_function(_ATEN.bmm.default, (turned, left.args[0]))  # type: ignore[union-attr]
        node.replace_all_uses_with(direct)
        for user in list(direct.users):
            if user.target is _ATEN.clone.default:  # contiguous memory was requested, and this is contiguous
                user.replace_all_uses_with(direct)
                graph.erase_node(user)


def _unstack(graph: Graph) -> None:
    """What is stacked only to be taken apart again stays apart, unless somebody writes into it."""
    written = {base_of(node.args[0]) for node in graph.nodes if writes(node) and isinstance(node.args[0], Node)}
    for node in list(graph.nodes):
        if node.target is not _ATEN.unbind.int or node.args[1:] not in ((), (0,)):
            continue
        stack = node.args[0]
        if stack.target is not _ATEN.stack.default or stack.args[1:] not in ((), (0,)) or stack in written:
            continue
        if any(base_of(part) in written for part in stack.args[0]):
            continue
        for user in list(node.users):
            user.replace_all_uses_with(stack.args[0][user.args[1]])
            graph.erase_node(user)


def _join_parts(graph: Graph) -> None:
    """The gradient of a tensor that is taken apart along a dimension: its parts side by side.

    Autograd puts each part among zeros and adds these up. Adding zero once more makes +0 of -0, as that does.
    """
    for node in reversed(list(graph.nodes)):
        if node.target is not _ATEN.add.Tensor or any(user.target is _ATEN.add.Tensor for user in node.users):
            continue
        parts = _summands(node)
        if any(part.target is not _ATEN.select_backward.default for part in parts):
            continue
        (*shape, dim), *others = {(*part.args[1], part.args[2]) for part in parts}
        if others or sorted(part.args[3] for part in parts) != list(range(shape[dim])):
            continue
        ordered = [part.args[0] for part in sorted(parts, key=lambda part: part.args[3])]
        with graph.inserting_before(node):
            stack = graph.call_function(_ATEN.stack.default, (ordered, dim))
            joined = graph.call_function(_ATEN.add.Tensor, (stack, 0.0))
        stack.meta, joined.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(joined)


def _summands(node: Any) -> list[Any]:
    """The nodes that a sum of sums adds up, where nothing else reads the sums in between."""
    if node.target is not _ATEN.add.Tensor or node.kwargs or not all(isinstance(arg, Node) for arg in node.args):
        return [node]
    return [each for arg in node.args for each in (_summands(arg) if len(arg.users) == 1 else [arg])]


def _sweep(graph: Graph) -> None:
    """Take out what nothing uses, but never what writes into a buffer."""
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function" or node.users or writes(node):
            continue
        graph.erase_node(node)


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
    """Let operations write their results over an argument that nothing reads afterwards."""
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
    """Those that might be written over, if nothing reads them afterwards and no other argument shares their memory."""
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
