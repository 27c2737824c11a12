"""Fused trials against the loop a user would write, one trial after the other: ratios of one run.

    python benchmarks/fused.py [--rounds 3] [--cases MLP,CNN] [--profile exact]
    python benchmarks/fused.py --cores 2 [--rounds 3] [--cases 32-32,128-128]
    python benchmarks/fused.py --fast-steps [--rounds 3]

One core: CPU time a trial-step, one thread, the three ways in turn, medians. `tuner` is the whole product: claims, the
probe of `--fuse auto` or a group of K, self-check, training, evaluations, curves and checkpoints in a Ledger on disk.
The bare loops run in processes of their own, since what `tuner` sets in its process (memory, denormals) would serve
them too. They index a shuffled epoch, call loss, backward and AdamW (torch's default, and its fused kernel), for as
many steps, and measure the same metrics at the same steps; they record nothing.

Two cores: wall time a trial-step, on a machine that does nothing else. `tuner` is `--workers 2 --fuse K`; "steady" is
the time in which both train, "with the start" all from the start of the processes to the last record. The plain loop
is run by one process, or by two at once.

Fast steps: CPU time of a trial-step of 16 MLPs under `--profile fast`, compiled, against the plain loops; steps alone,
without evaluations and Ledger, because compiling takes as long as such short studies.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from support.fusible import Encoder, Lm, ResNet, TiedLm

from benchmarks.workers import Clock
from tuner.budget.step_budget import StepBudget
from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.workers import Workers
from tuner.fused.making import make_group
from tuner.records.conclusions import FusionChoices
from tuner.rounds.plan import study_of_round, trial_at
from tuner.storage.store import open_ledger
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

name, campaign = load_campaign(Path(__file__).parents[1] / "tests" / "reference_studies" / "digits.py")
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
# name: trials, K, steps, processes of the plain loop, goals as above
TWO_CORES = {
    "MLP 64-32-32-10": (32, 16, 6000, 1, 13.0, 9.0),
    "MLP 64-32-32-10 ": (64, 32, 3000, 1, 13.0, 9.0),
    "MLP 64-128-128-10": (64, 32, 1500, 2, 2.8, 2.0),
}
FAST = {"MLP 64-32-32-10": (11.0,), "MLP 64-128-128-10": (3.8,)}  # name: goal against the default loop
FAST_TRIALS, FAST_STEPS = 16, 300
EVALUATIONS = 10
CPU = torch.device("cpu")
HERE = [
    str(Path(__file__).parent),
    *(str(Path(__file__).parents[1] / part) for part in ("", "tests")),
]  # where a worker finds this file and `support`


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


def bare_loop(case, fused, evaluates=True):
    """A trial as a user would train it; microseconds of CPU and of wall time a step, with the evaluations."""
    torch.set_num_threads(1)
    workload_type, num_trials, steps, *_ = CASES[case]
    workload = workload_type()
    study = study_for(workload, num_trials, steps)
    setting = TrainingSetup(study, workload, Data.of(workload, CPU), CPU, Path("nowhere"), "bench")
    run = TrialRun(setting, trials_of(study, num_trials)[0])
    model = run.model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, weight_decay=run.point["weight_decay"], fused=fused or None
    )
    began = time.process_time(), time.perf_counter()
    for number in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = workload.loss(model, run.batches.at(number), run.point)
        loss.backward()
        optimizer.step()
        if evaluates and (number + 1) % (steps // EVALUATIONS) == 0:
            run.evaluate()
    took = time.process_time() - began[0], time.perf_counter() - began[1]
    return [1e6 * seconds / steps for seconds in took]


def product(loaded, study, trials):
    """Microseconds of a step of a trial, from the first claim to the last record."""
    with tempfile.TemporaryDirectory(dir=".") as folder, open_ledger(f"{folder}/tuner.sqlite") as ledger:
        loaded.write_to(Path(folder) / "checkpoints")
        row = ledger.start_study(name, study, loaded.fingerprint())
        ledger.plan_trials(row.study_id, trials)
        began = time.process_time()
        InProcess().run(Job(ledger, row, loaded), Silent(), lambda: False)
        took = time.process_time() - began
        told = ledger.conclusion(name, FusionChoices, row.study_id) or FusionChoices()
    return 1e6 * took / study.budget.max_train_steps / len(trials), next(iter(told.by_group.values()), None)


def measured(case, rounds, options, pool):
    """Medians in microseconds a trial-step by way of training; what the Ledger says about the group."""
    workload_type, num_trials, steps, *_ = CASES[case]
    workload = workload_type()
    study = study_for(workload, num_trials, steps)
    trials = trials_of(study, num_trials)
    fuse = "auto" if options.fuse == "auto" else "off" if options.fuse == "off" else num_trials
    loaded = LoadedWorkload(workload, Machine(Path("."), "cpu", fuse=fuse, profile=options.profile))
    taken = {"default": [], "fused": [], "tuner": []}
    told = None
    for place in range(rounds + 1):
        values = {kind: pool.submit(bare_loop, case, kind == "fused").result()[0] for kind in ("default", "fused")}
        values["tuner"], told = product(loaded, study, trials)
        for kind, value in values.items():
            if place:
                taken[kind].append(value)
    return {kind: statistics.median(values) for kind, values in taken.items()}, told


def on_one_core(options, pool):
    missed = 0
    for case, (*_, default_goal, fused_goal) in chosen(CASES, options):
        took, told = measured(case, options.rounds, options, pool)
        ratios = [took[kind] / took["tuner"] for kind in ("default", "fused")]
        missed += below(ratios, (default_goal, fused_goal))
        loops = sorted(word for word, way in (told.ways if told else {}).items() if way == "loop")
        group = f"groups of {told.trials}, {told.self_check or told.reason}" if told else "one by one"
        print(
            f"{case:20} K={CASES[case][1]:2}  {took['default']:6.0f} / {took['fused']:6.0f} / {took['tuner']:6.0f} us  "
            f"{ratios[0]:5.2f}x default (goal {default_goal})  {ratios[1]:5.2f}x fused AdamW (goal {fused_goal})  "
            f"{group}; loops: {', '.join(loops) or 'none'}",
            flush=True,
        )
    return missed


def two_workers(case, num_trials, size, steps):
    """Microseconds of wall time a trial-step while both workers train, and with the start of the processes."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        place = Path(folder).resolve()
        file = place / "study.py"
        file.write_text(
            f"import sys\nfrom dataclasses import replace\nsys.path[:0] = {HERE!r}\nimport fused\n"
            f"campaign = replace(fused.campaign, workload=fused.CASES[{case!r}][0]())\n"
        )
        campaign_name, declared = load_campaign(file)
        study = study_for(declared.workload, num_trials, steps)
        url, root = f"sqlite:///{place}/tuner.sqlite", f"{place}/checkpoints"
        with open_ledger(url) as ledger:
            loaded = LoadedWorkload(declared.workload, Machine(Path(root), "cpu", fuse=size, worker_count=2), file)
            row = ledger.start_study(campaign_name, study, loaded.fingerprint())
            ledger.plan_trials(row.study_id, trials_of(study, num_trials))
            clock = Clock(2 * size, num_trials)
            began = time.monotonic()
            with closing(Workers(url)) as workers:
                workers.run(Job(ledger, row, loaded), clock, lambda: False)
            took = time.monotonic() - began
    return 1e6 / clock.rate, 1e6 * took / steps / num_trials


