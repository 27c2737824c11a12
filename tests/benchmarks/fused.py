"""Fused trials against the loop a user would write, one trial after the other: ratios of one run.

    PYTHONPATH=tests python tests/benchmarks/fused.py [ROUNDS]

Thread CPU time per trial-step, one thread, the three ways in turn, medians. The bare loops index a shuffled epoch and
call loss, backward and a constant-rate AdamW; the fused one is the trainer's own (schedule of each trial, losses kept
and read back, gradient norms), without evaluation and commits, which are the same work either way.
"""

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from support.fusible import Encoder, Lm, ResNet, TiedLm
from torch import nn

from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.fused.self_check import exact_group
from tuner.training.setting import Data, Setting
from tuner.training.trial_run import TrialRun

name, campaign = load_campaign(Path(__file__).parents[2] / "studies" / "digits.py")
Digits = type(campaign.workload)


def mlp(width, dropout=False):
    def model(self, point):
        p = point["dropout"] if dropout else 0.0
        layers = [nn.Linear(64, width), nn.ReLU(), nn.Dropout(p), nn.Linear(width, width), nn.ReLU(), nn.Dropout(p)]
        return nn.Sequential(
            *[each for each in layers if dropout or not isinstance(each, nn.Dropout)], nn.Linear(width, 10)
        )

    return type("Mlp", (Digits,), {"model": model})


# name: workload, K, goal against the default loop, goal against the same loop with fused AdamW
CASES = {
    "MLP 64-32-32-10": (mlp(32), 32, 7.0, 4.8),
    "MLP 64-128-128-10": (mlp(128), 32, 2.8, 2.0),
    "the same with dropout": (mlp(128, dropout=True), 32, None, None),
    "residual CNN": (type("Cnn", (Digits,), {"model": lambda self, point: ResNet()}), 8, 1.05, 1.0),
    "transformer encoder": (type("Vit", (Digits,), {"model": lambda self, point: Encoder()}), 8, 1.3, 1.2),
    "tied byte LM": (type("Tied", (TiedLm,), {"model": lambda self, point: Lm()}), 8, 2.0, 1.6),
}


def bare_loop(run, fused):
    """A trial as a user would train it."""
    model, workload = run.model, run.setting.workload
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, weight_decay=run.point["weight_decay"], fused=fused or None
    )
    model.train()
    step = 0

    def steps(count):
        nonlocal step
        for number in range(step, step + count):
            optimizer.zero_grad()
            loss = workload.loss(model, run.batches.at(number % 4000), run.point)
            loss.backward()
            optimizer.step()
        step += count

    return steps


def fused_loop(group):
    def steps(count):
        group.advance(count)
        for trial in group.runs:
            torch.stack(trial.losses).tolist()
            trial.read_gradient_norm()
            trial.losses = []

    return steps


def measured(workload_type, num_trials, rounds):
    """Medians in microseconds a trial-step by way of training; seconds to build the group; operations that loop."""
    workload = workload_type()
    study = replace(study_of_round(campaign, 1, 5000), batch_size=workload.batch_size)
    device = torch.device("cpu")
    setting = Setting(study, workload, Data.of(workload, device), device, Path("nowhere"), "bench")

    def run(number):
        point = Point.of({
            "learning_rate": 1e-3 * (1 + number % 7), "weight_decay": 0.01, "dropout": 0.05 + 0.01 * number,
            "label_smoothing": 0.005 * number,
        })  # fmt: skip
        return TrialRun(setting, trial_at(study, number, point, "by hand"))

    began = time.thread_time()
    group = exact_group([run(number) for number in range(num_trials)])
    built = time.thread_time() - began
    ways = {
        "default": (bare_loop(run(0), fused=False), 1, 60),
        "fused": (bare_loop(run(0), fused=True), 1, 60),
        "tuner": (fused_loop(group), num_trials, 50 if num_trials > 8 else 12),
    }
    taken = {kind: [] for kind in ways}
    for place in range(rounds + 1):
        for kind, (steps, trials, count) in ways.items():
            began = time.thread_time()
            steps(count)
            if place:
                taken[kind].append(1e6 * (time.thread_time() - began) / count / trials)
    loops = {name for name, way in group.ways.items() if way == "loop"}
    return {kind: statistics.median(values) for kind, values in taken.items()}, built, loops


def main(rounds: int) -> int:
    torch.set_num_threads(1)
    missed = 0
    for case, (workload, num_trials, *goals) in CASES.items():
        took, built, loops = measured(workload, num_trials, rounds)
        ratios = [took[kind] / took["tuner"] for kind in ("default", "fused")]
        missed += any(goal is not None and ratio < goal for ratio, goal in zip(ratios, goals, strict=True))
        print(
            f"{case:22} K={num_trials:2}  {took['default']:6.0f} / {took['fused']:6.0f} / {took['tuner']:6.0f} us  "
            f"{ratios[0]:5.2f}x default (goal {goals[0]})  {ratios[1]:5.2f}x fused AdamW (goal {goals[1]})  "
            f"built in {built:.2f} s, same bits; loops: {', '.join(sorted(loops)) or 'none'}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
