"""What an optimizer is: one record, from its settings to the kernel that updates many trials at once.

The optimizers of this package stand in `tuner.optimizers`, one file each; plugins and study files register more.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from tuner.design.adapters import ADAPTER_FAMILIES
from tuner.design.hyperparameters import REGULARIZERS, SHARES_OF_CAPTIONS, Family, Range
from tuner.errors import DeclarationError
from tuner.registry import Registry, Source
from tuner.sources.places import kind_of

CONSTANT = "constant"  # the name of the schedule under which the rate does not change after its warmup

# Hyperparameters that the trainer reads whatever the optimizer is, with their families.
TRAINER_FAMILIES: dict[str, Family] = {
    "optimizer": "optimizer",
    "learning_rate": "optimizer",
    "clip_norm": "optimizer",
    "batch_size": "optimizer",
    "ema_steps": "optimizer",
    "precision": "optimizer",
    "warmup_steps": "warmup",
    "decay_fraction": "schedule",
}


class ParameterGroup(TypedDict):
    """Parameters that are trained alike. rate, decay: multiples of the step's learning rate and of `weight_decay`.

    rule: by which of its rules an optimizer that has several updates them; `OptimizerSpec.divide` sets it.
    """

    params: list[Any]
    rate: float
    decay: float
    rule: NotRequired[str]


Groups = Sequence[ParameterGroup]


def one_group(parameters: Iterable[Any]) -> list[ParameterGroup]:
    """All parameters, with the step's learning rate and the whole weight decay."""
    return [ParameterGroup(params=list(parameters), rate=1.0, decay=1.0)]


def torch_groups(groups: Groups, rate: float, weight_decay: float | None = None) -> list[dict[str, Any]]:
    """Groups as a torch optimizer takes them, with what differs from the arguments of the optimizer alone.

    rate: the learning rate of the first step. weight_decay: that of the point; None for an optimizer that has none.
    """
    made = []
    for group in groups:
        one: dict[str, Any] = {"params": group["params"]}
        if group["rate"] != 1.0:
            one |= {"lr": rate * group["rate"], "lr_factor": group["rate"]}
        if weight_decay is not None and group["decay"] != 1.0:
            one["weight_decay"] = weight_decay * group["decay"]
        made.append(one)
    return made


def package_of(package: str, extra: str, optimizer: str) -> Any:
    """The module of a package that an optimizer is made of. Raises DeclarationError with the line that installs it."""
    try:
        return import_module(package)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "is not installed" if missing else f"cannot be imported ({error})"
        raise DeclarationError(
            f"the optimizer {optimizer} is made of {package}, which {why}: pip install 'tuner[{extra}]', or take "
            "another optimizer"
        ) from error


NEEDS_CLOSURE = (
    "its step needs a closure, which computes the loss again and again; an update here is one loss, one backward pass "
    "and one step, so take an optimizer whose step() can be called alone"
)


@dataclass(frozen=True, eq=False)
class OptimizerSetting:
    """A hyperparameter that an optimizer reads.

    is_number: whether it is a number whose best value depends on the others; False for a switch.
    same_as: another setting that says the same in another way; a search space declares one of the two.
    """

    name: str
    family: Family = "optimizer"
    is_number: bool = True
    same_as: str = ""


