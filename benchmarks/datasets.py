"""What it costs to seed the examples of a dataset, in one run.

    python benchmarks/datasets.py

1. A dataset that draws nothing: thread CPU time of training steps (an MLP, batch 32) that look whether it drew, and of
   the same steps without a look; blocks in turn. The same for tensors in memory, of whose steps the
   loss alone is watched.
2. A dataset that draws from all three generators: microseconds of an example beyond drawing it unseeded, by batches of
   32, generators restored once a batch.
"""

import statistics
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from support.drawing import Drawing, none, of_all
from support.tiny import CPU, Tiny, setting_for, tiny_study

from tuner import Splits
from tuner.budget.step_budget import StepBudget
from tuner.rounds.plan import planned_trials
from tuner.training import trial_run
from tuner.training.batches import Split
from tuner.training.fetching import Fetcher
from tuner.training.host_generators import HOST, HostGenerators
from tuner.training.randomness import callers_generators_restored
from tuner.training.trial_run import TrialRun

BLOCK, BLOCKS, WARMUP = 10, 800, 4
SHARE_GOAL, EXAMPLE_GOAL = 0.02, 40.0  # of a step; microseconds


class Mlp(Tiny):
    batch_size = 32

    def __init__(self, make):
        self.make = make

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1000, 6, generator=generator)
        splits = (x[:800], (x[:800, 0] > 0).long()), (x[800:], (x[800:, 0] > 0).long())
        return Splits(*map(self.make, splits))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def augment(self, batch, point, generator):
        return batch


class Blind(HostGenerators):
    """Says that nothing drew, and looks at nothing."""

    touched = False

    def seed(self, value, word=None):
        """Nothing to do."""

    def rest(self):
        """Nothing to do."""


def plainly(fetcher, indices, seed):
    return fetcher._fetched(indices)


def timed(work):
    before = time.thread_time()
    work()
    return 1e6 * (time.thread_time() - before)


def quiet(values):
    """What a block takes while the machine leaves it alone: the mean of the ten quickest."""
    return statistics.mean(sorted(values)[:10])


def steps(make):
    """Microseconds of a step as it is and without a look, and the share of the look."""
    study = tiny_study(batch_size=32, augment=False, budget=StepBudget(2 * BLOCK * (BLOCKS + WARMUP), 1000))
    run = TrialRun(setting_for(study, Path("nowhere"), Mlp(make)), planned_trials(study)[0])
    looks = Fetcher.examples
    taken = {"with": [], "without": []}

    def block():
        run.advance(run.step + BLOCK)
        run.losses = []

    for place in range(BLOCKS + WARMUP):
        for kind in ("with", "without") if place % 2 else ("without", "with"):
            Fetcher.examples, host = (looks, HOST) if kind == "with" else (plainly, Blind())
            with patch.object(trial_run, "HOST", host):
                taken[kind].append(timed(block) / BLOCK)
    Fetcher.examples = looks
    looked, blind = (quiet(taken[kind][WARMUP:]) for kind in ("with", "without"))
    return looked, blind, looked / blind - 1.0


def examples():
    """Microseconds of an example that draws from all three: seeded, and unseeded."""
    split = Split("training", Drawing((torch.zeros(800, 6), torch.zeros(800)), of_all), CPU)
    wanted, taken = list(range(32)), {"seeded": [], "unseeded": []}
    split._fetcher.examples(wanted, 0)
    for _ in range(BLOCKS // 8):
        HOST.rest()
        taken["seeded"].append(timed(lambda: [split._fetcher.examples(wanted, 0) for _ in range(20)]) / 640)
        taken["unseeded"].append(timed(lambda: [split._fetcher._fetched(wanted) for _ in range(20)]) / 640)
    return quiet(taken["seeded"]), quiet(taken["unseeded"])


def main() -> int:
    torch.set_num_threads(1)
    with callers_generators_restored(CPU):
        good = True
        for name, make in (("a dataset", lambda tensors: Drawing(tensors, none)), ("tensors", lambda tensors: tensors)):
            looked, blind, share = steps(make)
            good = good and share <= SHARE_GOAL
            print(f"a step of {name:9}: {looked:.1f} us, {blind:.1f} without a look; share of the look {share:+.2%}")
        seeded, unseeded = examples()
    good = good and seeded - unseeded <= EXAMPLE_GOAL
    print(f"an example that draws from three generators: {seeded:.1f} us seeded, {unseeded:.1f} us unseeded")
    print(f"goals: at most {SHARE_GOAL:.0%} of a step, at most {EXAMPLE_GOAL:.0f} us an example more")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
