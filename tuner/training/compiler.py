"""torch's compiler, left out until something is compiled: importing it takes a second of each process.

torch wraps what it does not want to be compiled, and imports its compiler at the first call to mark
it. But nothing is compiled before the compiler is imported, and then these functions are wrapped as torch does it.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

_CACHED = "__dynamo_disable"  # where torch keeps a function that it has wrapped (torch/_compile.py)
_OF_OPTIMIZERS = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")


def spare_compiler_in_optimizers() -> None:
    """Have optimizers be made, saved and loaded without importing `torch._dynamo`, in all of this process."""
    for name in _OF_OPTIMIZERS:
        spare_compiler(getattr(torch.optim.Optimizer, name))


def spare_compiler(wrapped: Any) -> None:
    """Have a function that torch keeps out of what it compiles work without importing `torch._dynamo`."""
    plain = getattr(wrapped, "__wrapped__", None)
    if plain is None or hasattr(plain, _CACHED):
        return

    def call(*args: Any, **named: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return plain(*args, **named)
        if hasattr(plain, _CACHED):
            delattr(plain, _CACHED)
        return wrapped(*args, **named)

    setattr(plain, _CACHED, call)


_PLAIN = ("torch.optim.", "tuner.optimizers.")  # modules whose steps mean the same without what is wrapped around them


def plain_step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """`optimizer.step` with its hooks, without what torch wraps around it for its profiler and compiler.

    The step of an optimizer from elsewhere is called as it is: it may be wrapped in what decides its update.
    """
    wrapped = type(optimizer).step
    if "step" in vars(optimizer) or not wrapped.__module__.startswith(_PLAIN):
        return torch.no_grad()(optimizer.step)
    step, before, after = (
        inspect.unwrap(wrapped),
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
    )

    def hooked() -> object:
        for hook in before.values():
            hook(optimizer, (), {})
        with torch.no_grad():
            result = step(optimizer)
        for hook in after.values():
            hook(optimizer, (), {})
        return result

    return hooked
