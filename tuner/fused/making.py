"""Making a group whose trials have the bits of each alone, or (profile "fast") their values up to rounding.

A few updates are made both ways on copies, and everything is compared. The fast rules are compiled where so much work
is ahead that this pays.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from tuner.errors import NotFusible
from tuner.fused import rules, rules_fast
from tuner.fused.counting import check_evaluation
from tuner.fused.group import Group
from tuner.fused.obstacles import check_obstacles, check_scale, other_bits, refusal
from tuner.fused.optimizers import cloned
from tuner.fused.recording import Recording
from tuner.fused.sharing import constants, tie
from tuner.training.averages import Averages
from tuner.training.copy_on_write import same_bits
from tuner.training.numerics import wait_for
from tuner.training.trial_run import TrialRun

UPDATES = 2  # the second is of another batch, so that a value that a recording froze shows
SAMPLE = 8  # trials of a group that are compared
ROUNDING = 1e-3  # of a loss: two updates apart by rounding, Adam's first steps included
Difference = Callable[[TrialRun, TrialRun], str | None]


def exact_group(runs: Sequence[TrialRun]) -> Group:
    """The trials stacked, by a way that keeps their bits. Raises NotFusible when there is none."""
    difference = None
    for care in range(3):
        group = Group(runs, care=care)
        difference = first_difference(group)
        if difference is None:
            return group
    raise NotFusible(other_bits(runs[0], str(difference)))


def first_difference(group: Group, difference_of: Difference | None = None) -> str | None:
    """What differs first between the group and its trials alone; None when nothing does. Changes nothing."""
    runs = group.runs
    chosen = [runs[len(runs) * place // SAMPLE] for place in range(SAMPLE)] if len(runs) > SAMPLE else runs
    updates = min(UPDATES, *(len(run.rates) - run.step for run in runs))
    alone = [_trained_alone(run, updates) for run in chosen]
    kept = group.snapshot()
    setup, group.setup = group.setup, replace(group.setup, stop=lambda: False)
    try:
        group.advance(updates)
        differences = [(difference_of or _difference)(run, other) for run, other in zip(chosen, alone, strict=True)]
    finally:
        group.setup = setup
        group.restore(kept)
    return next((difference for difference in differences if difference), None)


def far_from_alone(group: Group) -> str | None:
    """What differs between the group and its trials alone by more than rounding does; None when nothing. As above."""
    return first_difference(group, _far)


def _far(fused: TrialRun, alone: TrialRun) -> str | None:
    for mine, other in zip(fused.losses[-UPDATES:], alone.losses[-UPDATES:], strict=True):
        if not torch.allclose(mine, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True):
            return f"trial {fused.trial.number}: the loss, {float(mine)!r} instead of {float(other)!r}"
    return None


def _trained_alone(run: TrialRun, updates: int) -> TrialRun:
    """A copy of a trial, some updates later."""
    copy = TrialRun(replace(run.setup, stop=lambda: False), run.trial)
    tie(copy.model, constants(run.model))
    copy.batches = run.batches
    copy.load(run.state())
    copy.optimizer.load_state_dict(cloned(copy.optimizer.state_dict(), {}))
    copy.advance(run.step + updates)
    return copy


def _difference(fused: TrialRun, alone: TrialRun) -> str | None:
    """Names of what is not the same bits: a loss, gradient, parameter, buffer, average, or the optimizer's state."""
    number = f"trial {fused.trial.number}"
    pairs = zip(fused.losses[-UPDATES:], alone.losses[-UPDATES:], strict=True)
    for mine, other in pairs:
        if not _same(mine, other):
            return f"{number}: the loss, {float(mine)!r} instead of {float(other)!r}"
    for mine, other in zip(fused.norms[-UPDATES:], alone.norms[-UPDATES:], strict=True):
        if not _same(mine, other):
            return f"{number}: the norm of the gradient, {float(mine)!r} instead of {float(other)!r}"
    return (
        _model_difference(number, fused.model, alone.model)
        or _optimizer_difference(number, fused.optimizer, alone.optimizer)
        or _average_difference(number, fused.averages, alone.averages)
    )


def _average_difference(number: str, fused: Averages | None, alone: Averages | None) -> str | None:
    mine = {} if fused is None else fused.state()
    other = {} if alone is None else alone.state()
    return next((f"{number}: the average of {name}" for name in mine if not _same(mine[name], other[name])), None)


def _model_difference(number: str, fused: torch.nn.Module, alone: torch.nn.Module) -> str | None:
    for (name, mine), other in zip(fused.named_parameters(), alone.parameters(), strict=True):
        if (mine.grad is None) != (other.grad is None):
            return f"{number}: whether {name} has a gradient"
        if mine.grad is not None and other.grad is not None and not _same(mine.grad, other.grad):
            return f"{number}: the gradient of {name}"
        if not _same(mine, other):
            return f"{number}: {name} after the step"
    for (name, buffer), twin in zip(fused.named_buffers(), alone.buffers(), strict=True):
        if not _same(buffer, twin):
            return f"{number}: the buffer {name}"
    return None


