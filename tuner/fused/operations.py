"""How one torch function is run for all trials: by its rule, or by a loop over the trials."""

import functools
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch.utils import _pytree as pytree

from tuner.errors import NotFusible
from tuner.fused.noise import Sites
from tuner.fused.trial_tensor import TrialTensor, is_trial, values_of
from tuner.training.copy_on_write import address

_WRITES = "writes values of a single trial into a tensor that all trials share; make it by x.new_zeros() or the like"
RECOMPUTES = (
    "activations are computed again for the gradient (torch.utils.checkpoint), which a recording would hold twice: "
    "leave that out for trials together, or let each train alone (--fuse off)"
)
Rule = Callable[..., Any]  # rule(operations, function, *arguments, **keywords); NotImplemented: not this case
Rules = Mapping[str, Rule]

# The wrapper itself answers these: it knows its shape and type.
_OF_THE_WRAPPER = frozenset(
    "size dim numel ndimension nelement element_size is_floating_point is_complex __len__ __hash__ is_tensor "
    "is_same_size get_device is_signed".split()
)
_VIEWS = frozenset({"get:real", "get:imag"})  # attributes that are tensors
_ALIGNED = 256  # bytes, the largest alignment that cuBLAS distinguishes
ANY = "*"  # in a table: the rule for operations without their own


class WritesShared(NotFusible):
    """Code writes into what the trials share. names: of parameters and buffers that each could have its own of."""

    def __init__(self, message: str, names: Collection[str] = ()) -> None:
        super().__init__(message)
        self.names = frozenset(names)