@dataclass(frozen=True, eq=False)
class OptimizerSpec:
    """An optimizer by its name. Nothing here imports torch; the functions do when they are called.

    name: under which studies and points are stored; it never changes.
    settings: the hyperparameters that it reads, besides the learning rate.
    build: of the groups of trained parameters, the values of a point (by short names), the learning rate of the first
        step, and whether torch's fused kernels may be used: a torch optimizer (`torch_groups` makes its groups). The
        trainer writes the learning rate of each step into every parameter group as "lr", times the group's "lr_factor"
        where it has one.
    divide: of the groups and the model, the groups that `build` gets, divided further by what the parameters are in
        the model. Raises WorkloadError for a model that it cannot train. None: they are built as they are.
    shows: of an optimizer that was built, a context in which the weights that it wants evaluated, kept and exported
        stand in the parameters; after it those that it trains are there again, to the bit. None: they are the same.
    averages: whether what it shows is an average over steps, which is late by construction.
    only_constant: why it trains under `constant()` alone, with or without warmup; "" where it takes every schedule.
    package, extra: a distribution that it is made of, besides torch, and the extra of tuner that installs it. The
        version is part of the Numerics of a trial.
    tells: of an optimizer that was built, what to know before it trains; "" for nothing.
    slow: why its step takes long on some processors; where there is a reason, the first look measures it.
    settle_sparse: makes the sparse gradients of some parameters into what the optimizer takes; None: it takes none.
    row_update: a faster way for stacked trials; without it each trial's own optimizer makes its step. It takes the rows
        of one parameter group (`tuner.fused.optimizers.RowGroup`) and a trial's place among them, and returns a
        function of the learning rate (a float, or a float32 scalar on the device). That function makes one update of
        the trial, with the bits that `step` of the built optimizer gives the trial alone. Raises NotFusible where the
        built optimizer cannot be updated so.
    slots: for `row_update`: of an optimizer that was built, the names under which its state has a tensor as large as
        the parameter, for each parameter, once it has made a step.
    counts_steps: for `row_update`: whether its state has a float32 scalar "step" for each parameter, as torch's Adam.
    ranges: of the learning rate and of settings that are numbers, ranges to begin a search with.
    state: bytes that it keeps for a float32 parameter, in words. note: what else to know of it, in words.
    reads_point: whether it may read any hyperparameter, besides its settings. made_of: the class or the function that a
        study gave instead of a name.
    """

    name: str
    settings: tuple[OptimizerSetting, ...]
    build: Callable[[Groups, Mapping[str, Any], float, bool], Any]
    slots: Callable[[Any], tuple[str, ...]] = lambda optimizer: ()
    counts_steps: bool = False
    divide: Callable[[Groups, Any], Groups] | None = None
    shows: Callable[[Any], AbstractContextManager[None]] | None = None
    averages: bool = False
    only_constant: str = ""
    package: str = ""
    extra: str = ""
    tells: Callable[[Any], str] | None = None
    slow: str = ""
    settle_sparse: Callable[[Any, list[Any]], None] | None = None
    row_update: Callable[[Any, int], Callable[[Any], None]] | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    state: str = ""
    note: str = ""
    reads_point: bool = False
    made_of: Any = None

    def check_schedule(self, schedule: str, declared: Collection[str]) -> None:
        """Raise DeclarationError for a schedule, by its name, that the optimizer does not go with.

        declared: the short names that the search spaces give a value or a range.
        """
        if self.only_constant and (schedule != CONSTANT or "decay_fraction" in declared):
            got = f"decay_fraction of {schedule}()" if "decay_fraction" in declared else f"{schedule}()"
            raise DeclarationError(
                f"{self.name} trains under schedule=constant() alone, with warmup or without, got {got}: "
                f"{self.only_constant}; write schedule=constant(), or take another optimizer"
            )

    def setting(self, name: str) -> OptimizerSetting | None:
        """The setting of this (short) name, if it has one."""
        return next((setting for setting in self.settings if setting.name == name), None)


OPTIMIZERS = Registry(
    "optimizer", OptimizerSpec, package="tuner.optimizers", order=lambda spec: spec.name, error=DeclarationError
)


_MADE: dict[str, tuple[OptimizerSpec, Source]] = {}  # made of the classes and functions that studies gave
# What a torch optimizer's __init__ takes and no point gives: the parameters, the study's rate, and ways to compute.
_NOT_OF_A_POINT = ("self", "params", "lr", "foreach", "fused", "capturable", "differentiable", "maximize")
_GIVEN = (
    "a name, a class like torch.optim.RMSprop, or a function of (groups, point) that returns a torch.optim.Optimizer"
)


def optimizer_named(given: object) -> str:
    """The name of what a study gives as its optimizer; a class or a function is registered under a name of its own.

    That name is "torch.optim.RMSprop", or the name of the user's file and of what stands in it,
    "digits.make_optimizer". Raises DeclarationError for an unknown name, and for what cannot be used.
    """
    if isinstance(given, str):
        return optimizer_of(given).name
    if not callable(given) or _is_torch_optimizer(type(given)):
        kind = "an optimizer of one model's parameters" if _is_torch_optimizer(type(given)) else repr(given)
        raise DeclarationError(f"optimizer is {_GIVEN}, got {kind}")
    name, source = _name_of(given)
    known = _MADE.get(name)
    if known is not None and not known[1].is_same(source):
        raise DeclarationError(f"the optimizer {name} stands in two files: {known[1]} and {source}; rename one")
    _MADE[name] = _of_class(name, given) if isinstance(given, type) else _of_function(name, given), source
    return name


def is_known(name: object) -> bool:
    """Whether there is a record of this name in this process."""
    return name in _MADE or name in OPTIMIZERS


def optimizer_of(name: object) -> OptimizerSpec:
    """The record of a name. Raises DeclarationError with the known names."""
    return _MADE[str(name)][0] if name in _MADE else OPTIMIZERS.get(name)


def source_of(name: str) -> Source:
    """The module that a record comes from, or the class or function that it is made of."""
    return _MADE[name][1] if name in _MADE else OPTIMIZERS.source_of(name)


def needs_closure(kind: Any) -> bool:
    """Whether the step of an optimizer's class cannot be made without a closure, as that of torch.optim.LBFGS."""
    parameters = list(inspect.signature(kind.step).parameters.values())[1:]
    return any(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)


