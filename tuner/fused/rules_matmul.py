"""Rules of matrix products: one batched product where it has the bits of the single ones.

They follow what torch itself makes of a call (`addmm` with a bias, folding of leading dimensions), because the way
decides the bits. Very small batched products are computed by a plain loop in torch and not by the library, and a
matrix of one row or column is multiplied as a vector: those, and products of views that torch does not fold, are
computed trial by trial.

A matrix that all trials share, a frozen weight, is multiplied once with the rows of all trials under each other.
Whether that has the bits of each trial's own product is tried for each size, on this machine, before it is trusted.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import _disable_current_modes

from tuner.fused.operations import Operations
from tuner.fused.trial_tensor import is_number, is_trial, rank, seen_shape

_SMALL = 400  # rows x inner x columns below which torch's batched product is another routine


def linear(operations: Operations, function: Any, value: Any, weight: Any, bias: Any = None) -> Any:
    shape, (width_out, width_in) = seen_shape(value), seen_shape(weight)
    rows = math.prod(shape[:-1])
    if len(shape) == 1 or operations.care or _is_small((rows, width_in, width_out)):
        return operations.loop(function, (value, weight, bias), {})
    if not is_trial(weight) and (product := _with_one_weight(operations, value, weight, bias)) is not None:
        return product
    inputs = _folded(operations.stacked(value))
    if inputs is None and is_trial(weight) and weight.stacked.requires_grad:
        inputs = operations.stacked(value.reshape(rows, width_in))  # torch copies them, too
    if inputs is None:
        return operations.loop(function, (value, weight, bias), {})
    matrix = operations.stacked(weight).transpose(1, 2)
    if bias is None:
        product = torch.bmm(inputs, matrix)
    elif _adds_in_product(operations, value):
        product = torch.baddbmm(operations.stacked(bias).unsqueeze(1), inputs, matrix)
    else:
        product = torch.bmm(inputs, matrix) + operations.stacked(bias).unsqueeze(1)
    return operations.trial(product.view(operations.num_trials, *shape[:-1], width_out))


def _adds_in_product(operations: Operations, value: Any) -> bool:
    """Whether torch adds a bias within the product, and not afterwards."""
    dims = rank(value)
    return dims == 2 or (dims == 3 and _contiguous(operations, value))


def _with_one_weight(operations: Operations, value: Any, weight: torch.Tensor, bias: Any) -> Any:
    """A linear layer of one weight for all trials; None as below."""
    if bias is None or _adds_in_product(operations, value):
        return _with_one_matrix(operations, value, weight.t(), bias)
    product = _with_one_matrix(operations, value, weight.t())
    return None if product is None else product + bias


def _with_one_matrix(operations: Operations, value: Any, matrix: Any, bias: Any = None) -> Any:
    """Each trial's own rows times one matrix [inner, columns]; None where that is no such case, or has other bits."""
    rows = _folded(value.stacked) if is_trial(value) and not is_trial(matrix) else None
    if rows is None or not rows.is_contiguous() or (is_trial(bias) and rows.is_cuda):
        return None
    trials, count, inner = rows.shape
    together = rows.view(-1, inner)
    if not _rows_agree(rows.shape, matrix.shape[1], matrix.is_contiguous(), bias is not None, _where(rows)):
        return None
    if is_trial(bias):
        added = bias.stacked.unsqueeze(1).expand(trials, count, -1).reshape(trials * count, -1)
        product = torch.addmm(added, together, matrix)
    else:
        product = torch.mm(together, matrix) if bias is None else torch.addmm(bias, together, matrix)
    return operations.trial(product.view(*value.stacked.shape[:-1], matrix.shape[1]))


_Where = tuple[torch.dtype, torch.device, int, bool]


def _where(tensor: torch.Tensor) -> _Where:
    """What a kernel is chosen by, besides sizes."""
    return tensor.dtype, tensor.device, torch.get_num_threads(), torch.is_autocast_enabled(tensor.device.type)


@functools.cache
def _rows_agree(shape: Sequence[int], columns: int, straight: bool, biased: bool, where: _Where) -> bool:
    """Whether [K * rows, inner] times a matrix has the bits of K products, forward and backward.

    straight: the matrix [inner, columns] lies in the order of its rows.
    """
    kind, device, *_ = where
    generator = torch.Generator().manual_seed(0)

    def drawn(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator).to(device, kind)

    with _disable_current_modes(), torch.no_grad():
        trials, rows, inner = shape
        values, gradients, bias = drawn(*shape), drawn(trials, rows, columns), drawn(columns)
        matrix = drawn(inner, columns) if straight else drawn(columns, inner).t()

        def products(some: torch.Tensor, gradient: torch.Tensor) -> list[torch.Tensor]:
            forward = torch.addmm(bias, some, matrix) if biased else torch.mm(some, matrix)
            return [forward, torch.mm(gradient, matrix.t())]

        together = products(values.view(-1, inner), gradients.view(-1, columns))
        alone = zip(*map(products, values.clone(), gradients.clone()), strict=True)
        return all(torch.equal(one, torch.cat(each)) for one, each in zip(together, alone, strict=True))


def _contiguous(operations: Operations, value: torch.Tensor) -> bool:
    return bool(operations.stacked(value)[0].is_contiguous())


def _folded(stacked: torch.Tensor) -> torch.Tensor | None:
    """[K, ..., n] as [K, rows, n] without a copy; None where the strides do not allow it."""
    try:
        return stacked.view(stacked.shape[0], -1, stacked.shape[-1])
    except RuntimeError:
        return None


