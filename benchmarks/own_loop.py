"""What the handle of an own loop costs: the same plain loop with us and without, in turn, in one process.

    python benchmarks/own_loop.py [--steps 20000]

Both loops train the same model on the same kind of batches, block by block in turn, with 50 evaluations each. With us
the loop asks for the rate of each step, takes its batches from `trial.batches`, reports, and a Ledger and checkpoints
are written every two seconds, all in the time that counts. Printed are the sums over all blocks by the wall clock and
by the time of the thread, and their ratios. Exit code 1 where the ratio by the wall clock is above the goal at steps of
about 1 ms.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tuner import OwnLoop, SearchSpace, constant, log_uniform, minimize
from tuner.budget.step_budget import StepBudget
from tuner.delegated.engine import Delegated
from tuner.delegated.setup import LoopSetup
from tuner.design.study import Study
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger

BLOCK, EVALUATIONS, GOAL, COMMIT_SECONDS = 100, 50, 1.02, 2.0
X = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
Y = X[:, :10].argmax(1)


class Timed(OwnLoop):
    """Trains with the handle and, in turn with that, by hand."""

    select_by = minimize("validation/loss")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.wall = [0.0, 0.0]
        self.thread = [0.0, 0.0]

    def made(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        wide, size = self.width, 64
        deep = [
            nn.Linear(size, wide or 1),
            nn.ReLU(),
            nn.Linear(wide or 1, wide or 1),
            nn.ReLU(),
            nn.Linear(wide or 1, 10),
        ]
        layers = deep if wide else [nn.Linear(size, 10)]
        model = nn.Sequential(*layers)
        return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def batches(self) -> DataLoader[tuple[torch.Tensor, ...]] | list[tuple[torch.Tensor, torch.Tensor]]:
        """A DataLoader for large steps; a list of batches for small ones, of which a DataLoader would be the most."""
        data = TensorDataset(X, Y)
        return DataLoader(data, 64, shuffle=True) if self.width else list(zip(X.split(32), Y.split(32), strict=True))

    def train(self, trial) -> None:
        (mine, optimizer), (other, others) = self.made(), self.made()
        trial.keep(model=mine, optimizer=optimizer)
        loader, due = self.batches(), frozenset(trial.evaluation_steps)
        ours = self.with_us(trial, trial.steps(), trial.batches(loader), mine, optimizer)
        theirs = self.by_hand(trial.max_train_steps, due, self.batches(), other, others)
        pairs = [ours, theirs]
        for number in range(trial.max_train_steps // BLOCK):
            for place in (0, 1) if number % 2 else (1, 0):
                wall, thread = time.perf_counter(), time.thread_time()
                next(pairs[place])
                self.thread[place] += time.thread_time() - thread
                self.wall[place] += time.perf_counter() - wall
        wall, thread = time.perf_counter(), time.thread_time()
        next(ours, None)  # the last commit
        self.thread[0] += time.thread_time() - thread
        self.wall[0] += time.perf_counter() - wall

    def with_us(self, trial, steps, batches, model, optimizer) -> Iterator[None]:
        for step in steps:
            for group in optimizer.param_groups:
                group["lr"] = trial.rate(step)
            update(model, optimizer, *next(batches))
            if trial.evaluates(step):
                trial.report({"validation/loss": loss_of(model)})
            if (step + 1) % BLOCK == 0:
                yield

    def by_hand(self, last, due, loader, model, optimizer) -> Iterator[None]:
        step = 0
        while True:
            for x, y in loader:
                for group in optimizer.param_groups:
                    group["lr"] = 0.01
                update(model, optimizer, x, y)
                step += 1
                if step in due:
                    loss_of(model).item()
                if step % BLOCK == 0:
                    yield


def update(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


@torch.no_grad()
def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(X[:1024]), Y[:1024])


def measured(width: int, steps: int) -> tuple[float, float, float]:
    """Microseconds of a step by hand, and the ratios by the wall clock and by the time of the thread."""
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    study = Study(
        name="round-1", kind="round", goal="overhead", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget.with_evaluations(steps, EVALUATIONS), num_trials=1,
        objective=minimize("validation/loss"), fitted_when=None,
        optimizer=None, schedule=constant(), warmup_steps=0, batch_size=0, seed=1, round=1,
    )  # fmt: skip
    workload = Timed(width)
    with tempfile.TemporaryDirectory() as folder, open_ledger(str(Path(folder) / "l.sqlite")) as ledger:
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
    return 1e6 * workload.wall[1] / steps, workload.wall[0] / workload.wall[1], workload.thread[0] / workload.thread[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="of each loop; a multiple of 100")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    ratio, _ = 0.0, measured(0, 1000)  # the first checkpoint of a process imports what writes it
    for width in (0, 256):
        each, ratio, of_thread = measured(width, steps)
        print(
            f"a step of {each:6.0f} us by hand: with us {ratio:.3f} by the clock, {of_thread:.3f} by the thread's time"
        )
    print(f"goal for the last: at most {GOAL}")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
