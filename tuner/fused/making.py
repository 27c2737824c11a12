"""Making a group as the profile wants it: with the bits of each trial alone, or as fast as can be."""

import time
from collections.abc import Sequence
from dataclasses import replace

from tuner.errors import NotFusible
from tuner.fused import compiling, rules, rules_fast
from tuner.fused.counting import check_evaluation
from tuner.fused.group import Group
from tuner.fused.obstacles import check_obstacles
from tuner.fused.refusal import refusal
from tuner.fused.self_check import exact_group, far_from_alone
from tuner.training.numerics import wait_for
from tuner.training.trial_run import TrialRun

TIMED = 3  # steps


def make_group(runs: Sequence[TrialRun], *, steps: int = 0) -> Group:
    """The trials stacked, to be trained for so many steps. Raises NotFusible when there is no way."""
    try:
        check_obstacles(runs[0].model)
        group = exact_group(runs) if runs[0].setting.profile == "exact" else _fast_group(runs, steps)
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
    if took * steps > compiling.PAYS_AFTER:
        compiling.compile_group(group)
    return group


def _checked(group: Group) -> Group:
    """A group that trains as each trial alone but for rounding."""
    difference = far_from_alone(group)
    if difference is not None:
        raise NotFusible(f"trained together a trial is another than alone, by more than rounding: {difference}")
    return group


def _seconds_a_step(group: Group) -> float:
    kept = group.snapshot()
    setting, group.setting = group.setting, replace(group.setting, stop=lambda: False)
    updates = min(TIMED, *(len(run.rates) - run.step for run in group.runs))
    wait_for(setting.device)
    began = time.perf_counter()
    try:
        group.advance(updates)
        wait_for(setting.device)
    finally:
        group.setting = setting
        group.restore(kept)
    return (time.perf_counter() - began) / updates
