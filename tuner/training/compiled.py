"""What a study gives to `torch.compile`: which part of it, by which compiler, and how its bits stay those of the trial.

Compiled code has the bits of its compiler, so the compiler is part of a trial's Numerics. torch keeps what it compiled
for a whole process, and that would let bits depend on what else was trained there:

- a second size of an input has it compile for any size, with other bits; here each size is compiled by itself;
- a function that was compiled eight times, for eight values of a hyperparameter say, is not compiled any more, in
  silence. Here each trial begins with nothing compiled, and beyond `MOST_FORMS` forms of one trial it is an error.
"""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from tuner.records import Numerics

MOST_FORMS = 64  # [P] of one function in a trial: sizes of batches, values that its code branches on
_MARK = "_torchdynamo_orig_callable"  # on whatever torch.compile returns: the callable that it was made of
_TIMED = ", kernels chosen by timing"
_INNER = "_orig_mod."  # in the names of what a module holds that torch.compile made


def is_compiled(thing: object) -> bool:
    """Whether a function, method or module is what `torch.compile` returned, or a module after its `compile()`."""
    return _MARK in getattr(thing, "__dict__", {}) or getattr(thing, "_compiled_call_impl", None) is not None


def without_compiler(name: str) -> str:
    """The name of a tensor in a model as it was before `torch.compile`: `_orig_mod.0.weight` is `0.weight`."""
    return name.replace(_INNER, "") if _INNER in name else name


def original(thing: Any) -> Any:
    """What a compiled function or module was made of; anything else as it is."""
    inner = getattr(thing, _MARK, None)
    return inner if inner is not None and is_compiled(thing) else thing


def compiled_parts(model: torch.nn.Module) -> Iterator[tuple[str, object]]:
    """The compiled parts of a model: names of modules, with what is compiled of each."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled yet in this process
        return
    for name, module in model.named_modules():
        plain = without_compiler(f"{name}.").rstrip(".")
        part = f"module {plain}" if plain else "the model"
        if is_compiled(module):
            yield part, module
            continue
        held = {"forward": type(module).forward, **vars(module)}
        functions = {key: getattr(one, "__func__", one) for key, one in held.items() if _is_function(one)}
        yield from ((f"{key} of {part}", one) for key, one in functions.items() if is_compiled(one))


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, torch.nn.Module)


def compiled_loss(loss: Callable[..., Any]) -> Callable[..., Any] | None:
    """The loss of a workload where it is compiled itself."""
    function = getattr(loss, "__func__", loss)
    return function if is_compiled(function) else None


def settle_compiler(model: torch.nn.Module, loss: Callable[..., Any], device: torch.device) -> None:
    """Have compiled parts of a model or loss keep to the bits of one trial. To be called before they are called."""
    if not _compiled_in(model, loss):
        return
    dynamo = sys.modules["torch._dynamo"].config
    dynamo.automatic_dynamic_shapes = False
    dynamo.recompile_limit = max(MOST_FORMS, dynamo.recompile_limit)
    dynamo.fail_on_recompile_limit_hit = True
    if device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        # No choice of kernels by timing them. It takes a second to import what compiles nothing in this process.
        inductor: Any = import_module("torch._inductor.config")
        inductor.deterministic = True


def compiler_of(model: torch.nn.Module, loss: Callable[..., Any], device: torch.device) -> str:
    """What decides the bits of the compiled parts of a model or loss, besides their code; "" where there are none."""
    found = _compiled_in(model, loss)
    if not found:
        return ""
    configs = [config for config in map(_config_of, found) if config]
    if not configs:
        return "torch.compile"
    tuned = any(config.get("max_autotune") or config.get("max_autotune_gemm") for config in configs)
    return f"inductor, {_tool(device.type)}" + (_TIMED if tuned else "")


def _compiled_in(model: torch.nn.Module, loss: Callable[..., Any]) -> list[object]:
    own = compiled_loss(loss)
    return [*(one for _, one in compiled_parts(model)), *([] if own is None else [own])]


def start_afresh() -> None:
    """Forget what was compiled in this process: a trial begins as it would in a process of its own."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def with_compiler(numerics: Numerics, compiler: str) -> Numerics:
    """The Numerics of a trial whose model or loss is compiled by this compiler."""
    if not compiler:
        return numerics
    return replace(Numerics.of(numerics.values | {"compiler": compiler}), exact=numerics.exact)


def repeats(compiler: str) -> bool:
    """Whether the same code is compiled to the same kernels each time."""
    return not compiler.endswith(_TIMED)


def _config_of(compiled: Any) -> dict[str, Any]:
    """The settings of torch's own compiler for a part; empty for another backend, which has none."""
    call = getattr(compiled, "_compiled_call_impl", None) or compiled
    ask = getattr(call, "get_compiler_config", None)
    return dict(ask() or {}) if callable(ask) else {}


@functools.cache
def _tool(device_type: str) -> str:
    """What torch's compiler has its kernels made by, with its version."""
    if device_type == "cuda":
        return f"triton {getattr(sys.modules.get('triton'), '__version__', 'unknown')}"
    try:
        called = [import_module("torch._inductor.cpp_builder").get_cpp_compiler(), "--version"]
        told = subprocess.run(called, capture_output=True, text=True, check=True).stdout  # noqa: S603
    except Exception:  # there is none, which the first call of the model says
        return "no C++ compiler"
    return told.partition("\n")[0].strip()
