"""How many trials to stack, and whether that pays: measured, in a moment, on throw-away copies of the trials."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from tuner.design.trial import Trial
from tuner.errors import NotFusible
from tuner.training.fused.cuda_graph import WARM_UP
from tuner.training.fused.group import Group
from tuner.training.fused.self_check import exact_group
from tuner.training.numerics import wait_for
from tuner.training.randomness import callers_generators_restored
from tuner.training.setting import Setting
from tuner.training.trial_run import TrialRun

FIRST, LARGEST = 8, 32  # sizes of group that are tried; beyond, little is gained and caches overflow
LARGEST_ON_GPU = 256
PROBE_SECONDS, PROBE_SHARE = 1.0, 0.04  # at most so long, and at most this part of the work that is ahead
PAYS = 0.97  # of the time that a trial takes alone
TIMED = 5  # steps that are timed
MEMORY_SHARE = 0.5  # of what is free


@dataclass(frozen=True, slots=True)
class Choice:
    """So many trials train together, because of `reason`; `ways` tells how each operation is run then."""

    num_trials: int
    reason: str
    ways: dict[str, str] = field(default_factory=dict)


def best_choice(setting: Setting, trials: Sequence[Trial], ahead: int) -> Choice:
    """Time a step alone and in groups. `ahead`: how many trials are still to be trained."""
    quiet = replace(setting, stop=lambda: False)
    with callers_generators_restored(setting.device):
        alone = _seconds_a_step([TrialRun(quiet, trials[0])])
        work = alone * ahead * setting.study.budget.max_train_steps
        until = time.perf_counter() + min(PROBE_SECONDS, PROBE_SHARE * work)
        if len(trials) < 2 or PROBE_SHARE * work < PROBE_SECONDS / 10:
            return Choice(1, f"{work:.2g} s of training are too short for a probe")
        try:
            return _fastest(quiet, trials, alone, until)
        except NotFusible as error:
            return Choice(1, str(error))


def look_at(setting: Setting, trials: Sequence[Trial]) -> Choice:
    """How each operation would run if these trials trained together, or why they cannot. Trains nothing that stays."""
    quiet = replace(setting, stop=lambda: False)
    with callers_generators_restored(setting.device):
        try:
            group = exact_group([TrialRun(quiet, trial) for trial in trials])
        except NotFusible as error:
            return Choice(1, str(error))
        return Choice(len(trials), "the same bits as each trial alone", dict(group.ways))


def _fastest(setting: Setting, trials: Sequence[Trial], alone: float, until: float) -> Choice:
    best, size = Choice(1, "training together is not faster"), min(FIRST, len(trials))
    fastest, most = PAYS * alone, trials_that_fit(setting, trials[0])
    while size <= min(len(trials), largest_group(setting.device), most):
        began = time.perf_counter()
        group = exact_group([TrialRun(setting, trial) for trial in trials[:size]])
        together = _seconds_a_step(group) / size
        if together < fastest:
            reason = f"{alone / together:.2f} times as fast as one by one ({1e6 * together:.0f} us a step of a trial)"
            best, fastest = Choice(size, reason, dict(group.ways)), together
        elapsed = time.perf_counter() - began
        if time.perf_counter() + 2 * elapsed > until:
            break
        size *= 2
    return best


def _seconds_a_step(trained: Group | list[TrialRun]) -> float:
    """Seconds of a step of all that is given, after one to warm up."""

    def advance(updates: int) -> None:
        if isinstance(trained, Group):
            trained.advance(updates)
        else:
            trained[0].advance(trained[0].step + updates)

    runs = trained.runs if isinstance(trained, Group) else trained
    steps = min(TIMED, len(runs[0].rates) - 1)
    if steps < 1:
        return 0.0
    device = runs[0].setting.device
    advance(WARM_UP + 1 if device.type == "cuda" else 1)
    wait_for(device)
    began = time.perf_counter()
    advance(steps)
    wait_for(device)
    return (time.perf_counter() - began) / steps


def largest_group(device: torch.device) -> int:
    """Beyond so many trials little is gained by more."""
    return LARGEST_ON_GPU if device.type == "cuda" else LARGEST


def trials_that_fit(setting: Setting, trial: Trial) -> int:
    """How many trials' values, gradients and optimizer state fit into the memory that is free."""
    one = Group([TrialRun(setting, trial)])
    return max(1, int(MEMORY_SHARE * _free_bytes(setting.device) / max(1, one.num_bytes)))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