def _optimizer_difference(number: str, fused: torch.optim.Optimizer, alone: torch.optim.Optimizer) -> str | None:
    for mine, other in zip(_states(fused), _states(alone), strict=True):
        if mine.keys() != other.keys():
            return f"{number}: which state the optimizer keeps"
        for name, value in mine.items():
            if not _same(value, other[name]):
                return f"{number}: the optimizer's {name}"
    return None


def _states(optimizer: torch.optim.Optimizer) -> Sequence[dict[str, Any]]:
    """What is kept of each parameter, and the settings of each parameter group."""
    groups = optimizer.param_groups
    states = [optimizer.state.get(parameter, {}) for group in groups for parameter in group["params"]]
    return [*states, *({name: one for name, one in group.items() if name != "params"} for group in groups)]


def _same(mine: Any, other: Any) -> bool:
    """Equal bits, but that any NaN is as good as another."""
    if isinstance(mine, torch.Tensor) and isinstance(other, torch.Tensor):
        if same_bits(mine, other):  # first: some types of few bits know nothing else
            return True
        return mine.shape == other.shape and torch.equal(mine.nan_to_num(7e33), other.nan_to_num(7e33))
    if type(mine) is not type(other):
        return False
    if isinstance(mine, dict):
        return mine.keys() == other.keys() and all(_same(one, other[key]) for key, one in mine.items())
    if isinstance(mine, list | tuple):
        return len(mine) == len(other) and all(map(_same, mine, other))
    return bool(mine == other) or (mine != mine and other != other)


_log = logging.getLogger(__name__)
PAYS_AFTER = 40.0  # seconds of training ahead: compiling takes five to ten
COMPILERS = ("g++", "clang++")


def compile_group(group: Group) -> bool:
    """Compile what the group computes at each step; logs where there is no compiler."""
    if group.setup.device.type == "cpu" and cpp_compiler() is None:
        _log.warning(
            "no C++ compiler (%s, or the one that $CXX names) is found: --profile fast trains without torch.compile, "
            "which is slower; install one (apt-get install g++) to have it", " or ".join(COMPILERS)
        )  # fmt: skip
        return False
    group.transform(_compiled)
    return True


def cpp_compiler() -> str | None:
    """The compiler that torch would call."""
    named = os.environ.get("CXX")
    return next((found for name in ([named] if named else COMPILERS) if (found := shutil.which(name))), None)


def _compiled(recording: Recording) -> Recording:
    if recording.recurrent:  # its kernels know nothing of compiling
        return recording
    options: dict[str, Any] = {"compile_threads": 1}  # no processes that outlive us
    compiled = torch.compile(recording.graph.forward, fullgraph=True, dynamic=False, options=options)
    return replace(recording, compiled=_Compiled(compiled, recording))


class _Compiled:
    """A compiled replay. Compiling begins with the first call; where it fails, the graph is replayed as it is."""

    def __init__(self, compiled: Callable[..., Any], recording: Recording) -> None:
        self._replay = compiled
        self._plain = recording.replay

    def __call__(self, *inputs: torch.Tensor) -> Any:
        if self._replay is self._plain:
            return self._plain(*inputs)
        try:
            return self._replay(*inputs)
        except Exception as error:  # torch's compiler is imported only when it is used
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            _log.warning("a group cannot be compiled, and is trained without that: %s", str(error).split("\n")[0])
            self._replay = self._plain
            return self._plain(*inputs)


TIMED = 3  # steps


def make_group(runs: Sequence[TrialRun], *, steps: int = 0) -> Group:
    """The trials stacked, to be trained for so many steps. Raises NotFusible when there is no way."""
    try:
        check_scale(runs[0])
        check_obstacles(runs[0].model, runs[0].setup.workload.loss)
        group = exact_group(runs) if runs[0].setup.profile == "exact" else _fast_group(runs, steps)
        check_evaluation(runs[0], group.read)
    except Exception as error:
        raise refusal(error, "while it was tried") from error
    return group


def _fast_group(runs: Sequence[TrialRun], steps: int) -> Group:
    """The faster of the exact and of the fast rules, compiled where so much work is ahead that this pays."""
    by_exact_rules = _seconds_a_step(_checked(Group(runs, rules=rules.TABLE)))
    group = _checked(Group(runs, rules=rules_fast.TABLE))
    took = _seconds_a_step(group)
    if by_exact_rules < took:
        group, took = Group(runs, rules=rules.TABLE), by_exact_rules
    if took * steps > PAYS_AFTER:
        compile_group(group)
    return group


def _checked(group: Group) -> Group:
    """A group that trains as each trial alone but for rounding."""
    difference = far_from_alone(group)
    if difference is not None:
        raise NotFusible(f"trained together a trial is another than alone, by more than rounding: {difference}")
    return group


def _seconds_a_step(group: Group) -> float:
    kept = group.snapshot()
    setup, group.setup = group.setup, replace(group.setup, stop=lambda: False)
    updates = min(TIMED, *(len(run.rates) - run.step for run in group.runs))
    wait_for(setup.device)
    began = time.perf_counter()
    try:
        group.advance(updates)
        wait_for(setup.device)
    finally:
        group.setup = setup
        group.restore(kept)
    return (time.perf_counter() - began) / updates
