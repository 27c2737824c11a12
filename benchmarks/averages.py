"""What an exponential average of the weights costs of a step, alone and in a group, against the same step without.

`python benchmarks/averages.py`: microseconds of a step of the digits MLP with ema_steps and without, as the minimum of
blocks that take turns; CPU time of one thread. The first lines are the work itself: one call of ours against
torch.optim.swa_utils.AveragedModel. Exit code 1 above the goal.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.fused.averages import GroupAverages
from tuner.fused.group import Group
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

BLOCKS, STEPS, TRIALS, EMA_STEPS = 120, 50, 16, 200
GOAL = 1.05
POINT = {"learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.0, "label_smoothing": 0.0}


def fastest(works: Sequence[Callable[[], None]]) -> list[float]:
    """Microseconds of a step of each: the least of blocks in turns."""
    least = [float("inf")] * len(works)
    for _ in range(BLOCKS):
        for place, work in enumerate(works):
            before = time.thread_time()
            work()
            least[place] = min(least[place], 1e6 * (time.thread_time() - before) / STEPS)
    return least


def blocks_of(runs: Sequence[TrialRun]) -> list[Callable[[], None]]:
    """A block without averages and one with them, of the same trials: their memory lies where it lies."""
    group = Group(runs) if len(runs) > 1 else None
    kept = [run.averages for run in runs]
    moves = None if group is None else group.averages

    def block(averaged: bool) -> None:
        for run, averages in zip(runs, kept, strict=True):
            run.step, run.losses = 0, []
            run.averages = averages if averaged else None
        if group is None or moves is None:
            runs[0].advance(STEPS)
            return
        group.averages = moves if averaged else GroupAverages(runs, group.model)
        group.advance(STEPS)

    return [lambda: block(False), lambda: block(True)]


def of_the_average(run: TrialRun) -> list[Callable[[], None]]:
    averages, other = run.averages, AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / EMA_STEPS))
    assert averages is not None

    def ours() -> None:
        for step in range(STEPS):
            averages.take(step)

    def theirs() -> None:
        for _ in range(STEPS):
            other.update_parameters(run.model)

    return [ours, theirs]


def main() -> int:
    torch.set_num_threads(1)
    _, campaign = load_campaign(Path(__file__).parents[1] / "tests" / "reference_studies" / "digits.py")
    study = replace(study_of_round(campaign, 1, STEPS), warmup_steps=0)
    data = Data.of(campaign.workload, torch.device("cpu"))

    def runs(ema_steps: int, count: int) -> list[TrialRun]:
        setting = TrainingSetup(
            replace(study, ema_steps=ema_steps), campaign.workload, data, torch.device("cpu"), Path(), "benchmark"
        )
        points = [Point.of(POINT | {"learning_rate": 1e-3 * (1 + place / count)}) for place in range(count)]
        trials = [trial_at(setting.study, place, point, "by hand") for place, point in enumerate(points)]
        return [TrialRun(setting, trial) for trial in trials]

    ours, theirs = fastest(of_the_average(runs(EMA_STEPS, 1)[0]))
    print(f"moving the average: {ours:.1f} us, AveragedModel {theirs:.1f} us: {theirs / ours:.1f} times as long")
    worst = 0.0
    for name, count in (("one trial alone", 1), (f"a group of {TRIALS}", TRIALS)):
        without, averaged = fastest(blocks_of(runs(EMA_STEPS, count)))
        ratio = averaged / without
        worst = max(worst, ratio)
        print(
            f"{name}: {without / count:.1f} us a step of a trial, {averaged / count:.1f} us with averages: {ratio:.3f}"
        )
    print(f"goal: at most {GOAL:.2f}")
    return worst > GOAL


if __name__ == "__main__":
    sys.exit(main())
