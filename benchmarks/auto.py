"""`--fuse auto` against `--fuse off`, on studies so short that a probe could cost more than it gains.

    python benchmarks/auto.py [--rounds 3] [--cases MLP,GRU]

CPU time of each study through the whole product, both ways in turn, median of the ratios off / auto: below 1 the
automatic choice costs.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from support.fusible import Gru, Lstm, Mlp

from benchmarks.fused import CASES, product, study_for, trials_of
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine


class Refused(Mlp):
    """Cannot be fused: reads a value."""

    def loss(self, model, batch, point):
        loss = super().loss(model, batch, point)
        return loss * (1.0 if loss.item() > 0 else 2.0)


WORKLOADS = {case: workload for case, (workload, *_) in CASES.items()} | {"GRU": Gru, "LSTM": Lstm, "refused": Refused}
SIZES = ((4, 40), (8, 200), (16, 400))  # trials, steps
LOWEST = 0.97


def ratio(workload_type, num_trials, steps, rounds):
    """How many times as fast `auto` is, and the group it chose."""
    workload = workload_type()
    study = study_for(workload, num_trials, steps)
    trials = trials_of(study, num_trials)
    loaded = {fuse: LoadedWorkload(workload, Machine(Path("."), "cpu", fuse=fuse)) for fuse in ("off", "auto")}
    pairs = []
    for _ in range(rounds):
        took = {fuse: product(one, study, trials) for fuse, one in loaded.items()}
        pairs.append(took["off"][0] / took["auto"][0])
    told = took["auto"][1]
    return statistics.median(pairs), told["trials"] if told else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lowest = 10.0
    for case, workload in WORKLOADS.items():
        if not any(word in case for word in options.cases.split(",")):
            continue
        found = [ratio(workload, *size, options.rounds) for size in SIZES]
        lowest = min(lowest, *(each for each, _ in found))
        cells = (f"{n} x {s}: {each:5.2f}x (groups of {k})" for (n, s), (each, k) in zip(SIZES, found, strict=True))
        print(f"{case:20} {'  '.join(cells)}", flush=True)
    print(f"lowest {lowest:.2f} (goal {LOWEST})")
    return 0 if lowest >= LOWEST else 1


if __name__ == "__main__":
    sys.exit(main())