def on_two_cores(options, pool):
    missed = 0
    for case, (num_trials, size, steps, processes, *goals) in chosen(TWO_CORES, options):
        rows = []
        for _ in range(options.rounds):
            row = list(two_workers(case.strip(), num_trials, size, steps))
            for fused in (False, True):
                loops = [pool.submit(bare_loop, case.strip(), fused) for _ in range(processes)]
                row.append(statistics.mean(loop.result()[1] for loop in loops) / processes)
            rows.append(row)
        steady, whole, *bare = (statistics.median(column) for column in zip(*rows, strict=True))
        ratios = [value / steady for value in bare]
        missed += below(ratios, goals)
        print(
            f"{case.strip():20} {num_trials} trials, 2 workers of groups of {size}: steady {steady:.1f} us a step,"
            f" with the start {whole:.1f}; {processes} plain loop(s) {bare[0]:.0f} / {bare[1]:.0f} us:\n"
            f"{'':20} {ratios[0]:5.2f}x default (goal {goals[0]}; {bare[0] / whole:.2f}x with the start)"
            f"  {ratios[1]:5.2f}x fused AdamW (goal {goals[1]}; {bare[1] / whole:.2f}x)",
            flush=True,
        )
    return missed


def fast_steps(case):
    """Microseconds of CPU of a trial-step of a compiled group of MLPs."""
    workload = CASES[case][0]()
    study = study_for(workload, FAST_TRIALS, 10**6)  # so many steps ahead that compiling pays
    setting = TrainingSetup(study, workload, Data.of(workload, CPU), CPU, Path("nowhere"), "bench", profile="fast")
    group = make_group([TrialRun(setting, trial) for trial in trials_of(study, FAST_TRIALS)], steps=10**6)
    group.advance(10)
    began = time.process_time()
    group.advance(FAST_STEPS)
    return 1e6 * (time.process_time() - began) / FAST_STEPS / FAST_TRIALS


def by_fast_steps(options, pool):
    missed = 0
    for case, goals in chosen(FAST, options):
        rows = []
        for _ in range(options.rounds):
            loops = [pool.submit(bare_loop, case, fused, False).result()[0] for fused in (False, True)]
            rows.append([*loops, fast_steps(case)])
        default, fused, ours = (statistics.median(column) for column in zip(*rows, strict=True))
        missed += below((default / ours,), goals)
        print(
            f"{case:20} K={FAST_TRIALS}, fast, compiled: {default:.0f} / {fused:.0f} / {ours:.1f} us  "
            f"{default / ours:5.2f}x default (goal {goals[0]})  {fused / ours:5.2f}x fused AdamW",
            flush=True,
        )
    return missed


def chosen(cases, options):
    return [(case, row) for case, row in cases.items() if any(word in case for word in options.cases.split(","))]


def below(ratios, goals):
    return any(goal is not None and ratio < goal for ratio, goal in zip(ratios, goals, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="")
    parser.add_argument("--cores", type=int, default=1, choices=(1, 2))
    parser.add_argument("--fuse", default="K", help="K: the case's own group; auto; off")
    parser.add_argument("--profile", default="exact", choices=("exact", "fast"))
    parser.add_argument("--fast-steps", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with ProcessPoolExecutor(options.cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        measure = by_fast_steps if options.fast_steps else on_one_core if options.cores == 1 else on_two_cores
        missed = measure(options, pool)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
