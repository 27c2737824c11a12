"""How long training waits for a checkpoint of 240 MB, in a folder and in a bucket, in one run and in turn.

    python benchmarks/object_store.py [saves]

The bucket is moto's server, a process of this machine. Medians of the time in which the loop stands still (the copy,
the wait of the next update for it, and taking the result), and of how long it takes until the checkpoint may be
recorded.
The server shares the processors with the training, which a bucket in a network would not.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path

import torch

from tuner.records import TrialUpdate
from tuner.stores import tidying
from tuner.stores.places import parsed_root
from tuner.training.checkpoints import CheckpointFolder
from tuner.training.saving import BackgroundSaver, Copies, num_bytes

SERVER = Path(__file__).parents[1] / "tests/support/s3_server.py"
WIDTH, DEPTH, BATCH = 1000, 20, 16
SAVES = 7


class Kept:
    """Checkpoints of one training in one place, as the trainer writes them."""

    def __init__(self, root):
        self.folder = CheckpointFolder(root, "trial-00000", 1)
        self.copies, self.saver, self.step, self.before = Copies(), BackgroundSaver(), 0, ()
        self.stands, self.takes = [], []

    def save(self, training):
        """Save once, with steps of the training beside it."""
        self.step += 1
        began = time.perf_counter()
        copy, copied = self.copies.of(training.state(), training.optimizer, self.saver.thread)
        write = partial(self.folder.write_state, "latest", self.step, copy, None)
        self.saver.start(TrialUpdate(0, 1, self.step), [write], copied)
        stands = time.perf_counter() - began
        stands += training.step()
        while not self.saver.over():
            training.step()
        self.takes.append(time.perf_counter() - began)
        began = time.perf_counter()
        _, written = self.saver.result()
        self.folder.forget((*self.before, *written), {one.file for one in written})
        self.before = written
        self.stands.append(stands + time.perf_counter() - began)

    def close(self):
        self.saver.close()
        tidying.wait()


class Training:
    """Twenty layers of a million weights, AdamW: 240 MB of state."""

    def __init__(self):
        self.model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.batch = torch.randn(BATCH, WIDTH)
        self.step()

    def step(self):
        """Seconds by which the update came later than its gradients: it waits for a copy of what it changes."""
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        waits = time.perf_counter()
        for hook in list(self.optimizer._optimizer_step_pre_hooks.values()):
            hook(self.optimizer, (), {})
        waits = time.perf_counter() - waits
        self.optimizer.step()
        return waits

    def state(self):
        return {"model": dict(self.model.named_parameters()), "optimizer": self.optimizer.state_dict()}


def main(saves):
    torch.set_num_threads(1)
    server = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/place", method="PUT")).close()
        os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
        with tempfile.TemporaryDirectory() as folder:
            training, places = Training(), {"folder": Path(folder), "bucket": parsed_root("s3://place/bench")}
            kept = {name: Kept(root) for name, root in places.items()}
            print(f"{num_bytes(training.state()) / 1e6:.0f} MB of state, {saves} checkpoints in each place, in turn")
            for _ in range(saves + 1):
                for one in kept.values():
                    one.save(training)
            for name, one in kept.items():
                one.close()
                stands, takes = statistics.median(one.stands[1:]), statistics.median(one.takes[1:])
                print(
                    f"{name}: training stands still for {1e3 * stands:.0f} ms; {takes:.2f} s until it may be recorded"
                )
            ratio = statistics.median(kept["bucket"].stands[1:]) / statistics.median(kept["folder"].stands[1:])
            print(f"the training waits {ratio:.2f} times as long for a bucket")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else SAVES)
