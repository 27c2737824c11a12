"""A tensor that shows the shape of one trial and holds the values of all."""

from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes


class Runs(Protocol):
    """Runs a torch function for all trials at once."""

    def run(self, function: Any, arguments: Any, keywords: dict[str, Any]) -> Any: ...


class TrialTensor(torch.Tensor):
    """One tensor for each of K trials: `stacked` is [K, *shape], and the user's code sees `shape`.

    `is_number`: it stands for a Python float that differs between trials, such as a hyperparameter; held in float64,
    and rounded to the type of the tensor it meets, as torch does with a Python number.
    """

    stacked: torch.Tensor
    operations: Runs
    is_number: bool
    _is_param: bool

    @staticmethod
    def __new__(cls, stacked: torch.Tensor, operations: Runs, *, is_number: bool = False) -> "TrialTensor":
        shape, dtype = stacked.shape[1:], stacked.dtype
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=stacked.device)
        made.stacked, made.operations, made.is_number = stacked, operations, is_number
        return made

    def __init__(self, stacked: torch.Tensor, operations: Runs, *, is_number: bool = False) -> None:
        """All is done in __new__; torch wants both."""

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"TrialTensor({self.stacked.shape[0]} trials, {tuple(self.stacked.shape[1:])})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        return _operations_of(args, keywords).run(func, args, keywords)

    @classmethod
    def __torch_dispatch__(cls, func: Any, *rest: Any) -> Any:
        raise RuntimeError(f"{func} reached the dispatcher with a trial tensor")


def _operations_of(arguments: Any, keywords: dict[str, Any]) -> Runs:
    leaves = pytree.tree_leaves((arguments, keywords))
    return next(leaf.operations for leaf in leaves if isinstance(leaf, TrialTensor))


def is_trial(value: object) -> bool:
    """Whether a value differs between trials."""
    return type(value) is TrialTensor


def is_number(value: object) -> bool:
    """Whether a value stands for a Python float that differs between trials."""
    return type(value) is TrialTensor and value.is_number


def values_of(number: TrialTensor) -> list[Any]:
    """The Python value of each trial; nothing of this is recorded."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        return list(number.stacked.tolist())


def rank(value: object) -> int:
    """The number of dimensions that the user sees; 0 for what is no tensor."""
    if isinstance(value, TrialTensor):
        return value.stacked.dim() - 1
    return value.dim() if isinstance(value, torch.Tensor) else 0


def seen_shape(value: torch.Tensor) -> tuple[int, ...]:
    """The shape that the user sees."""
    return tuple(value.stacked.shape[1:]) if isinstance(value, TrialTensor) else tuple(value.shape)


def inner(dim: int, dims: int) -> int:
    """A dimension of one trial, counted in the stacked tensor; `dims` is what the user sees."""
    return dim + 1 if dim >= 0 else dim + dims + 1


def inner_all(given: Any, dims: int) -> Any:
    """One dimension or several."""
    return inner(given, dims) if isinstance(given, int) else tuple(inner(dim, dims) for dim in given)
