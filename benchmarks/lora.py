"""Sixteen adapters of one frozen base: trained together against one by one, and the memory that they take.

    python benchmarks/lora.py [--rounds 3] [--widths 64,256]

Rates: CPU time of a trial-step on one thread, of the whole product both ways, in one process and in turn: claims,
self-check, training, evaluations, curves and checkpoints in a Ledger on disk. Digits data, batch 32, a frozen MLP of
five layers with an adapter of rank 4 on each of them, AdamW.

Memory: a process of its own makes a group of 16 adapters of rank 4 on a frozen base of 10 M parameters and trains it
for some steps. "base plus adapters" is one base, and of each trial the adapters' weights, gradients and two moments.
"held" counts each memory of the models, the stacks, the gradients and the optimizers once; "resident" is by how much
the process grew, with the recorded pass through the loss and all else.
"""

import argparse
import ctypes
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from tuner import with_lora
from tuner.budget.step_budget import StepBudget
from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.fused.making import make_group
from tuner.rounds.plan import study_of_round, trial_at
from tuner.storage.store import open_ledger
from tuner.training.copy_on_write import address
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

name, campaign = load_campaign(Path(__file__).parents[1] / "tests" / "reference_studies" / "digits.py")
NUM_TRIALS, RANK, BATCH, EVALUATIONS = 16, 4, 32, 10
GOALS = {64: (2000, 5.0), 256: (1000, 2.0)}  # width: steps, and how many times the rate of one by one
LARGE, MOST_HELD = 1280, 1.2  # width of a base of 10 M parameters; times base plus adapters
CPU = torch.device("cpu")


class Adapters(type(campaign.workload)):  # type: ignore[misc]
    batch_size = BATCH

    def __init__(self, width, depth=3):
        super().__init__()
        self.width, self.depth = width, depth

    def model(self, point):
        state = torch.random.get_rng_state()
        torch.manual_seed(0)  # the base of all trials
        widths = (64, *[self.width] * (self.depth + 1), 10)
        layers = [[nn.Linear(inner, outer), nn.ReLU()] for inner, outer in pairwise(widths)]
        base = nn.Sequential(*[one for layer in layers for one in layer][:-1])
        torch.random.set_rng_state(state)
        with_lora(base, "*", rank=RANK, alpha=point["alpha"])
        return base


def study_and_trials(steps):
    study = replace(
        study_of_round(campaign, 1, steps), batch_size=BATCH, num_trials=NUM_TRIALS,
        budget=StepBudget(steps, steps // EVALUATIONS),
    )  # fmt: skip

    def point(number):
        return Point.of({
            "learning_rate": 1e-3 * (1 + number % 7), "weight_decay": 0.01, "dropout": 0.0, "label_smoothing": 0.0,
            "alpha": 1.0 + number,
        })  # fmt: skip

    return study, [trial_at(study, number, point(number), "by hand") for number in range(NUM_TRIALS)]


def product(width, steps, fuse):
    """Microseconds of a step of a trial, from the first claim to the last record."""
    study, trials = study_and_trials(steps)
    with tempfile.TemporaryDirectory(dir=".") as folder, open_ledger(f"{folder}/tuner.sqlite") as ledger:
        loaded = LoadedWorkload(Adapters(width), Machine(Path(folder) / "checkpoints", "cpu", fuse=fuse))
        row = ledger.start_study(name, study, loaded.fingerprint())
        ledger.plan_trials(row.study_id, trials)
        began = time.process_time()
        InProcess().run(Job(ledger, row, loaded), Silent(), lambda: False)
        return 1e6 * (time.process_time() - began) / steps / NUM_TRIALS


def rates(width, rounds):
    steps, goal = GOALS[width]
    product(width, 50, NUM_TRIALS)
    pairs = [(product(width, steps, "off"), product(width, steps, NUM_TRIALS)) for _ in range(rounds)]
    alone, together = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(
        f"width {width:4}, {NUM_TRIALS} adapters: one by one {alone:.0f} us, together {together:.0f} us: "
        f"{ratio:.1f}x (goal {goal}x)",
        flush=True,
    )
    return ratio >= goal


def resident():
    """Bytes of this process in memory, after the C library gave back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def group_of(width, depth, num_trials):
    workload, (study, trials) = Adapters(width, depth), study_and_trials(100)
    setup = TrainingSetup(study, workload, Data.of(workload, CPU), CPU, Path("nowhere"), "bench")
    group = make_group([TrialRun(setup, trial) for trial in trials[:num_trials]])
    group.advance(3)
    return group


def memory():
    """Bytes: of one base, of all adapters, held by the group, by which the process grew."""
    torch.set_num_threads(1)
    group_of(32, 1, 2)  # what torch loads once
    before = resident()
    group = group_of(LARGE, 6, NUM_TRIALS)
    grown = resident() - before
    model = group.runs[0].model
    base = sum(one.nbytes for one in model.parameters() if not one.requires_grad)
    adapters = 4 * NUM_TRIALS * sum(one.nbytes for one in model.parameters() if one.requires_grad)
    models = [one for run in group.runs for one in (*run.model.parameters(), *run.model.buffers())]
    template = [one for one in group.model.template.parameters() if type(one) is nn.Parameter]
    stacks = [*group.model.stacks.values(), *group.model.shared.values(), *group.gradients, *group.optimizer.changing]
    every = [*models, *template, *stacks]
    held = {address(one) - one.storage_offset() * one.element_size(): one.untyped_storage().nbytes() for one in every}
    return base, adapters, sum(held.values()), grown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--widths", default="64,256")
    options = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        base, adapters, held, grown = pool.submit(memory).result()
    share = held / (base + adapters)
    print(
        f"base of {base / 4e6:.1f} M parameters and {NUM_TRIALS} adapters: base {base / 2**20:.1f} MiB, adapters "
        f"{adapters / 2**20:.1f} MiB, held {held / 2**20:.1f} MiB: {share:.2f}x (goal below {MOST_HELD}x); resident "
        f"{grown / 2**20:.0f} MiB; a base for each trial would be {NUM_TRIALS * base / 2**20:.0f} MiB",
        flush=True,
    )
    torch.set_num_threads(1)
    reached = list(map(partial(rates, rounds=options.rounds), map(int, options.widths.split(","))))
    return 0 if share < MOST_HELD and all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
