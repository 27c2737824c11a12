"""Log-softmax over few classes, with the bits of torch's own kernel and without its way of working row by row.

Torch's kernel for the last dimension takes a row at a time; rows shorter than a vector register leave most of it
empty. With the classes first, one register holds that many rows: the same additions in the same order, several
times faster. Where the register is filled to the end the bits are the same, which is tried before it is trusted.
"""

import functools

import torch
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

_ATEN = torch.ops.aten
_FEW = 32  # classes; more fill a register
_ROWS = 32  # so many at a time fill one register or several, on every CPU


def quicken_log_softmax(graph: GraphModule) -> None:
    """Let a recorded graph compute its log-softmaxes, forward and backward, by the quicker of both ways."""
    for node in graph.graph.nodes:
        if node.target is _ATEN._log_softmax.default:
            node.target = log_softmax
        elif node.target is _ATEN._log_softmax_backward_data.default:
            node.target = log_softmax_backward


def with_torchs_own(graph: GraphModule) -> GraphModule:
    """A copy that computes them by torch's kernels again: a compiler has its own way, and does not know ours."""
    copy = GraphModule(graph, graph.graph)
    kernels = {log_softmax: _ATEN._log_softmax.default, log_softmax_backward: _ATEN._log_softmax_backward_data.default}
    for node in copy.graph.nodes:
        if node.op == "call_function":
            node.target = kernels.get(node.target, node.target)
    copy.graph.set_codegen(CodeGen())
    copy.recompile()
    return copy


def log_softmax(values: torch.Tensor, dim: int, half_to_float: bool) -> torch.Tensor:
    if not _is_quick(values, dim):
        return _ATEN._log_softmax(values, dim, half_to_float)  # type: ignore[no-any-return]
    return _classes_last(_ATEN._log_softmax(_classes_first(values), 0, half_to_float), values)


def log_softmax_backward(gradient: torch.Tensor, output: torch.Tensor, dim: int, kind: torch.dtype) -> torch.Tensor:
    if not (_is_quick(gradient, dim) and _is_quick(output, dim)):
        return _ATEN._log_softmax_backward_data(gradient, output, dim, kind)  # type: ignore[no-any-return]
    found = _ATEN._log_softmax_backward_data(_classes_first(gradient), _classes_first(output), 0, kind)
    return _classes_last(found, gradient)


def _classes_last(found: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """In the order of memory of the ordinary kernel: what sums it up next adds in that order."""
    return found.t().contiguous().view(like.shape)


def _classes_first(values: torch.Tensor) -> torch.Tensor:
    """[..., classes] as [classes, rows] in that order of memory."""
    return values.reshape(-1, values.shape[-1]).t().contiguous()


def _is_quick(values: torch.Tensor, dim: int) -> bool:
    classes = values.shape[-1]
    if classes > _FEW or dim not in (-1, values.dim() - 1) or (values.numel() // classes) % _ROWS:
        return False
    return values.dtype is torch.float32 and values.device.type == "cpu" and _agrees(classes)


@functools.cache
def _agrees(classes: int) -> bool:
    """Whether both ways give the same bits here, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    values, gradient = (4.0 * torch.randn(8 * _ROWS, classes, generator=generator) for _ in range(2))
    output = _ATEN._log_softmax(values, 1, False)
    quick = _ATEN._log_softmax(_classes_first(values), 0, False).t()
    back = _ATEN._log_softmax_backward_data(gradient, output, 1, torch.float32)
    quick_back = _ATEN._log_softmax_backward_data(_classes_first(gradient), _classes_first(output), 0, torch.float32)
    return torch.equal(quick, output) and torch.equal(quick_back.t(), back)
