"""How many worker processes pay for themselves: each has to start and to read the data before it helps."""

import os
from dataclasses import dataclass

import torch

from tuner.execution.choices import Choices
from tuner.execution.fusing import trials_of
from tuner.fused.choice import best_choice, evaluation_seconds, largest_group
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.setting import Setting

START_SECONDS = {"cpu": 1.5, "cuda": 5.0}  # until workers train: on a CPU they are forked, and 0.7 was measured
ENOUGH_SECONDS = 10.0  # of steps: two processes save more than they take to start, whatever evaluations add
MOST = 64


@dataclass(frozen=True, slots=True)
class Ahead:
    """The work that is left of a study: so many trials, and seconds in one process, evaluations included."""

    num_trials: int
    seconds: float


def work_ahead(ledger: Ledger, row: StudyRow, setting: Setting, *, fused: bool) -> Ahead:
    """Estimated from a probe, which is made now where the Ledger knows of none.

    Evaluations are timed where the steps alone do not fill a process; those of trials together take less.
    """
    left = trials_of([one for one in ledger.trials(row.study_id) if not one.state.finished])
    if not left:
        return Ahead(0, 0.0)
    alike = [trial for trial in left if trial.shape_group == left[0].shape_group]
    choices = Choices(ledger, row, setting.numerics)
    choice = choices.of(left[0].shape_group) if fused else None
    if choice is None and fused:
        choice = best_choice(setting, alike[: largest_group(setting.device)], len(left))
        choices.keep(left[0].shape_group, choice)
    if choice is None or not choice.seconds:
        choice = best_choice(setting, alike[:1], len(left))
    budget = row.study.budget
    steps = choice.seconds * budget.max_train_steps * len(left)
    if steps > ENOUGH_SECONDS:
        return Ahead(len(left), steps)
    evaluations = len(budget.evaluation_steps) * len(left)
    return Ahead(len(left), steps + evaluations * evaluation_seconds(setting, left))


def num_processes(ahead: Ahead, device: torch.device) -> int:
    """As many as there are processors (or GPUs) and trials, if what they save is more than what they take to start."""
    places = torch.cuda.device_count() if device.type == "cuda" else len(os.sched_getaffinity(0))
    count = max(1, min(places, ahead.num_trials, MOST))
    return count if ahead.seconds * (1.0 - 1.0 / count) > START_SECONDS[device.type] else 1
