"""How many combinations of model, group, order, seed and start step were trained both ways, and how many are the same.

    python benchmarks/exactness.py [SECONDS]

Each combination: K trials of a model stacked in a random order, started at a random step (trained alone until there),
some steps together; then losses, gradients, parameters, buffers and optimizer state compared bit for bit with each
trial alone. Combinations are drawn anew for each model in turn until the time is over.
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from support.fusible import MUST_FUSE, runs_of

from tuner.fused.making import exact_group
from tuner.training.checkpoints import canonical_digest

STEPS = 12


def same_bits(workload, draw):
    """One drawn combination: for each trial whether it has the same bits both ways."""
    count = draw.choice([1, 2, 3, 5, 8, 16])
    start, seed = draw.choice([0, 1, 4, 9]), draw.randrange(2**31)
    order = draw.sample(range(count), count)
    together, alone = ([runs_of(workload(), count, seed=seed)[place] for place in order] for _ in range(2))
    for run in (*together, *alone):
        run.advance(start)
    group = exact_group(together)
    steps = min(STEPS, len(together[0].rates) - start)
    group.advance(steps)
    for run in alone:
        run.advance(start + steps)
    return [canonical_digest(a.state()) == canonical_digest(b.state()) for a, b in zip(together, alone, strict=True)]


def main(seconds):
    torch.set_num_threads(1)
    draw, end = random.Random(1), time.perf_counter() + seconds
    tried, identical, trials = Counter(), Counter(), Counter()
    while time.perf_counter() < end:
        for workload in MUST_FUSE:
            same = same_bits(workload, draw)
            tried[workload.__name__] += 1
            identical[workload.__name__] += all(same)
            trials[workload.__name__] += len(same)
    for name in tried:
        print(f"{name:32} {tried[name]:4} combinations, {trials[name]:5} trials, {identical[name]:4} identical")
    print(f"{'all':32} {tried.total():4} combinations, {trials.total():5} trials, {identical.total():4} identical")
    return 0 if tried == identical else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0))