def matmul(operations: Operations, function: Any, left: Any, right: Any) -> Any:
    if operations.care or is_number(left) or is_number(right):
        return NotImplemented
    dims = (rank(left), rank(right))
    if dims == (2, 2):
        return _batched(operations, function, left, right)
    if dims[0] > 2 and dims[1] == 2:
        return _with_matrix(operations, function, left, right)
    if min(dims) > 2 and seen_shape(left)[:-2] == seen_shape(right)[:-2]:
        return _many(operations, function, left, right)
    return operations.loop(function, (left, right), {})


def _is_small(sizes: Sequence[int]) -> bool:
    """Of rows, inner dimension and columns."""
    return math.prod(sizes) < _SMALL or 1 in sizes


def _batched(operations: Operations, function: Any, left: Any, right: Any) -> Any:
    if _is_small((*seen_shape(left), seen_shape(right)[1])):
        return operations.loop(function, (left, right), {})
    if (product := _with_one_matrix(operations, left, right)) is not None:
        return product
    return operations.trial(torch.bmm(operations.stacked(left), operations.stacked(right)))


def _with_matrix(operations: Operations, function: Any, left: Any, right: Any) -> Any:
    rows = _folded(operations.stacked(left))
    if rows is None or _is_small((*rows.shape[1:], seen_shape(right)[1])):
        return operations.loop(function, (left, right), {})
    if (product := _with_one_matrix(operations, left, right)) is not None:
        return product
    if not is_trial(right):
        return operations.loop(function, (left, right), {})
    product = torch.bmm(rows, operations.stacked(right))
    return operations.trial(product.view(operations.num_trials, *seen_shape(left)[:-1], seen_shape(right)[-1]))


def _many(operations: Operations, function: Any, left: Any, right: Any) -> Any:
    """Products of equally many matrices in each trial: all of them are one batch, if no copy is needed for that."""
    try:
        first = _as_batch(operations.stacked(left))
        second = _as_batch(operations.stacked(right))
    except RuntimeError:
        return operations.loop(function, (left, right), {})
    product = torch.bmm(first, second)
    return operations.trial(product.view(operations.num_trials, *seen_shape(left)[:-1], seen_shape(right)[-1]))


def _as_batch(stacked: torch.Tensor) -> torch.Tensor:
    return stacked.view(-1, *stacked.shape[-2:])


def reflected_matmul(operations: Operations, function: Any, right: Any, left: Any) -> Any:
    return operations.run(torch.matmul, (left, right), {})


def attention(operations: Operations, function: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
    """Heads attend for themselves, so trials are more examples; with dropout inside, by the formula torch uses."""
    options = dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False)) | named
    mask, rate = options.pop("attn_mask", None), options.pop("dropout_p", 0.0)
    if is_trial(rate) or rate > 0.0:
        return _attention_with_dropout(operations, (query, key, value), mask, rate, options)
    shapes = {rank(query), rank(key), rank(value)}
    if operations.care or shapes != {4} or is_trial(mask) or options.get("enable_gqa"):
        return operations.loop(function, (query, key, value), {"attn_mask": mask, **options})
    if mask is not None and mask.dim() > 2:
        return operations.loop(function, (query, key, value), {"attn_mask": mask, **options})
    first, second, third = _as_examples(*(operations.stacked(part) for part in (query, key, value)))
    result = F.scaled_dot_product_attention(first, second, third, attn_mask=mask, **options)
    return operations.trial(result.reshape(operations.num_trials, *seen_shape(query)[:-1], seen_shape(value)[-1]))


def _as_examples(*parts: torch.Tensor) -> list[torch.Tensor]:
    """[K, examples, heads, ...] in four dimensions: more examples, or more heads where only that takes no copy.

    A GPU chooses its kernel by the number of heads, too: there they stay as they are.
    """
    for place in (0,) if parts[0].is_cuda else (0, 1):
        try:
            return [_joined(part, place) for part in parts]
        except RuntimeError:  # the strides do not allow it
            continue
    return [part.flatten(0, 1) for part in parts]


def _joined(stacked: torch.Tensor, place: int) -> torch.Tensor:
    """Two neighbouring dimensions as one, without a copy. Raises RuntimeError where the strides do not allow it."""
    first, second = stacked.shape[place : place + 2]
    return stacked.view(*stacked.shape[:place], first * second, *stacked.shape[place + 2 :])


def _attention_with_dropout(operations: Operations, parts: Any, mask: Any, rate: Any, options: dict[str, Any]) -> Any:
    device = parts[0].device.type
    if torch.is_autocast_enabled(device):  # torch casts once, and computes the formula in float32
        few = torch.get_autocast_dtype(device)
        mask = mask if mask is None or mask.dtype == torch.bool else mask.to(few).float()
        with torch.autocast(device, enabled=False):
            cast = [part.to(few).float() for part in parts]
            return _attention_with_dropout(operations, cast, mask, rate, options).to(few)
    query, key, value = parts
    given = options.get("scale")
    scale = math.sqrt(given if given is not None else 1.0 / math.sqrt(seen_shape(query)[-1]))
    scores = torch.matmul(query * scale, (key * scale).transpose(-2, -1))
    if options.get("is_causal"):
        rows, columns = seen_shape(scores)[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(mask.logical_not(), -math.inf)
    if mask is not None:
        scores = scores + mask
    return torch.matmul(F.dropout(torch.softmax(scores, -1), rate, True), value)


RULES: dict[str, Any] = {
    "linear": linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm"), matmul),
    "__rmatmul__": reflected_matmul,
    "scaled_dot_product_attention": attention,
}
