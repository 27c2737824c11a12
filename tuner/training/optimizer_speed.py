"""What the step of an optimizer costs on this processor, measured before anything is trained.

Some optimizers are made for GPUs. Their step may take a hundred times as long elsewhere, more than everything else in
an update, and a price in milliseconds does not say why.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from tuner.design.optimizers import one_group, optimizer_of
from tuner.design.trial import Trial
from tuner.errors import Infeasible
from tuner.training.compiler import plain_step
from tuner.training.denormals import denormals_as_zero
from tuner.training.endings import is_out_of_memory
from tuner.training.first_loss import left_as_it_was
from tuner.training.numerics import wait_for
from tuner.training.optimizers import make_optimizer, twin_of
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

_USUAL = "adamw"  # what a step is compared with
_TIMED = 3  # the shortest of so many counts
_SLOWER = 2.0  # [P] times as long as that of _USUAL, and
_SHARE = 0.1  # [P] of an update: less is not worth a word


def told_of_optimizer(setup: TrainingSetup, trial: Trial) -> list[str]:
    """Sentences, where there are any: what an optimizer tells of itself, and that its step is slow on this device."""
    spec = optimizer_of(setup.optimizer_of(trial))
    if not spec.slow and spec.tells is None:
        return []
    with callers_generators_restored(setup.device), denormals_as_zero(setup.device), left_as_it_was(setup.workload):
        try:
            run = TrialRun(replace(setup, stop=lambda: False), trial)
            told = [sentence] if spec.tells is not None and (sentence := spec.tells(run.optimizer)) else []
            if not spec.slow or told or len(run.rates) < 2:
                return told
            own = step_seconds(run.optimizer, setup.device)
            usual = make_optimizer(_USUAL, one_group(run.parameters), {}, run.rates[0], run.model)
            other = step_seconds(usual, setup.device)
            run.advance(1)
            updates = range(2, min(len(run.rates), 1 + _TIMED) + 1)
            update = min(_seconds(partial(run.advance, until), setup.device) for until in updates)
        except Infeasible:
            return []
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return []
    slow = _words(spec.name, spec.slow, own, other, update)
    return [slow] if slow else []


def _words(name: str, why: str, own: float, other: float, update: float) -> str:
    """own, other, update: seconds of a step of this optimizer, of one of _USUAL, and of a whole update."""
    if own < _SLOWER * other or own < _SHARE * update:
        return ""
    times = f"{own / other:.1f}" if own < 10.0 * other else f"{own / other:.0f}"
    return (
        f"a step of {name} takes {1e3 * own:.3g} ms here, and one of {_USUAL} {1e3 * other:.3g} ms ({times} times as "
        f"long); it is {min(1.0, own / max(own, update)):.0%} of an update: {why}"
    )


def step_seconds(optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """The seconds of a step of an optimizer, the shortest of some, on copies of its parameters and random gradients."""
    twin, parameters = twin_of(optimizer)
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)
    step = plain_step(twin)
    step()  # makes its state
    return min(_seconds(step, device) for _ in range(_TIMED))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    began = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - began
