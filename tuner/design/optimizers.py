"""What an optimizer is: one record, from its settings to the kernel that updates many trials at once.

The optimizers of this package stand in `tuner.optimizers`, one file each; plugins and study files register more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from tuner.design.hyperparameters import REGULARIZERS, Family
from tuner.errors import DeclarationError
from tuner.registry import Registry

# Hyperparameters that the trainer reads whatever the optimizer is, with their families.
TRAINER_FAMILIES: dict[str, Family] = {
    "optimizer": "optimizer",
    "learning_rate": "optimizer",
    "clip_norm": "optimizer",
    "batch_size": "optimizer",
    "warmup_steps": "warmup",
    "decay_fraction": "schedule",
}


class ParameterGroup(TypedDict):
    """Parameters that are trained alike. rate, decay: multiples of the step's learning rate and of `weight_decay`."""

    params: list[Any]
    rate: float
    decay: float


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
    slots: of an optimizer that was built, the names under which its state has a tensor as large as the parameter,
        for each parameter, once it has made a step.
    counts_steps: whether its state has a float32 scalar "step" for each parameter, as torch's Adam has.
    settle_sparse: makes the sparse gradients of some parameters into what the optimizer takes; None: it takes none.
    row_update: for an optimizer with one parameter group. It takes the rows of stacked trials
        (`tuner.fused.optimizers.RowOptimizer`) and a trial's place among them, and returns a function of the learning
        rate (a float, or a float32 scalar on the device). That function makes one update of the trial, with the bits
        that `step` of the built optimizer gives the trial alone. None: such trials are trained one by one. Raises
        NotFusible where the built optimizer cannot be updated so.
    """

    name: str
    settings: tuple[OptimizerSetting, ...]
    build: Callable[[Groups, Mapping[str, Any], float, bool], Any]
    slots: Callable[[Any], tuple[str, ...]]
    counts_steps: bool = False
    settle_sparse: Callable[[Any, list[Any]], None] | None = None
    row_update: Callable[[Any, int], Callable[[Any], None]] | None = None

    def setting(self, name: str) -> OptimizerSetting | None:
        """The setting of this (short) name, if it has one."""
        return next((setting for setting in self.settings if setting.name == name), None)


OPTIMIZERS = Registry(
    "optimizer", OptimizerSpec, package="tuner.optimizers", order=lambda spec: spec.name, error=DeclarationError
)


def default_family(name: str) -> Family | None:
    """The family of a (short) name everybody uses; None for a user's own name.

    Settings of plugins are left out: the family of a name must not depend on what is installed.
    """
    if name in REGULARIZERS or name in TRAINER_FAMILIES:
        return "regularization" if name in REGULARIZERS else TRAINER_FAMILIES[name]
    settings = (spec.setting(name) for spec in OPTIMIZERS.own)
    return next((setting.family for setting in settings if setting is not None), None)


def read_by_trainer() -> frozenset[str]:
    """The short names of all hyperparameters that the trainer or an optimizer reads."""
    return frozenset(TRAINER_FAMILIES) | {setting.name for spec in OPTIMIZERS for setting in spec.settings}


def optimizer_numbers() -> frozenset[str]:
    """The learning rate and the settings of this package's optimizers that are numbers: usually nuisances (B12)."""
    settings = (setting for spec in OPTIMIZERS.own for setting in spec.settings)
    return frozenset(["learning_rate", *(one.name for one in settings if one.is_number and one.family == "optimizer")])
