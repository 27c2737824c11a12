"""The model of a trial: made from its seed on the CPU, so that every device starts alike.

Modules that make their parameters when they see a first batch (`nn.LazyLinear`) are given one before all else: the
optimizer needs parameters, and their first values have to be a function of the trial's seed alone, however the trial
is trained. The batch is always the first examples of the training split, on the CPU, under a seed of its own.
"""

from collections.abc import Mapping, Set
from contextlib import suppress
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from tuner.design.names import Name
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.errors import WorkloadError
from tuner.training.batches import Split
from tuner.training.compiled import settle_compiler
from tuner.training.extra_state import tensors_of
from tuner.training.inherited import StartWeights
from tuner.training.randomness import seed_global_generators
from tuner.training.setup import TrainingSetup
from tuner.training.tensor_digests import digest_of_tensors

_EXAMPLES = 2  # as few as batch norm takes
_CPU = torch.device("cpu")


def build_model(setup: TrainingSetup, trial: Trial) -> torch.nn.Module:
    """The trial's model on the device, initialized from its seed (on the CPU, so that every device starts alike)."""
    shown = shown_point(trial.point)
    model = model_at(setup.workload, shown, trial.seed, setup.data.training, setup.inherited).to(setup.device)
    settle_compiler(model, setup.workload.loss, setup.device)
    return model


def model_at(
    workload: Workload,
    point: Mapping[str, Any],
    seed: int,
    training: Split | None = None,
    inherited: StartWeights | None = None,
) -> torch.nn.Module:
    """A fresh model for what a workload is shown of a point, on the CPU.

    `training`: the split whose first examples make the parameters of lazy modules; without it they are not made.
    `inherited`: weights of an earlier stage, which are carried into the model. Raises WorkloadError where they do not
    fit.
    """
    seed_global_generators(derived_seed("initialization", seed), torch.device("cpu"))
    model = workload.model(point)
    if not isinstance(model, torch.nn.Module):
        name = type(workload).__name__
        raise WorkloadError(f"{name}.model must return a torch.nn.Module, got {type(model).__name__}")
    if training is not None:
        settle_lazy(model, workload, training, point, seed)
    if inherited is not None:
        inherited.into(model, point)
    return model


def initial_weights(model: torch.nn.Module) -> str:
    """A digest of all parameters and buffers."""
    return digest_of_tensors(tensors_of(model))


def shown_point(point: Point, *, averages: bool = False) -> dict[str, Any]:
    """The point as a dict for the hot loop: "sgd.learning_rate" can be read as "learning_rate" too.

    Without what shapes the schedule: trials that differ there alone have the same first steps, whatever a model does.
    And without what says how weights are averaged, unless the reader averages them itself (`averages`): trials that
    differ there alone are trained alike.
    """
    names = [(Name.of(name), name, value) for name, value in point.values_by_name]
    shown = {name: value for one, name, value in names if one.is_shown or (averages and one.is_of_the_averages)}
    return {Name.of(name).short: value for name, value in shown.items()} | shown


def settle_lazy(
    model: torch.nn.Module, workload: Workload, training: Split, point: Mapping[str, Any], seed: int
) -> None:
    """Have a model on the CPU make the parameters that it has not made yet. Does nothing to other models.

    The loss is computed in eval mode, which leaves running means as they are; only where that does not reach all parts,
    in train mode. Raises WorkloadError, naming the parameters that even then were not made.
    """
    if not _lazy_tensors(model):
        return
    data = training.tensors and tuple(tensor[:_EXAMPLES] for tensor in training.tensors)
    batch = Split(training.name, data or training.stream or training.dataset, _CPU, training.collate).first(_EXAMPLES)
    with suppress(Exception):  # a loss that wants to be in train mode, say; errors show there
        _forward(model.eval(), workload, batch, point, seed)
    if missing := _lazy_tensors(model):
        made = {name: buffer.clone() for name, buffer in model.named_buffers() if not is_lazy(buffer)}
        _forward(model.train(), workload, batch, point, seed)
        _as_before(model, made, {name.rpartition(".")[0] for name in missing})
    model.train()  # as a fresh module is
    left = _lazy_tensors(model)
    if left:
        raise WorkloadError(
            f"{type(workload).__name__}.model has parameters that a first batch does not make: {', '.join(left[:3])}; "
            "the loss never calls their modules: call them, or write the module with its sizes given"
        )


def _lazy_tensors(model: torch.nn.Module) -> list[str]:
    return [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]


def _forward(model: torch.nn.Module, workload: Workload, batch: Any, point: Mapping[str, Any], seed: int) -> None:
    seed_global_generators(derived_seed("lazy initialization", seed), _CPU)
    with torch.no_grad():  # in float32 whatever the precision of the trial: only forms of parameters are asked for
        workload.loss(model, batch, point)


def _as_before(model: torch.nn.Module, made: Mapping[str, torch.Tensor], new: Set[str]) -> None:
    """Undo what a pass in train mode did to running means, those of `new` modules too: it is no step."""
    for name in new:
        reset = getattr(model.get_submodule(name), "reset_running_stats", None)
        if callable(reset):
            reset()
    for name, buffer in model.named_buffers():
        if name in made:
            buffer.copy_(made[name])
