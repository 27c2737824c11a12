"""How long a checkpoint of 10 million parameters with AdamW keeps the training loop waiting, against `torch.save`.

    python benchmarks/saving.py [busy]        busy: another process computes all the time, on the second core

In one run and in turn: `torch.save` of the same state into a file, without fsync, and ours through the trainer's own
saver (a copy; sha256, fsync and rename in a thread). Medians of the time in which the loop stands still (the wait of
the next update for the copy included), and of what a checkpoint costs the loop altogether, by the time of the steps
that follow it.
"""

import statistics
import subprocess
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
COMPUTE = "import torch; torch.set_num_threads(1); a = torch.randn(1000, 1000)\nwhile True: a @ a"


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
            self.at_update = time.perf_counter()
            self.optimizer.step()
        return time.perf_counter() - began

    def state(self):
        return {"model": dict(self.model.named_parameters()), "optimizer": self.optimizer.state_dict()}


class Beside:
    """As the trainer does it."""

    def __init__(self, folder):
        self.folder = CheckpointFolder(folder, "trial-00000", 1)
        self.copies, self.saver, self.step = Copies(), BackgroundSaver(), 0
        self.copied_at = 0.0

    def copied(self, _):
        self.copied_at = time.perf_counter()

    def save(self, training):
        self.step += 1
        copy, copied = self.copies.of(training.state(), training.optimizer, self.saver.thread)
        write = partial(self.folder.write_state, "latest", self.step, copy, None)
        copied.add_done_callback(self.copied)
        self.saver.start(TrialUpdate(0, 1, self.step), [write], copied)

    def hand_in(self):
        _, (written,) = self.saver.result()
        self.folder.sweep({written.file})


def measured(training, folder):
    """Seconds of saving, of waiting before the next update, and of all steps afterwards (the wait too), by kind."""
    beside, plain = Beside(folder), folder / "plain.pt"
    times = {kind: ([], [], []) for kind in ("none", "torch.save", "beside")}
    for turn in range(CHECKPOINTS + 1):
        for kind, kept in times.items():
            began = time.perf_counter()
            if kind == "torch.save":
                torch.save(training.state(), plain)
            elif kind == "beside":
                beside.save(training)
            saved = time.perf_counter() - began
            after = training.steps(1)
            waited = max(0.0, beside.copied_at - training.at_update)
            after += training.steps(STEPS - 1)
            if kind == "beside":
                beside.hand_in()
            if turn:  # the first of each is for warming up
                for part, seconds in zip(kept, (saved, waited, after), strict=True):
                    part.append(seconds)
    beside.saver.close()
    return times


def main():
    torch.set_num_threads(1)
    training = Training()
    size = num_bytes(training.state()) / 1e6
    other = subprocess.Popen([sys.executable, "-c", COMPUTE]) if "busy" in sys.argv[1:] else None
    try:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            times = measured(training, Path(folder))
    finally:
        if other is not None:
            other.kill()
    calm = statistics.median(times["none"][2])
    still = {kind: statistics.median(map(sum, zip(*times[kind][:2], strict=True))) for kind in times}
    for kind in ("torch.save", "beside"):
        saved, waited, steps = map(statistics.median, times[kind])
        told = f"{kind}, {size:.0f} MB: the loop stands still for {1e3 * still[kind]:.1f} ms "
        told += f"({1e3 * waited:.1f} at the next update), and a checkpoint costs it"
        cost = 1e3 * (saved + steps - calm)
        sys.stdout.write(f"{told} {cost:.0f} ms ({STEPS} steps of {1e3 * calm / STEPS:.0f} ms follow)\n")
    sys.stdout.write(f"torch.save keeps the loop waiting {still['torch.save'] / still['beside']:.1f} times as long\n")


if __name__ == "__main__":
    main()
