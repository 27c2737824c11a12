"""What a study costs around Lightning's Trainer: the same Trainer with us and without, in turn, in one process.

    python benchmarks/lightning_loop.py [--steps 2000] [--pairs 8]

Both train the same LightningModule on the same loader with 50 validations. With us the learning rate of each step is
set, metrics are recorded, and a Ledger and checkpoints are written every two seconds; all of it in the time that
counts, which is that from the first step to the end of the last. Printed are the medians over the pairs by the wall
clock and by the time of the thread. Exit code 1 where the ratio by the time of the thread is above the goal.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tuner import LightningWorkload, SearchSpace, constant, log_uniform, minimize
from tuner.budget.step_budget import StepBudget
from tuner.delegated.engine import Delegated
from tuner.delegated.setup import LoopSetup
from tuner.design.study import Study
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger

EVALUATIONS, GOAL, COMMIT_SECONDS = 50, 1.03, 2.0
X = torch.randn(8192, 64, generator=torch.Generator().manual_seed(0))
Y = X[:, :10].argmax(1)


class Net(pl.LightningModule):
    """A step of about a millisecond, as small as anybody would train with Lightning."""

    def __init__(self, learning_rate: float = 0.01) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9)

    def train_dataloader(self):
        return DataLoader(TensorDataset(X, Y), 64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(X[:1024], Y[:1024]), 512)


class Clock(pl.Callback):
    """The seconds from the first step to the end of training, by the wall clock and of the thread."""

    def on_train_start(self, *arguments):
        self.begun = time.perf_counter(), time.thread_time()

    def on_train_end(self, *arguments):
        self.seconds = time.perf_counter() - self.begun[0], time.thread_time() - self.begun[1]


def without_us(steps: int, clock: Clock, folder: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl.Trainer(
            max_steps=steps, max_epochs=-1, val_check_interval=steps // EVALUATIONS, check_val_every_n_epoch=None,
            num_sanity_val_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", callbacks=[clock], default_root_dir=folder,
        ).fit(Net())  # fmt: skip


def with_us(steps: int, clock: Clock, folder: str) -> None:
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    study = Study(
        name="round-1", kind="round", goal="overhead", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget.with_evaluations(steps, EVALUATIONS), num_trials=1,
        objective=minimize("validation/loss"), fitted_when=None,
        optimizer=None, schedule=constant(), warmup_steps=0, batch_size=0, seed=1, round=1,
    )  # fmt: skip
    workload = LightningWorkload(
        module=lambda point: Net(**point), trainer=lambda point: {"callbacks": [clock]}, select_by=study.objective
    )
    with open_ledger(str(Path(folder) / "l.sqlite")) as ledger:
        row = ledger.start_study("bench", study, "bench")
        ledger.plan_trials(row.study_id, planned_trials(study))
        claims = ledger.claim(row.study_id, worker="bench:0:0", lease_seconds=600)
        setup = LoopSetup(
            study=study, workload=workload, device=torch.device("cpu"), checkpoint_root=Path(folder),
            checkpoint_place="bench", commit_seconds=COMMIT_SECONDS,
        )  # fmt: skip
        (update,) = Delegated(setup).trainer(ledger, lambda claim, step: None).train(claims)
        if update.state is not State.COMPLETE:
            raise SystemExit(f"the trial ended as {update.state}: {update.reason}")


def measured(train, steps: int) -> tuple[float, float]:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        train(steps, clock, folder)
    return clock.seconds


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    measured(without_us, given.steps // 4)  # the first run of a process is slower
    ratios, alone = [], []
    for pair in range(given.pairs):
        found = {}
        for train in (with_us, without_us) if pair % 2 else (without_us, with_us):
            found[train] = measured(train, given.steps)
        ratios.append([ours / theirs for ours, theirs in zip(found[with_us], found[without_us], strict=True)])
        alone.append(1e6 * found[without_us][0] / given.steps)
    wall, thread = (statistics.median(one) for one in zip(*ratios, strict=True))
    print(
        f"a step without us {statistics.median(alone):,.0f} us; with us {wall:.3f} times as long by the wall clock, "
        f"{thread:.3f} times by the time of the thread (goal {GOAL}), {EVALUATIONS} evaluations"
    )
    return int(thread > GOAL)


if __name__ == "__main__":
    sys.exit(main())
