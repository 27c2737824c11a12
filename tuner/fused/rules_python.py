"""Rules of what leaves torch, of attributes, and of random numbers: refused by name, or made exact."""

import functools
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from tuner.errors import NotFusible
from tuner.fused.noise import DroppedInKernel
from tuner.fused.operations import Operations, name_of
from tuner.fused.trial_tensor import TrialTensor, is_number, is_trial, seen_shape, values_of

_LEAVE_TORCH = """item __bool__ tolist numpy __float__ __int__ __index__ __contains__ __array__ _local_scalar_dense
 is_nonzero equal allclose"""
_DROPOUTS = ("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "feature_dropout")
# Dropouts of whole features, and the dimensions of an input that is a single example there.
_WHOLE = {"dropout1d": 2, "dropout2d": 0, "dropout3d": 4, "feature_dropout": 0}
_RANDOM = """rand_like randn_like randint_like bernoulli bernoulli_ normal_ uniform_ random_ multinomial rrelu
 alpha_dropout"""


def python_value(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    """Of a hyperparameter, where all trials agree on it: `if point["dropout"] > 0.0`. Everything else is refused."""
    name, value = name_of(function), arguments[0]
    if is_number(value):
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            known = {function(each, *arguments[1:], **keywords) for each in value.stacked.unbind(0)}
        if len(known) == 1:
            return known.pop()
    what = "branches on" if name in ("__bool__", "is_nonzero", "equal", "allclose") else "reads"
    which = "that differs between trials" if is_trial(value) else "which a recording would freeze"
    raise NotFusible(f"{name}: the code {what} the value of a tensor {which}")


def refuse_noise(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    raise NotFusible(f"{name_of(function)}: random numbers of its own; use torch's dropout or the step's generator")


def formatted(operations: Operations, function: Any, value: TrialTensor, how: str) -> str:
    return repr(value) if not how else str(python_value(operations, function, value, how))


def requires_grad_(operations: Operations, function: Any, value: TrialTensor, flag: bool = True) -> Any:
    if flag != value.stacked.requires_grad:
        raise NotFusible("requires_grad_: what has a gradient is changed by the loss")
    return value


def new_tensor(operations: Operations, function: Any, value: Any, *, dtype: Any = None, **named: Any) -> Any:
    """torch.tensor of a hyperparameter is a tensor of each trial's own."""
    return operations.trial(value.stacked.to(dtype or torch.get_default_dtype()))


def full(operations: Operations, function: Any, size: Any, value: Any, *, dtype: Any = None, **named: Any) -> Any:
    filled = operations.aligned(new_tensor(operations, function, value, dtype=dtype), len(size))
    return operations.trial(filled.expand(operations.num_trials, *size).clone())


def set_data(operations: Operations, function: Any, value: Any, new: torch.Tensor) -> Any:
    """`x.data = new` as a write into x."""
    if not is_trial(value):
        return operations.refuse_write("data", value) if is_trial(new) else NotImplemented
    if seen_shape(value) != seen_shape(new) or value.dtype != new.dtype:
        raise NotFusible("data: a tensor of another form is put in its place")
    value.stacked.detach().copy_(operations.stacked(new).detach())
    return None


def refuse_backward(operations: Operations, function: Any, *arguments: Any, **keywords: Any) -> Any:
    raise NotFusible(
        f"{name_of(function)}: the loss computes its own gradients, or its model computes activations again "
        "(torch.utils.checkpoint with use_reentrant=True): leave that out for trials together, or let each train alone "
        "(--fuse off)"
    )


def requires_grad(operations: Operations, function: Any, value: TrialTensor) -> bool:
    return bool(value.stacked.requires_grad)


def nothing(operations: Operations, function: Any, value: TrialTensor) -> None:
    """`grad` and `grad_fn`, as before a first backward pass."""


def detach(operations: Operations, function: Any, value: TrialTensor) -> Any:
    return operations.trial(value.stacked.detach())


def shared_data(operations: Operations, function: Any, value: torch.Tensor) -> torch.Tensor:
    """Unlike `data` this is a view that a recording sees."""
    return value.detach()


def is_contiguous(operations: Operations, function: Any, value: TrialTensor, *rest: Any, **keywords: Any) -> bool:
    return bool(value.stacked[0].is_contiguous(*rest, **keywords))


def stride(operations: Operations, function: Any, value: TrialTensor, *dim: int) -> Any:
    strides = value.stacked.stride()[1:]
    return strides[dim[0]] if dim else strides


def dropout(  # noqa: PLR0913 - torch's arguments, of both functions
    operations: Operations,
    function: Any,
    value: Any,
    p: Any = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    train: bool | None = None,
) -> Any:
    """Each trial's own mask, at its own rate."""
    training = training if train is None else train
    if not training or (not is_trial(p) and p == 0.0):
        return value
    stacked = operations.stacked(value)
    whole = _WHOLE.get(name_of(function))
    with _disable_current_modes():
        noise = torch.empty_like(stacked[0].detach())
        if whole is not None:
            drawn = 1 if noise.dim() == whole else 2
            noise = noise.new_empty(*noise.shape[:drawn], *([1] * (noise.dim() - drawn)))
    rates = _rates(operations, p)
    if stacked.is_cuda and whole is None:
        mask = operations.sites.mask(noise, rates, in_kernel=True)
        return operations.trial(DroppedInKernel.apply(stacked, mask, rates))  # type: ignore[no-untyped-call]
    mask = operations.sites.mask(noise, rates)
    if inplace and is_trial(value):
        stacked.mul_(mask)
        return value
    return operations.trial(stacked * mask)


def _rates(operations: Operations, rate: Any) -> list[float]:
    if is_trial(rate) and not is_number(rate):
        raise NotFusible("dropout: its rate is computed from the model's values")
    return values_of(rate) if is_trial(rate) else [float(rate)] * operations.num_trials


def one_hot(operations: Operations, function: Any, value: torch.Tensor, num_classes: int = -1) -> Any:
    """Without torch's look at the values: which classes there are must be told."""
    if num_classes < 0:
        return NotImplemented
    classes = torch.arange(num_classes, device=value.device)
    return torch.eq(value.unsqueeze(-1), classes).long()


class SharedValues(TorchFunctionMode):
    """Rules for values that all trials share (a batch, for example), whose changes a recording would not notice.

    Dropout: each trial has its own mask. A Python value made from a tensor: a recording would freeze it.
    """

    def __init__(self, operations: Operations) -> None:
        super().__init__()
        self.operations = operations
        self._apply = torch.autograd.Function.__dict__["apply"]

    def __enter__(self) -> Any:
        """Functions with a derivative by the user pass by the rules: their `apply` is what can be replaced."""
        torch.autograd.Function.apply = classmethod(self._applied)  # type: ignore[assignment]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        torch.autograd.Function.apply = self._apply  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _applied(self, kind: Any, *arguments: Any, **keywords: Any) -> Any:
        """Each trial's own call of a function with its own derivative."""
        apply = functools.wraps(kind)(functools.partial(self._apply.__func__, kind))
        if any(map(is_trial, (*arguments, *keywords.values()))):
            return self.operations.loop(apply, arguments, keywords)
        return apply(*arguments, **keywords)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords, name = kwargs or {}, name_of(func)
        kind = type(args[0]) if args else None
        rule = _OF_SHARED.get(name) if kind is torch.Tensor else None
        rule = _OF_PARAMETERS.get(name) if kind is torch.nn.Parameter else rule
        rule = _OF_NUMBERS.get(name) if any(map(is_number, args)) else rule
        result = NotImplemented if rule is None else rule(self.operations, func, *args, **keywords)
        return func(*args, **keywords) if result is NotImplemented else result


_OF_SHARED: dict[str, Any] = {
    **dict.fromkeys(_DROPOUTS, dropout),
    **dict.fromkeys(("tolist", "numpy", "__array__"), python_value),
    "one_hot": one_hot,
    "get:data": shared_data,
    "set:data": set_data,
}
_OF_PARAMETERS: dict[str, Any] = {  # frozen ones
    **dict.fromkeys(_DROPOUTS, dropout),
    "get:data": shared_data,
    "set:data": set_data,
}
_OF_NUMBERS: dict[str, Any] = {"tensor": new_tensor, "as_tensor": new_tensor, "full": full}


RULES: dict[str, Any] = {
    **dict.fromkeys(_LEAVE_TORCH.split(), python_value),
    **dict.fromkeys(_RANDOM.split(), refuse_noise),
    **dict.fromkeys(("backward", "register_hook", "grad"), refuse_backward),
    **dict.fromkeys(_DROPOUTS, dropout),
    **dict.fromkeys(("get:data", "detach"), detach),
    **dict.fromkeys(("get:grad", "get:grad_fn"), nothing),
    "get:requires_grad": requires_grad,
    "is_contiguous": is_contiguous,
    "stride": stride,
    "__format__": formatted,
    "requires_grad_": requires_grad_,
    "set:data": set_data,
    "one_hot": one_hot,
}
