"""A model in shards: which modules are gathered at a time, what cannot be cut, and the rows that this rank keeps.

`torch.distributed.fsdp.fully_shard` (FSDP2) cuts each parameter along its first dimension. For its forward and its
backward pass a unit gathers its whole parameters from all ranks, and lets them go again; its gradients are summed over
the ranks, and each rank gets its rows of the sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.errors import WorkloadError
from tuner.training.compiled import compiler_of
from tuner.training.models import model_at, shown_point
from tuner.training.setup import TrainingSetup

# Optimizers that change each number of a parameter by that number's own gradient and state alone, so that rows can be
# updated for themselves. Muon, Adafactor and the optimizers in 8 bits look at whole matrices, or at blocks of them.
BY_NUMBER = ("adagrad", "adam", "adamw", "lion", "nadam", "radam", "rmsprop", "schedule_free_adamw", "sgd")


@dataclass(frozen=True, slots=True)
class Shard:
    """A parameter of a model in shards. rows: those of this rank, in its memory; total: how many there are."""

    name: str
    parameter: nn.Parameter
    rows: nn.Parameter
    total: int


def model_and_units(setup: TrainingSetup, trial: Trial) -> tuple[nn.Module, list[nn.Module]]:
    """The model of a trial on the CPU, and its units. Raises WorkloadError, naming it, for what cannot be in shards."""
    workload = setup.workload
    check_optimizer(setup.optimizer_of(trial))
    check_precision(setup.precision_of(trial))
    model = model_at(workload, shown_point(trial.point), trial.seed, setup.data.training, setup.inherited)
    if compiler_of(model, workload.loss, setup.device):
        raise WorkloadError(
            f'{type(workload).__name__} is given to torch.compile, which shard="fsdp2" does not go with: leave '
            "torch.compile out"
        )
    units = units_of(workload, model)
    check_model(workload, model, units)
    return model, units


def check_optimizer(name: object) -> None:
    """Raise WorkloadError for an optimizer that cannot update rows for themselves."""
    if name not in BY_NUMBER:
        raise WorkloadError(
            f'the optimizer {name} does not go with shard="fsdp2": it has to update each row of a parameter without '
            f"the others, as these do: {', '.join(BY_NUMBER)}"
        )


def check_precision(precision: str) -> None:
    """Raise WorkloadError for a precision whose losses are scaled."""
    if precision == "fp16":
        raise WorkloadError(
            'precision="fp16" does not go with shard="fsdp2", where a rank sees its rows of a gradient alone, and '
            'cannot skip an update by itself: write precision="bf16"'
        )


def units_of(workload: Workload, model: nn.Module) -> list[nn.Module]:
    """The modules that are gathered one at a time; the model itself, with all that is left, is one more.

    They are what `Workload.shard` returns; without it the repeated blocks, which stand in a ModuleList, a ModuleDict or
    a Sequential that is in no other block. Raises WorkloadError for what is no module of the model.
    """
    if not workload.declares("shard"):
        return list(_blocks(model))
    what = f"{type(workload).__name__}.shard"
    found = workload.shard(model)
    if not isinstance(found, list | tuple) or not all(isinstance(one, nn.Module) for one in found):
        raise WorkloadError(f"{what} must return a list of modules of the model, got {found!r:.80}")
    own = {id(module) for module in model.modules()}
    foreign = next((one for one in found if id(one) not in own), None)
    if foreign is not None:
        raise WorkloadError(f"{what} returned a {type(foreign).__name__} that is no module of the model")
    return [one for one in dict.fromkeys(found) if one is not model and any(True for _ in one.parameters())]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    several = isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential)
    for child in module.children():
        holds_blocks = isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential)
        if not several or holds_blocks:
            yield from _blocks(child)
        elif any(True for _ in child.parameters()):
            yield child


def check_model(workload: Workload, model: nn.Module, units: Sequence[nn.Module]) -> None:
    """Raise WorkloadError, naming it, for what of a model cannot be in shards."""
    name = type(workload).__name__
    named = dict(model.named_modules())
    norm = next((at for at, one in named.items() if isinstance(one, _NormBase) and one.track_running_stats), None)
    if norm is not None:
        raise WorkloadError(
            f"{name}.model: {norm} keeps running statistics of its batches, which would differ from rank to rank; "
            'shard="fsdp2" goes with LayerNorm, RMSNorm and GroupNorm, or write track_running_stats=False'
        )
    sparse = next((at for at, one in named.items() if getattr(one, "sparse", False) is True), None)
    if sparse is not None:
        raise WorkloadError(
            f'{name}.model: {sparse} has sparse gradients, which shard="fsdp2" does not sum: write sparse=False'
        )
    single = next((at for at, one in model.named_parameters() if not one.dim()), None)
    if single is not None:
        raise WorkloadError(f"{name}.model: {single} has no dimension to cut; write torch.ones(1) in place of a number")
    _check_shared(name, model, units)


def _check_shared(name: str, model: nn.Module, units: Sequence[nn.Module]) -> None:
    """A parameter belongs to the innermost unit around it, and to one alone."""
    names = {id(module): at for at, module in model.named_modules()}
    unit_of: dict[int, str] = {}
    for unit in sorted(units, key=lambda one: -names[id(one)].count(".")):  # the innermost first
        for one in unit.parameters():
            unit_of.setdefault(id(one), names[id(unit)])
    for at, one in model.named_parameters(remove_duplicate=False):
        owner = unit_of.get(id(one))
        if owner is not None and not at.startswith(f"{owner}."):
            raise WorkloadError(
                f"{name}.model: {at} is a parameter of {owner}, too, which is gathered for itself: leave {owner} out "
                f"in {name}.shard(model), so that both are in one unit"
            )


def shard(model: nn.Module, units: Sequence[nn.Module], mesh: DeviceMesh) -> list[Shard]:
    """Cut the parameters of a model and move them to the device of the mesh, a unit at a time."""
    names = {id(module): at for at, module in model.named_modules()}
    for unit in sorted(units, key=lambda one: -names[id(one)].count(".")):  # an inner one before what is around it
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return [_shard(name, one) for name, one in model.named_parameters()]


def _shard(name: str, parameter: nn.Parameter) -> Shard:
    if not isinstance(parameter, DTensor):
        raise WorkloadError(f"{name} was not cut into shards")
    rows = nn.Parameter(parameter.to_local().detach(), requires_grad=parameter.requires_grad)
    return Shard(name, parameter, rows, int(parameter.shape[0]))
