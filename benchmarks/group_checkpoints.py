"""Saving the states of 16 small trials: one stacked file against 16 files of torch.save, all of them durable.

python benchmarks/group_checkpoints.py
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from support.fusible import Mlp, runs_of

from tuner.fused.group import Group
from tuner.training.checkpoints import CheckpointFolder, read_state
from tuner.training.stacked_states import stacked_states

NUM_TRIALS, ROUNDS = 16, 15


def milliseconds(work, number):
    began = time.perf_counter()
    work(number)
    return 1e3 * (time.perf_counter() - began)


def main():
    runs = runs_of(Mlp(), NUM_TRIALS)
    Group(runs).advance(3)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        one, many = (CheckpointFolder(Path(folder), name) for name in ("one", "many"))

        def stacked(number):
            one.write_state("latest", number, stacked_states({str(run.trial.number): run.state() for run in runs}), 0.0)

        def single(number):
            for place, run in enumerate(runs):
                many.write_state("latest", number * NUM_TRIALS + place, run.state(), 0.0)

        pairs = [(milliseconds(single, number), milliseconds(stacked, number)) for number in range(ROUNDS)]
        kept = one.write_state("latest", 999, stacked_states({str(run.trial.number): run.state() for run in runs}), 0.0)
        loading = milliseconds(lambda number: read_state(Path(folder), kept), 0)
    singles, stacks = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{NUM_TRIALS} files {singles:.1f} ms, one file {stacks:.1f} ms: {ratio:.1f}x (goal 4x); read {loading:.1f} ms"
    )
    return 0 if ratio >= 4.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
