"""How long a checkpoint of 10 million parameters with AdamW keeps the training loop waiting, against `torch.save`.

    python tests/benchmarks/saving.py

In one run and in turn: `torch.save` of the same state into a file, without fsync, and ours through the trainer's own
saver (a copy; sha256, fsync and rename in a thread). Medians of the time in which the loop stands still, and of what
a checkpoint costs the loop altogether, by the time of the steps that follow it.
"""

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from tuner.records import TrialUpdate
from tuner.training.checkpoints import CheckpointFolder
from tuner.training.saving import BackgroundSaver, Copies, num_bytes

WIDTH, DEPTH, BATCH = 1000, 10, 64
STEPS, CHECKPOINTS = 8, 12  # steps between checkpoints, checkpoints of each kind


class Training:
    """Ten layers of a million weights, AdamW: 120 MB of state."""

    def __init__(self):
        self.model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.batch = torch.randn(BATCH, WIDTH)
        self.steps(2)

    def steps(self, count):
        """Seconds of `count` steps."""
        began = time.perf_counter()
        for _ in range(count):
            self.optimizer.zero_grad()
            self.model(self.batch).square().mean().backward()
            self.optimizer.step()
        return time.perf_counter() - began

    def state(self):
        return {"model": dict(self.model.named_parameters()), "optimizer": self.optimizer.state_dict()}


class Beside:
    """As the trainer does it."""

    def __init__(self, folder):
        self.folder = CheckpointFolder(folder, "trial-00000", 1)
        self.copies, self.saver, self.step = Copies(), BackgroundSaver(), 0

    def save(self, training):
        self.step += 1
        write = partial(
            self.folder.write_state, "latest", self.step, self.copies.of(training.state(), self.saver.thread), None
        )
        self.saver.start(TrialUpdate(0, 1, self.step), [write])

    def hand_in(self):
        _, (written,) = self.saver.result()
        self.folder.sweep({written.file})


def measured(training, folder):
    """Seconds of standing still and of the steps afterwards, by kind; of none there are only steps."""
    beside, plain = Beside(folder), folder / "plain.pt"
    times = {kind: ([], []) for kind in ("none", "torch.save", "beside")}
    for turn in range(CHECKPOINTS + 1):
        for kind, (still, steps) in times.items():
            began = time.perf_counter()
            if kind == "torch.save":
                torch.save(training.state(), plain)
            elif kind == "beside":
                beside.save(training)
            waited = time.perf_counter() - began
            after = training.steps(STEPS)
            if kind == "beside":
                beside.hand_in()
            if turn:  # the first of each is for warming up
                still.append(waited)
                steps.append(after)
    beside.saver.close()
    return times


def main():
    torch.set_num_threads(1)
    training = Training()
    size = num_bytes(training.state()) / 1e6
    with tempfile.TemporaryDirectory(dir=".") as folder:
        times = measured(training, Path(folder))
    calm = statistics.median(times["none"][1])
    for kind in ("torch.save", "beside"):
        still, steps = (statistics.median(part) for part in times[kind])
        cost = still + steps - calm
        told = f"{kind}, {size:.0f} MB: the loop stands still for {1e3 * still:.1f} ms, and a checkpoint costs it "
        sys.stdout.write(f"{told}{1e3 * cost:.0f} ms ({STEPS} steps of {1e3 * calm / STEPS:.0f} ms follow)\n")
    ratio = statistics.median(times["torch.save"][0]) / statistics.median(times["beside"][0])
    sys.stdout.write(f"torch.save keeps the loop waiting {ratio:.1f} times as long\n")


if __name__ == "__main__":
    main()
