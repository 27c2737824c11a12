"""The torch optimizer of a point, made by the record of its name, and what the trainer must know of it."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakKeyDictionary

import torch

from tuner.design.optimizers import (
    NEEDS_CLOSURE,
    OPTIMIZERS,
    Groups,
    OptimizerSpec,
    is_known,
    needs_closure,
    optimizer_of,
    source_of,
)
from tuner.design.study import Study
from tuner.errors import TunerError, WorkloadError
from tuner.training.compiler import plain_step
from tuner.training.endings import first_line
from tuner.training.saving import num_bytes

_MADE_BY: WeakKeyDictionary[torch.optim.Optimizer, OptimizerSpec] = WeakKeyDictionary()


class OptimizerNotMade(RuntimeError):
    """An optimizer refused its settings at some point: an error of the trial."""


def make_optimizer(
    name: object,
    groups: Groups,
    point: Mapping[str, Any],
    learning_rate: float,
    model: torch.nn.Module | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of a point. The trainer writes the learning rate of each step into its parameter groups.

    groups: of trained parameters; one that has none is left out. model: what the parameters are in it, and their names.

    Raises DeclarationError for an unknown name; WorkloadError where there is nothing to train, or where the record of
    the name, or the function of the study, makes what the trainer cannot use; OptimizerNotMade for what it raises.
    """
    spec = optimizer_of(name)
    groups = [group for group in groups if group["params"]]
    trained = [parameter for group in groups for parameter in group["params"]]
    if not trained:
        raise WorkloadError(
            "the model has no parameter to train: it has none at all, each has requires_grad=False, or they stand in "
            "a plain list or dict, where torch does not find them (write nn.ParameterList or nn.ModuleList)"
        )
    if spec.divide is not None:
        groups = spec.divide(groups, model)
    try:
        optimizer: torch.optim.Optimizer = spec.build(groups, point, learning_rate, fused_is_right(trained))
    except TunerError:
        raise
    except Exception as error:
        said = first_line(error)
        if isinstance(error, KeyError) and error.args and error.args[0] not in point:
            said += f", which the search space does not declare; there are: {', '.join(point)}"
        raise OptimizerNotMade(f"the optimizer {spec.name} cannot be made: {type(error).__name__}: {said}") from error
    _check_type(spec, optimizer)
    if not source_of(spec.name).is_own:
        names = {id(parameter): name for name, parameter in model.named_parameters()} if model is not None else {}
        _check_parameters(spec, optimizer, trained, names)
        _check_multiples(spec, optimizer, groups, point)
        _check_rates(spec, optimizer, [learning_rate, point.get("learning_rate", learning_rate)])
    _MADE_BY[optimizer] = spec
    return optimizer


def _check_type(spec: OptimizerSpec, made: object) -> None:
    if isinstance(made, torch.optim.Optimizer):
        if needs_closure(type(made)):
            raise WorkloadError(
                f"{_whose(spec)} makes a {type(made).__name__}, which cannot train here: {NEEDS_CLOSURE}"
            )
        return
    got, hint = repr(made).partition("\n")[0], ""
    if isinstance(made, tuple | list | dict):
        got = f"a {type(made).__name__}"
        hint = "; the optimizer alone: the schedule is the study's (schedule= of the Campaign)"
    elif isinstance(made, type):
        hint = "; call the class with the groups"
    raise WorkloadError(f"{_whose(spec)} must build a torch.optim.Optimizer, got {got}{hint}")


def _check_parameters(
    spec: OptimizerSpec, optimizer: torch.optim.Optimizer, trained: Sequence[Any], names: Mapping[int, str]
) -> None:
    """Every trained parameter once, and no other one."""
    taken = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted, got = {id(parameter) for parameter in trained}, {id(parameter) for parameter in taken}

    def named(found: Iterable[Any]) -> str:
        return ", ".join([names.get(id(one), f"one of the form {tuple(one.shape)}") for one in found][:3])

    if missing := [parameter for parameter in trained if id(parameter) not in got]:
        raise WorkloadError(
            f"{_whose(spec)} leaves out parameters of the model: {named(missing)}; hand on all groups, and freeze a "
            "parameter in model() with requires_grad_(False)"
        )
    if foreign := [parameter for parameter in taken if id(parameter) not in wanted]:
        raise WorkloadError(
            f"{_whose(spec)} takes tensors that are no trained parameters of the model: {named(foreign)}; make it of "
            "the groups that it is given"
        )


def _check_multiples(
    spec: OptimizerSpec, optimizer: torch.optim.Optimizer, groups: Groups, point: Mapping[str, Any]
) -> None:
    """What the workload declared of its parameter groups must reach the optimizer."""
    made = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    decay = point.get("weight_decay", 0.0)
    for group in groups:
        for own in (made[id(parameter)] for parameter in group["params"]):
            if group["rate"] != 1.0 and own.get("lr_factor") != group["rate"]:
                raise WorkloadError(
                    f"{_whose(spec)} loses the rate {group['rate']:g} of a parameter group; hand on the groups as they "
                    'are given, with their "lr_factor"'
                )
            if decay and group["decay"] != 1.0 and own.get("weight_decay") != decay * group["decay"]:
                raise WorkloadError(
                    f"{_whose(spec)} loses the weight decay {decay * group['decay']:g} of a parameter group; hand on "
                    'the groups as they are given, with their "weight_decay"'
                )