def _of_class(name: str, kind: type) -> OptimizerSpec:
    if not _is_torch_optimizer(kind):
        raise DeclarationError(f"optimizer is {_GIVEN}, got the class {name}, which is no torch.optim.Optimizer")
    if needs_closure(kind):
        raise DeclarationError(f"{name} cannot train here: {NEEDS_CLOSURE}")
    known = inspect.signature(kind).parameters
    if "lr" not in known:
        raise DeclarationError(
            f"{name} has no lr, so that the learning rate of the study would not reach it; give a function of "
            "(groups, point) that makes the optimizer"
        )
    keywords = [one for one in known if one not in _NOT_OF_A_POINT]
    settings = [OptimizerSetting(one, "regularization" if one in REGULARIZERS else "optimizer") for one in keywords]
    return OptimizerSpec(name, tuple(settings), partial(_call_class, kind, keywords), made_of=kind)


def _call_class(
    kind: Any, keywords: Sequence[str], groups: Groups, values: Mapping[str, Any], rate: float, _: bool
) -> Any:
    """The class with what the point has of its keywords. Weight decay is 0 where the point has none (D2)."""
    given = {name: values[name] for name in keywords if name in values}
    if "weight_decay" not in keywords:
        return kind(torch_groups(groups, rate), lr=rate, **given)
    given.setdefault("weight_decay", 0.0)
    return kind(torch_groups(groups, rate, given["weight_decay"]), lr=rate, **given)


def _of_function(name: str, function: Any) -> OptimizerSpec:
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError) as error:
        raise DeclarationError(f"optimizer is {_GIVEN}, got {name}, which cannot be called so: {error}") from None
    return OptimizerSpec(name, (), partial(_call_function, function), reads_point=True, made_of=function)


def _call_function(function: Any, groups: Groups, values: Mapping[str, Any], rate: float, _: bool) -> Any:
    """The function with groups as torch has them: params, lr, lr_factor, and weight_decay where the point has one."""
    decay = values.get("weight_decay")
    given = torch_groups(groups, rate, decay)
    for group in given:
        group.setdefault("lr", rate)
        if decay is not None:
            group.setdefault("weight_decay", decay)
    return function(given, values)


def _name_of(given: Any) -> tuple[str, Source]:
    """The name of a class or a function, and the module that it stands in."""
    named, module = getattr(given, "__qualname__", ""), str(getattr(given, "__module__", ""))
    if not named or not _is_found(given, module, named):
        raise DeclarationError(
            f"an optimizer is stored by its name, and {named or repr(given)} has none that finds it again; write a "
            "function at the top level of the study file: def make_optimizer(groups, point)"
        )
    file = str(getattr(sys.modules.get(module), "__file__", None) or "")
    file = file if Path(file).is_file() else ""  # "<stdin>"
    if not file or kind_of(Path(file)) == "own":
        stem = Path(file).stem
        return f"{stem if stem not in ('', '__init__') else module.rpartition('.')[2]}.{named}", Source(module, file)
    parts = module.split(".")
    outer = (".".join(parts[:length]) for length in range(1, len(parts)))
    found = (each for each in outer if getattr(sys.modules.get(each), named, None) is given)
    return f"{next(found, module)}.{named}", Source(module, file)


def _is_found(given: Any, module: str, named: str) -> bool:
    """Whether its module has it under its name. A method of an object has not: what the object holds is in no name."""
    found: Any = sys.modules.get(module)
    for part in named.split("."):
        found = getattr(found, part, None)
    return bool(found == given)


def _is_torch_optimizer(kind: type) -> bool:
    return any((base.__module__, base.__name__) == ("torch.optim.optimizer", "Optimizer") for base in kind.__mro__)


def default_family(name: str) -> Family | None:
    """The family of a (short) name everybody uses; None for a user's own name.

    Settings of plugins are left out: the family of a name must not depend on what is installed.
    """
    if name in SHARES_OF_CAPTIONS:
        return "augmentation"
    if name in REGULARIZERS or name in TRAINER_FAMILIES:
        return "regularization" if name in REGULARIZERS else TRAINER_FAMILIES[name]
    if name in ADAPTER_FAMILIES:
        return ADAPTER_FAMILIES[name]
    settings = (spec.setting(name) for spec in OPTIMIZERS.own)
    return next((setting.family for setting in settings if setting is not None), None)


def read_by_trainer() -> frozenset[str]:
    """The short names of all hyperparameters that the trainer or an optimizer reads."""
    return frozenset(TRAINER_FAMILIES) | {setting.name for spec in OPTIMIZERS for setting in spec.settings}


def optimizer_numbers() -> frozenset[str]:
    """The learning rate and the settings of this package's optimizers that are numbers: usually nuisances (B12)."""
    settings = (setting for spec in OPTIMIZERS.own for setting in spec.settings)
    return frozenset(["learning_rate", *(one.name for one in settings if one.is_number and one.family == "optimizer")])