class Operations:
    """The operations of one recording. `ways` holds afterwards how each operation was run.

    care: 0, every rule is trusted; 1, matrix products loop over the trials; 2, every operation that computes does,
    which keeps the bits by construction. shared: the model's tensors that all trials share, by name.
    """

    def __init__(
        self,
        num_trials: int,
        rules: Rules,
        sites: Sites,
        *,
        care: int = 0,
        shared: Mapping[str, torch.Tensor] = types.MappingProxyType({}),
    ) -> None:
        self.num_trials = num_trials
        self.shared = shared
        self.rules = rules
        self.sites = sites
        self.care = care
        self.ways: dict[str, str] = {}
        self._opened: set[Any] = set()  # functions of torch that are run as what they call

    def trial(self, stacked: torch.Tensor) -> TrialTensor:
        return TrialTensor(stacked, self)

    def stacked(self, value: torch.Tensor) -> torch.Tensor:
        """[K, ...] of any tensor; what the trials share is only expanded."""
        return value.stacked if isinstance(value, TrialTensor) else value.expand(self.num_trials, *value.shape)

    def aligned(self, value: Any, dims: int) -> Any:
        """A trial tensor's stacked values with dimensions of size 1 put in, so that they broadcast to rank `dims`."""
        if not isinstance(value, TrialTensor):
            return value
        stacked, missing = value.stacked, dims - (value.stacked.dim() - 1)
        if missing <= 0:
            return stacked
        return stacked.reshape(stacked.shape[0], *([1] * missing), *stacked.shape[1:])

    def spread(self, value: TrialTensor, shape: Sequence[int]) -> torch.Tensor:
        """A trial tensor's stacked values repeated to [K, *shape]; the gradient is summed for each trial alone."""
        spread: torch.Tensor = _Spread.apply(self.aligned(value, len(shape)), tuple(shape), tuple(value.stacked.shape))  # type: ignore[no-untyped-call]
        return spread

    def refuse_write(self, name: str, target: Any) -> NoReturn:
        """Raise WritesShared: an operation would write into what all trials share, or a view of it."""
        starts = {shared: address(tensor) for shared, tensor in self.shared.items()}
        place = address(target) if isinstance(target, torch.Tensor) and not is_trial(target) else -1
        names = [shared for shared, start in starts.items() if start <= place < start + self.shared[shared].nbytes]
        raise WritesShared(f"{name} {_WRITES}", names)

    def each(self, value: torch.Tensor | None) -> Any:
        """The value of each trial, in order."""
        if isinstance(value, TrialTensor):
            return value.stacked.unbind(0)
        return [value] * self.num_trials

    def run(self, function: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
        if _in_checkpoint():
            raise NotFusible(RECOMPUTES)
        name = name_of(function)
        if isinstance(keywords.get("out"), torch.Tensor) and not is_trial(keywords["out"]):
            self.refuse_write(name, keywords["out"])
        rule = self.rules.get(name)
        if rule is not None:
            result = rule(self, function, *arguments, **keywords)
            if result is not NotImplemented:
                self.ways.setdefault(name, "rule")
                return result
        if name in _OF_THE_WRAPPER or (name.startswith("get:") and name not in _VIEWS):
            with torch._C.DisableTorchFunctionSubclass():
                return function(*arguments, **keywords)
        if _is_composite(function) and function not in self._opened:
            self._opened.add(function)
            try:
                return _opened(function)(*arguments, **keywords)
            finally:
                self._opened.remove(function)
        return self._without_rule(function, name, arguments, keywords)

    def _without_rule(self, function: Any, name: str, arguments: Any, keywords: dict[str, Any]) -> Any:
        if name.endswith("_") and not name.endswith("__"):
            return self._in_place(name, arguments, keywords)
        rule = self.rules.get(ANY)
        result = NotImplemented if rule is None else rule(self, function, *arguments, **keywords)
        if result is NotImplemented:
            return self.loop(function, arguments, keywords)
        self.ways[name] = "vmap"
        return result

    def _in_place(self, name: str, arguments: Any, keywords: dict[str, Any]) -> Any:
        """By the operation of the same name that is not in place; what it gives is put in the place."""
        target, ordinary = arguments[0], getattr(torch.Tensor, name[:-1], None)
        if not isinstance(target, TrialTensor):
            self.refuse_write(name, target)
        before = self.trial(target.stacked.clone())  # a loop takes it apart, which what is written into must not be
        result = self.run(ordinary, (before, *arguments[1:]), keywords) if callable(ordinary) else None
        if not isinstance(result, TrialTensor) or result.stacked.shape != target.stacked.shape:
            raise NotFusible(f"the in-place operation {name} has no rule for several trials")
        target.stacked.copy_(result.stacked)
        return target

    def loop(self, function: Any, arguments: Any, keywords: dict[str, Any], *, writes: bool = False) -> Any:
        """The operation once for each trial, on exactly what that trial alone would hand it, to write into even."""
        name = name_of(function)
        leaves, form = pytree.tree_flatten((list(arguments), keywords))
        # From the last to the first, because autograd goes back through what was made last first: the gradients of a
        # tensor that stands in several places are then added up in the order of one trial.
        parts = [self._parts(leaf, writes) if is_trial(leaf) else None for leaf in reversed(leaves)][::-1]
        results = []
        for trial in range(self.num_trials):
            mine = [leaf if part is None else part[trial] for leaf, part in zip(leaves, parts, strict=True)]
            given, named = pytree.tree_unflatten(mine, form)
            results.append(function(*given, **named))
        self.ways[name] = "loop"
        return self._gathered(results, name)

    def _parts(self, value: TrialTensor, writes: bool) -> Sequence[Any]:
        """What each trial alone would hand to an operation; a Python float for a number."""
        if value.is_number:
            return values_of(value)
        return value.stacked.unbind(0) if writes else _rows(value.stacked)

    def _gathered(self, results: list[Any], name: str) -> Any:
        """The results of the single trials as one, their tensors stacked."""
        flat = [pytree.tree_flatten(result) for result in results]
        leaves: list[Any] = []
        for first, *others in zip(*(leaves for leaves, _ in flat), strict=True):
            if isinstance(first, torch.Tensor):
                leaves.append(self.trial(_stacked_alike([first, *others])))
            elif any(other != first for other in others):
                raise NotFusible(f"{name}: a Python value that differs between trials")
            else:
                leaves.append(first)
        return pytree.tree_unflatten(leaves, flat[0][1])


class _Spread(torch.autograd.Function):
    """Broadcasting whose gradient has the bits of broadcasting in one trial."""

    @staticmethod
    def forward(context: Any, stacked: torch.Tensor, shape: tuple[int, ...], given: tuple[int, ...]) -> torch.Tensor:
        context.given, context.aligned = given, stacked.shape
        return stacked.expand(stacked.shape[0], *shape)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        sums = [gradient.sum_to_size(context.given[1:]) for gradient in gradients[0].unbind(0)]
        return torch.stack(sums).reshape(context.aligned), None, None


def _stacked_alike(results: list[torch.Tensor]) -> torch.Tensor:
    """[K, ...] whose rows lie in memory as each trial's own result does: a sum adds up in that order.

    So with the dimensions in their order, what is repeated only repeated, and gaps where there are some.
    """
    first = results[0]
    if first.is_contiguous():
        return torch.stack(results)
    strides = first.stride()
    order = sorted(range(first.dim()), key=lambda dim: -strides[dim])
    once = tuple(slice(None) if stride else slice(0, 1) for stride in strides)
    parts = [result[once].permute(order) for result in results]
    stacked = torch.stack(parts)
    if parts[0].stride(-1) > 1:
        stacked = torch.stack([stacked, stacked], -1)[..., 0]
    elif not parts[0].is_contiguous():
        stacked = torch.nn.functional.pad(stacked, (0, 1))[..., :-1]
    stacked = stacked.permute(0, *(1 + order.index(dim) for dim in range(first.dim())))
    if stacked.shape[1:] == first.shape:
        return stacked
    repeated: torch.Tensor = _Spread.apply(stacked, tuple(first.shape), tuple(stacked.shape))  # type: ignore[no-untyped-call]
    return repeated


def _rows(stacked: torch.Tensor) -> Sequence[torch.Tensor]:
    """The value of each trial. CUDA libraries choose a kernel by where a tensor starts, and alone it starts aligned."""
    rows = stacked.unbind(0)
    aligned = not stacked.is_cuda or stacked.stride(0) * stacked.element_size() % _ALIGNED == 0
    return rows if aligned else [row.clone() for row in rows]


def _in_checkpoint() -> bool:
    """Whether what runs now is to be computed again in the backward pass, by torch's hooks on saved tensors."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


@functools.cache
def name_of(function: Any) -> str:
    """What a torch function is called in the table of rules: "add", "get:T", "__getitem__"."""
    if isinstance(function, torch._ops.OpOverload):
        return function._schema.name.split("::")[1]
    name = str(getattr(function, "__name__", function))
    return f"{name.strip('_')}:{function.__self__.__name__}" if name in ("__get__", "__set__") else name


def _is_composite(function: Any) -> bool:
    """Whether torch wrote it in Python: then its inner calls are those that rules are for."""
    if not isinstance(function, types.FunctionType) or not str(function.__module__).startswith("torch"):
        return False
    return any(name in function.__globals__ for name in _CHECKS)


_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _opened(function: types.FunctionType) -> Any:
    """The same function, but it does not stop to hand itself over as a whole."""
    inside = dict(function.__globals__)
    inside.update({name: lambda *_: False for name in _CHECKS if name in inside})
    opened = types.FunctionType(
        function.__code__, inside, function.__name__, function.__defaults__, function.__closure__
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened
