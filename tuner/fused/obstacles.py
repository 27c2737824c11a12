"""What keeps trials from training together: kinds of models that are known, and errors on the way to a group."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tuner.errors import NotFusible
from tuner.fused.sharing import copied
from tuner.training.compiled import compiled_loss, compiled_parts
from tuner.training.endings import ending, is_out_of_memory
from tuner.training.first_loss import left_as_it_was
from tuner.training.precision import AUTOCAST, computing
from tuner.training.randomness import callers_generators_restored
from tuner.training.trial_run import TrialRun

_PLAIN = "use the module itself; --profile fast compiles trials together"
_ON_GRADIENTS = ("_backward_hooks", "_backward_pre_hooks")  # of modules
_ON_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def check_obstacles(model: torch.nn.Module, loss: Callable[..., Any] | None = None) -> None:
    """Raise NotFusible, naming the part of the model, for TorchScript, compiled modules and hooks on gradients.

    Gradients of trials together come from a recording, which calls no hook; TorchScript cannot be looked into.
    loss: of the workload, which may be compiled itself.
    """
    found = next(_obstacles(model), "")
    if not found and loss is not None and compiled_loss(loss) is not None:
        found = f"the loss is made by torch.compile: {_PLAIN.replace('module', 'function')}"
    if found:
        raise NotFusible(found)


def check_scale(run: TrialRun) -> None:
    """Raise NotFusible for trials in fp16: each skips updates of its own, and would fall out of step."""
    if run.scale is not None:
        raise NotFusible(
            "in fp16 each trial has a loss scale of its own and skips updates that its mates make, so its trials train "
            'one by one; precision="bf16" needs no scale, and trains together'
        )


def _obstacles(model: torch.nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        part = f"module {name}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            yield f"{part} is TorchScript, whose inside cannot be recorded: use the module that it was made from"
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag) and module.sparse:
            yield f"{part} has sparse gradients, which a stack of trials does not: write sparse=False"
        if any(getattr(module, kind, None) for kind in _ON_GRADIENTS):
            yield f"{part} has a backward hook, which a recording does not call: change the value in forward instead"
    for part, _ in compiled_parts(model):
        yield f"{part} is made by torch.compile: {_PLAIN}"
    for name, parameter in model.named_parameters():
        if any(getattr(parameter, kind, None) for kind in _ON_TENSORS):
            yield (
                f"parameter {name} has a hook on its gradient, which a recording does not call: scale the value in "
                "forward or the loss instead, or clip by the hyperparameter clip_norm"
            )


def other_bits(run: TrialRun, difference: str) -> str:
    """Why a group is refused whose bits are not those of its trials alone."""
    precision = run.rule.precision
    why = " (the loss runs under torch.autocast, whose casts fall otherwise there)" if _casts(run) else ""
    if precision in AUTOCAST:
        why = f" (in {precision}: the casts of torch.autocast fall otherwise there)"
    return f"trained together the bits are not those of each trial alone{why}: {difference}"


def _casts(run: TrialRun) -> bool:
    """Whether an operation of the loss runs under autocast. Changes nothing."""
    workload, watch = run.setup.workload, _Watch(run.setup.device.type)
    model = copied(run.model)
    # An augmentation is left out, and a loss may miss it; then what was seen until there has to do.
    computing_so = computing(run.rule.precision, run.setup.device)
    with (
        callers_generators_restored(run.setup.device),
        left_as_it_was(workload),
        suppress(Exception),
        computing_so,
        watch,
    ):
        workload.loss(model, run.batches.at(run.step), run.point)
    return watch.casts


class _Watch(TorchFunctionMode):
    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.casts = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.casts = self.casts or torch.is_autocast_enabled(self.device_type)
        return func(*args, **(kwargs or {}))


def refusal(error: Exception, when: str) -> NotFusible:
    """What an error of the user's code is for a group: trained alone, each trial shows it, or does not have it.

    Raises the error again when it is the machine's, or when fewer trials may have memory enough.
    """
    if isinstance(error, NotFusible):
        return error
    if is_out_of_memory(error):
        raise error
    ending(error)
    return NotFusible(f"{type(error).__name__} {when}: {error}")
