"""Torch's kernels of small classification losses, in another order of memory: the same bits, several times faster.

Log-softmax: torch's kernel for the last dimension takes a row at a time; rows shorter than a vector register leave
most of it empty. With the classes first, one register holds that many rows: the same additions in the same order. Rows
are put in to fill the last one.

The mean of the negative log-likelihoods: torch adds up the examples of one trial in blocks of 16, one after the
other. Those blocks are columns of a matrix, whose rows are added in order for all trials at once.

Whether both ways give the same bits on this machine is tried, for each size, before it is trusted.
"""

import copy
import functools
import operator

import torch
from torch.fx import Graph, GraphModule, Node

from tuner.fused.graph import write_over, writes

_ATEN = torch.ops.aten
_FEW = 32  # classes; more fill a register
_ROWS = 32  # so many at a time fill one register or several, on every CPU
_BLOCK = 16  # examples that torch adds up before it begins another sum
_MOST_EXAMPLES = 16 * _BLOCK  # more are added up in blocks of blocks


def quickened(recorded: Graph, constants: dict[str, torch.Tensor]) -> GraphModule:
    """What a recorded graph computes, with its constants, by the quicker of both ways."""
    quick = copy.deepcopy(recorded)  # a module keeps the graph that it is given
    for node in list(quick.nodes):
        if node.target is _ATEN._log_softmax.default:
            node.target = log_softmax
        elif node.target is _ATEN._log_softmax_backward_data.default:
            node.target = log_softmax_backward
        elif node.target is _ATEN.stack.default and (found := _stacked_means(node)) is not None:
            with quick.inserting_before(node):
                node.replace_all_uses_with(quick.call_function(mean_negative, found))
    quick.eliminate_dead_code(lambda node: node.op != "call_function" or writes(node))
    write_over(quick)
    return GraphModule(constants, quick)


def _stacked_means(stack: Node) -> tuple[Node, Node] | None:
    """[K, examples, classes] and [K, examples], where the stacked are the mean negative log-likelihoods of all K."""
    logs: list[Node | None] = []
    target: list[Node | None] = []
    for part in stack.args[0]:  # type: ignore[union-attr]
        mean = _source(part, 0)
        if mean is None or mean.target is not _ATEN.nll_loss_forward.default or mean.args[2:] != (None, 1, -100):
            return None
        place = len(logs)
        logs.append(_source(mean.args[0], place))
        target.append(_source(mean.args[1], place))
    sources = {*logs, *target}
    unbinds = all(source is not None and source.target is _ATEN.unbind.int for source in sources)
    if not unbinds or len(set(logs)) != 1 or len(set(target)) != 1 or stack.args[1:] not in ((), (0,)):
        return None
    return logs[0].args[0], target[0].args[0]  # type: ignore[union-attr, return-value]


def _source(part: object, place: int) -> Node | None:
    """What this is the part number `place` of."""
    if not isinstance(part, Node) or part.target is not operator.getitem or part.args[1] != place:
        return None
    return part.args[0]  # type: ignore[return-value]


def log_softmax(values: torch.Tensor, dim: int, half_to_float: bool) -> torch.Tensor:
    if not _is_quick(values, dim):
        return _ATEN._log_softmax(values, dim, half_to_float)  # type: ignore[no-any-return]
    return _classes_last(_ATEN._log_softmax(_classes_first(values), 0, half_to_float), values)


def log_softmax_backward(gradient: torch.Tensor, output: torch.Tensor, dim: int, kind: torch.dtype) -> torch.Tensor:
    if not (_is_quick(gradient, dim) and _is_quick(output, dim)):
        return _ATEN._log_softmax_backward_data(gradient, output, dim, kind)  # type: ignore[no-any-return]
    found = _ATEN._log_softmax_backward_data(_classes_first(gradient), _classes_first(output), 0, kind)
    return _classes_last(found, gradient)


def _classes_first(values: torch.Tensor) -> torch.Tensor:
    """[..., classes] as [classes, rows] in that order of memory. As three dimensions: torch's copy of two is slower."""
    classes = values.shape[-1]
    flat = values.reshape(-1, classes)
    if missing := -len(flat) % _ROWS:
        flat = torch.nn.functional.pad(flat, (0, 0, 0, missing))
    return flat.reshape(_ROWS, -1, classes).permute(2, 0, 1).contiguous().view(classes, -1)


def _classes_last(found: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """In the order of memory of the ordinary kernel: what sums it up next adds in that order."""
    rows = found.view(len(found), _ROWS, -1).permute(1, 2, 0).contiguous().view(-1, len(found))
    return rows[: like.numel() // len(found)].view(like.shape)


def _is_quick(values: torch.Tensor, dim: int) -> bool:
    classes = values.shape[-1]
    if classes > _FEW or dim not in (-1, values.dim() - 1) or not values.numel():
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


def mean_negative(logs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean of -logs[k, i, target[k, i]] over i, for each k."""
    trials, examples = target.shape
    small = 1 < examples <= _MOST_EXAMPLES and logs.dtype is torch.float32 and logs.device.type == "cpu"
    # A negative label is one that does not count, and torch's blocks then end elsewhere.
    if small and _adds_in_blocks(trials, examples) and int(target.min()) >= 0:
        return _mean_by_blocks(logs, target)
    return _mean_alone(logs, target)


def _mean_by_blocks(logs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The examples after the first in blocks, those left over at the end before the whole ones, and the first last.

    A column for each trial, and empty ones that fill the vector registers: torch adds up the others in another order.
    """
    trials, examples = target.shape
    left = (examples - 1) % _BLOCK
    picked = torch.gather(logs, 2, target.unsqueeze(2)).squeeze(2)
    rows = picked.new_zeros(examples, -(-trials // _ROWS) * _ROWS)
    rows[:, :trials].copy_(picked.t())
    blocks = rows[1 : examples - left].view(-1, _BLOCK, rows.shape[1]).sum(1).sum(0)
    return (rows[examples - left :].sum(0) + blocks + rows[0])[:trials].neg_().div_(examples)


@functools.cache
def _adds_in_blocks(trials: int, examples: int) -> bool:
    """Whether both ways give the same bits here."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        logs = torch.log_softmax(4.0 * torch.randn(trials, examples, 8, generator=generator), 2)
        target = torch.randint(0, 8, (trials, examples), generator=generator)
        if not torch.equal(_mean_by_blocks(logs, target), _mean_alone(logs, target)):
            return False
    return True


def _mean_alone(logs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """By torch's kernel, trial by trial."""
    pairs = zip(logs.unbind(0), target.unbind(0), strict=True)
    return torch.stack([_ATEN.nll_loss_forward(one, labels, None, 1, -100)[0] for one, labels in pairs])
