"""Fused trials against the loop a user would write, one trial after the other: ratios of one run.

    PYTHONPATH=tests python tests/benchmarks/fused.py [--rounds 3] [--cases MLP,CNN] [--profile exact]

CPU time a trial-step, one thread, the three ways in turn, medians. `tuner` is the whole product: claims, the probe of
`--fuse auto` or a group of K, self-check, training, evaluations, curves and checkpoints in a Ledger on disk. The bare
loops index a shuffled epoch, call loss, backward and AdamW (torch's default, and its fused kernel), and measure the
same metrics at the same steps; they record nothing.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from support.fusible import Encoder, Lm, ResNet, TiedLm
from torch import nn

from tuner.budget.step_budget import StepBudget
from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Silent
from tuner.execution.in_process import InProcess
from tuner.rounds.plan import study_of_round, trial_at
from tuner.storage.store import open_ledger
from tuner.training.setting import Setting
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


# name: workload, K, steps, goal against the default loop, goal against the same loop with fused AdamW
CASES = {
    "MLP 64-32-32-10": (mlp(32), 32, 1500, 7.0, 4.8),
    "MLP 64-128-128-10": (mlp(128), 32, 1000, 2.8, 2.0),
    "MLP with dropout": (mlp(128, dropout=True), 32, 1000, None, None),
    "residual CNN": (type("Cnn", (Digits,), {"model": lambda self, point: ResNet()}), 8, 300, 1.05, 1.0),
    "transformer encoder": (type("Vit", (Digits,), {"model": lambda self, point: Encoder()}), 8, 400, 1.3, 1.2),
    "tied byte LM": (type("Tied", (TiedLm,), {"model": lambda self, point: Lm()}), 8, 800, 2.0, 1.6),
}
EVALUATIONS = 10


def study_for(workload, num_trials, steps):
    study = study_of_round(campaign, 1, steps)
    budget = StepBudget(steps, steps // EVALUATIONS)
    return replace(study, batch_size=workload.batch_size, num_trials=num_trials, budget=budget)


def trials_of(study, num_trials):
    def point(number):
        return Point.of({
            "learning_rate": 1e-3 * (1 + number % 7), "weight_decay": 0.01, "dropout": 0.05 + 0.01 * number,
            "label_smoothing": 0.005 * number,
        })  # fmt: skip

    return [trial_at(study, number, point(number), "by hand") for number in range(num_trials)]


def bare_loop(backend, study, trial, fused):
    """A trial as a user would train it; microseconds of a step, evaluations included."""
    setting = Setting(study, backend.workload, backend.data, torch.device("cpu"), Path("nowhere"), "bench")
    run = TrialRun(setting, trial)
    model, workload = run.model, backend.workload
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, weight_decay=run.point["weight_decay"], fused=fused or None
    )
    steps = min(200, study.budget.max_train_steps)
    every = study.budget.max_train_steps // EVALUATIONS
    evaluation = 0.0
    began = time.process_time()
    model.train()
    for number in range(steps):
        optimizer.zero_grad()
        loss = workload.loss(model, run.batches.at(number), run.point)
        loss.backward()
        optimizer.step()
    took = time.process_time() - began
    began = time.process_time()
    run.evaluate()
    evaluation = time.process_time() - began
    return 1e6 * (took / steps + evaluation / every)


def product(backend, study, trials):
    """Microseconds of a step of a trial, from the first claim to the last record."""
    with tempfile.TemporaryDirectory(dir=".") as folder, open_ledger(f"{folder}/tuner.sqlite") as ledger:
        backend.checkpoint_root = Path(folder) / "checkpoints"
        row = ledger.start_study(name, study, backend.fingerprint())
        ledger.plan_trials(row.study_id, trials)
        began = time.process_time()
        backend.run(ledger, row, Silent(), lambda: False)
        took = time.process_time() - began
        told = ledger.conclusion(name, "fusion", row.study_id) or {}
    return 1e6 * took / study.budget.max_train_steps / len(trials), next(iter(told.values()), None)


def measured(workload_type, num_trials, steps, rounds, options):
    """Medians in microseconds a trial-step by way of training; what the Ledger says about the group."""
    workload = workload_type()
    study = study_for(workload, num_trials, steps)
    trials = trials_of(study, num_trials)
    fuse = "auto" if options.fuse == "auto" else "off" if options.fuse == "off" else num_trials
    backend = InProcess(workload, Path("."), device="cpu", fuse=fuse, profile=options.profile)
    taken = {"default": [], "fused": [], "tuner": []}
    told = None
    for place in range(rounds + 1):
        values = {kind: bare_loop(backend, study, trials[0], kind == "fused") for kind in ("default", "fused")}
        values["tuner"], told = product(backend, study, trials)
        for kind, value in values.items():
            if place:
                taken[kind].append(value)
    return {kind: statistics.median(values) for kind, values in taken.items()}, told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="")
    parser.add_argument("--fuse", default="K", help="K: the case's own group; auto; off")
    parser.add_argument("--profile", default="exact", choices=("exact", "fast"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    for case, (workload, num_trials, steps, *goals) in CASES.items():
        if not any(word in case for word in options.cases.split(",")):
            continue
        took, told = measured(workload, num_trials, steps, options.rounds, options)
        ratios = [took[kind] / took["tuner"] for kind in ("default", "fused")]
        missed += any(goal is not None and ratio < goal for ratio, goal in zip(ratios, goals, strict=True))
        loops = sorted(word for word, way in (told or {"ways": {}})["ways"].items() if way == "loop")
        group = f"groups of {told['trials']}, {told['self_check'] or told['reason']}" if told else "one by one"
        print(
            f"{case:20} K={num_trials:2}  {took['default']:6.0f} / {took['fused']:6.0f} / {took['tuner']:6.0f} us  "
            f"{ratios[0]:5.2f}x default (goal {goals[0]})  {ratios[1]:5.2f}x fused AdamW (goal {goals[1]})  "
            f"{group}; loops: {', '.join(loops) or 'none'}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