def _check_rates(spec: OptimizerSpec, optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """The learning rates of what a study gave itself: those of the study, or multiples as "lr_factor"."""
    if spec.made_of is None:
        return
    for group in optimizer.param_groups:
        if "lr" not in group:
            raise WorkloadError(
                f'{_whose(spec)} makes a {type(optimizer).__name__} without "lr", so that the learning rate of the '
                "study would not reach it"
            )
        wanted = [rate * group.get("lr_factor", 1.0) for rate in rates]
        if not any(math.isclose(float(group["lr"]), rate, rel_tol=1e-6) for rate in wanted):
            raise WorkloadError(
                f"{_whose(spec)} sets the learning rate {float(group['lr']):g}, and that of the study is "
                f'{wanted[0]:g}: the schedule is the study\'s; leave "lr" as it is given, and write a multiple as '
                '"lr_factor"'
            )


def _whose(spec: OptimizerSpec) -> str:
    """What made an optimizer, for messages."""
    if spec.made_of is not None:
        return f"the {'class' if isinstance(spec.made_of, type) else 'function'} {spec.name}"
    return f"the optimizer {spec.name!r} of {source_of(spec.name)}"


def spec_of(optimizer: torch.optim.Optimizer) -> OptimizerSpec:
    """The record that an optimizer was made by."""
    return _MADE_BY[optimizer]


def settle_sparse(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Make sparse gradients, where there are any, into what the optimizer takes. To be called before each step.

    Raises TypeError for an optimizer that takes no sparse gradients.
    """
    sparse = [parameter for parameter in parameters if parameter.grad is not None and parameter.grad.is_sparse]
    if not sparse:
        return
    _leave_unchecked()
    spec = spec_of(optimizer)
    if spec.settle_sparse is not None:
        spec.settle_sparse(optimizer, sparse)
    elif spec.made_of is not None:  # it knows itself what it takes
        for parameter in sparse:
            parameter.grad = None if parameter.grad is None else parameter.grad.coalesce()
    else:
        others = [repr(one.name) for one in OPTIMIZERS if one.settle_sparse is not None]
        raise TypeError(
            f"{spec.name} takes no sparse gradients, and a parameter of the form {tuple(sparse[0].shape)} has one: "
            f"write sparse=False where the model makes its embedding, or take one that does: {', '.join(others)}, or "
            "torch.optim.SparseAdam where all gradients are sparse"
        )


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the tensors that an optimizer keeps once each parameter has had a gradient.

    Measured: a copy of the optimizer, with copies of the parameters, makes a step with gradients of zeros. A tensor
    that is kept for several parameters counts once.
    """
    twin, parameters = twin_of(optimizer)
    for zeros in (torch.zeros_like, _no_rows):  # some take sparse gradients only
        for parameter in parameters:
            parameter.grad = zeros(parameter.detach())
        with suppress(Exception):
            plain_step(twin)()
            return kept_bytes(twin)
    return 2 * sum(parameter.nbytes for parameter in parameters)  # as Adam keeps


def kept_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the tensors that an optimizer keeps now; one that is kept for several parameters counts once."""
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return num_bytes(list({id(value): value for value in kept}.values()))


def twin_of(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, list[torch.Tensor]]:
    """A copy of an optimizer, and its parameters, which are copies too."""
    twin: torch.optim.Optimizer = object.__new__(type(optimizer))
    vars(twin).update(copy.deepcopy(vars(optimizer)))
    return twin, [parameter for group in twin.param_groups for parameter in group["params"]]


def packages_of_optimizers(study: Study) -> dict[str, str]:
    """The versions of the packages that the named optimizers of a study are made of, besides torch."""
    names = [name for name in (study.optimizer, *study.space.optimizers) if is_known(name)]
    packages = {optimizer_of(name).package for name in names} - {""}
    return {package: _version(package) for package in sorted(packages)}


def _version(package: str) -> str:
    """The version of a distribution; "" for one that is not installed, which is an error once an optimizer is made."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _leave_unchecked() -> None:
    """Say to torch that what its optimizers make of sparse tensors stays unchecked, as it is; else it warns of that."""
    if not torch.sparse.check_sparse_tensor_invariants.is_enabled():  # type: ignore[no-untyped-call]
        torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]


def _no_rows(parameter: torch.Tensor) -> torch.Tensor:
    """A sparse gradient without a value."""
    _leave_unchecked()
    places = torch.zeros(1, 0, dtype=torch.int64, device=parameter.device)
    return torch.sparse_coo_tensor(places, parameter.new_zeros(0, *parameter.shape[1:]), parameter.shape)


def fused_is_right(parameters: Iterable[torch.nn.Parameter]) -> bool:
    """Whether torch's fused kernels may be used.

    On the CPU the fused AdamW reads a gradient as if it were contiguous. Autograd gives a gradient the layout of
    its parameter, so contiguous parameters are safe and others are not (PyTorch 2.13, measured).
    """
    known = {"cpu", "cuda"}
    return all(
        p.is_contiguous() and p.is_floating_point() and p.device.type in known and not p.is_sparse for p in parameters
    )
