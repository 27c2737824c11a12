"""Rules of element-wise operations: the same kernel over the stacked values, where that keeps the bits.

Arithmetic is rounded exactly, wherever an element lies in memory. Functions like exp are not: torch computes the
last elements of a tensor, those that do not fill its vector registers, by another routine. So these run stacked
only where a trial's elements fill them, and in a loop over the trials where not. Complex numbers always loop.
"""

import math
from typing import Any

import torch

from tuner.fused.operations import Operations, name_of
from tuner.fused.trial_tensor import TrialTensor, is_number, is_trial, rank, seen_shape

_ARITHMETIC = """add sub subtract mul multiply div divide true_divide floor_divide remainder fmod rsub __add__
 __radd__ __sub__ __mul__ __rmul__ __truediv__ __floordiv__ __mod__ __neg__ __and__ __or__ __xor__ __invert__ __gt__
 __lt__ __ge__ __le__ __eq__ __ne__ eq ne gt lt ge le neg negative sqrt square abs absolute sign reciprocal relu relu6
 hardtanh leaky_relu threshold clamp clip clamp_min clamp_max maximum minimum where logical_and logical_or
 logical_not  logical_xor isnan isfinite isinf masked_fill floor ceil round trunc float double half bfloat16 long int
 bool to type type_as clone contiguous nan_to_num bitwise_and bitwise_or bitwise_not zeros_like ones_like
 full_like""".split()
_FUNCTIONS = """pow __pow__ exp expm1 log log1p log2 rsqrt sin cos tanh sigmoid gelu silu mish elu selu celu softplus
 hardswish hardsigmoid logsigmoid softsign tanhshrink erf lerp addcmul addcdiv xlogy atan2""".split()
_IN_PLACE = """add_ sub_ mul_ div_ relu_ clamp_ copy_ zero_ fill_ neg_ masked_fill_ __iadd__ __isub__ __imul__
 __itruediv__ hardtanh_ leaky_relu_""".split()
_BY_TENSOR = """add sub subtract mul multiply div divide true_divide floor_divide remainder fmod rsub __add__
 __radd__ __sub__ __mul__ __rmul__ __truediv__ __floordiv__ __mod__ __gt__ __lt__ __ge__ __le__ __eq__ __ne__ eq ne
 gt lt ge le""".split()  # a tensor in the place of a number has the bits of the number
SINGLE = 4  # bytes
_DIVISIONS = ("div", "divide", "true_divide", "__truediv__")
_VECTOR = 32  # elements that torch's vectorized loops take at a time, for float32 on the widest CPUs


def _prepared(operations: Operations, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Stacked values, aligned to one rank; numbers rounded to the type of the tensors they meet."""
    given = [*arguments, *keywords.values()]
    dims = max(rank(value) for value in given)
    tensors = [value for value in given if isinstance(value, torch.Tensor) and not is_number(value)]
    kind = _kind(tensors)

    shapes = [seen_shape(value) for value in tensors]
    spread = operations.care > 1 and torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]

    def ready(value: Any) -> Any:
        if spread and is_trial(value) and not value.is_number and seen_shape(value) != spread:
            return operations.spread(value, spread)
        stacked = operations.aligned(value, dims)
        return stacked.to(kind) if tensors and is_number(value) else stacked

    return [ready(value) for value in arguments], {name: ready(value) for name, value in keywords.items()}


def _kind(tensors: list[torch.Tensor]) -> torch.dtype:
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return floating[0] if floating else torch.get_default_dtype()


def _only_numbers(arguments: Any, keywords: dict[str, Any]) -> bool:
    tensors = [value for value in [*arguments, *keywords.values()] if isinstance(value, torch.Tensor)]
    return all(is_number(value) for value in tensors)


def arithmetic(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    if _are_complex(arguments) or _takes_python_numbers(function, arguments, keywords):
        return operations.loop(function, arguments, keywords)
    given, named = _prepared(operations, arguments, keywords)
    if name_of(function) in _DIVISIONS and len(given) == 2 and _divides_on_cuda(*arguments):
        result = given[0] * given[1].reciprocal()  # as torch's CUDA kernel divides by a Python number
    else:
        result = function(*given, **named)
    return TrialTensor(result, operations, is_number=_only_numbers(arguments, keywords))


def _are_complex(arguments: Any) -> bool:
    """Their products and quotients are sums of rounded parts."""
    return any(isinstance(value, torch.Tensor) and value.dtype.is_complex for value in arguments)


def _takes_python_numbers(function: Any, arguments: Any, keywords: dict[str, Any]) -> bool:
    """Whether a hyperparameter stands where torch wants a number, or would round one otherwise than a tensor."""
    if not any(map(is_number, (*arguments, *keywords.values()))) or _only_numbers(arguments, keywords):
        return False
    tensors = [value for value in arguments if isinstance(value, torch.Tensor) and not is_number(value)]
    return name_of(function) not in _BY_TENSOR or bool(keywords) or _kind(tensors).itemsize < SINGLE


def _divides_on_cuda(value: Any, divisor: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_cuda and not is_number(value) and is_number(divisor)


def transcendental(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
    elements = max(math.prod(seen_shape(tensor)) for tensor in tensors)
    if not _only_numbers(arguments, keywords) and (elements % _VECTOR or operations.care > 1):
        return operations.loop(function, arguments, keywords)
    return arithmetic(operations, function, *arguments, **keywords)


def reflected(ordinary: Any) -> Any:
    """`other - x`, `other / x`, `other ** x`, where other is a Python number or a tensor of all trials."""

    def rule(operations: Operations, function: Any, value: TrialTensor, other: Any) -> Any:
        if isinstance(other, torch.Tensor):
            return operations.run(ordinary, (other, value), {})
        if ordinary is torch.sub:
            return operations.run(torch.rsub, (value, other), {})
        if ordinary is torch.div:
            return operations.run(torch.mul, (operations.run(torch.reciprocal, (value,), {}), other), {})
        return operations.run(torch.pow, (other, value), {})

    return rule


def in_place(operations: Operations, function: Any, target: Any, *arguments: Any, **keywords: Any) -> Any:
    if is_number(target):
        return operations.run(
            getattr(torch.Tensor, name_of(function).removeprefix("__i").strip("_")), (target, *arguments), {}
        )
    if not is_trial(target):
        operations.refuse_write(name_of(function), target)
    if _are_complex((target, *arguments)) or any(map(is_number, (*arguments, *keywords.values()))):
        return NotImplemented
    given, named = _prepared(operations, (target, *arguments), keywords)
    function(target.stacked, *given[1:], **named)
    return target


RULES: dict[str, Any] = {
    **dict.fromkeys(_ARITHMETIC, arithmetic),
    **dict.fromkeys(_FUNCTIONS, transcendental),
    **dict.fromkeys(_IN_PLACE, in_place),
    "__rsub__": reflected(torch.sub),
    "__rdiv__": reflected(torch.div),
    "__rtruediv__": reflected(torch.div),
    "__rpow__": reflected(torch.pow),
}
