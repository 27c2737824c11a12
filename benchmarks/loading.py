"""Loading processes: step rates with and without them, and beside a plain loop over torch's DataLoader.

    python benchmarks/loading.py                             # every kind, on a quiet machine with two free cores
    python benchmarks/loading.py waiting                     # one kind: needs no free core
    python benchmarks/loading.py nothing --before ../old     # CPU time of a step against an older checkout

Kinds of datasets: `computing` takes 2 ms of CPU time an example, as decoding a small JPEG does; `waiting` sleeps 2 ms,
as a read from a network does; `nothing` indexes a tensor. Batches of 32. Rates are of wall time, medians of blocks that
the loops take in turn, and compare only within one run.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tuner import Campaign, Round, SearchSpace, Splits, Workload, log_uniform, minimize
from tuner.design.points import Point
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.models import build_model
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

BATCH, EXAMPLES, SECONDS, BLOCKS = 32, 4096, 0.002, 7
STEPS = {"computing": 24, "waiting": 60, "nothing": 400}  # of a block
PROCESSES = {"computing": 2, "waiting": 8, "nothing": 2}


class Examples(Dataset[Any]):
    """Vectors with a label; `cost` is what it takes to get one."""

    def __init__(self, cost: Callable[[], None]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(EXAMPLES, 64, generator=generator)
        self.y = (self.x[:, 0] > 0).long()
        self.cost = cost

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> Any:
        self.cost()
        return self.x[index], self.y[index]


def computing() -> None:
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        pass


def waiting() -> None:
    time.sleep(SECONDS)


def nothing() -> None:
    pass


COSTS = {"computing": computing, "waiting": waiting, "nothing": nothing}


class Photos(Workload):
    """A small network on one kind of dataset."""

    batch_size = BATCH
    select_by = minimize("validation/loss")

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def data(self) -> Splits:
        training = Examples(COSTS[self.kind])
        return Splits(training=training, validation=(training.x[:64], training.y[:64]))

    def model(self, point: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def loss(self, model: Any, batch: Any, point: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": F.cross_entropy(model(batch[0]), batch[1], reduction="none")}


def setup_of(kind: str, folder: Path) -> tuple[TrainingSetup, Any]:
    """A trial of many steps."""
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-2))
    rounds = [Round("how fast", trials=1, max_train_steps=100_000, space=space)]
    campaign = Campaign(Photos(kind), rounds=rounds, evaluations=20)
    study = study_of_round(campaign, 1, 100_000)
    device = torch.device("cpu")
    workload = campaign.workload
    setup = TrainingSetup(study, workload, Data.of(workload, device), device, folder, "loading/round-1")
    return setup, trial_at(study, 0, Point.of({"learning_rate": 1e-3}), "by hand")


def trainers_loop(setup: TrainingSetup, trial: Any) -> Iterator[None]:
    """A trial, some steps at each `next`."""
    run = TrialRun(setup, trial)
    steps = STEPS[setup.workload.kind]  # type: ignore[attr-defined]
    while True:
        run.advance(run.step + steps)
        torch.stack(run.losses).tolist()
        run.losses = []
        yield


def plain_loop(setup: TrainingSetup, trial: Any, processes: int) -> Iterator[None]:
    """What a user would write: AdamW over a DataLoader with so many workers."""
    model = build_model(setup, trial).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    dataset = setup.data.training.dataset
    loader: Any = DataLoader(
        dataset, BATCH, shuffle=True, drop_last=True, num_workers=processes, persistent_workers=processes > 0
    )
    batches = (batch for _ in itertools.count() for batch in loader)
    while True:
        for batch in itertools.islice(batches, STEPS[setup.workload.kind]):  # type: ignore[attr-defined]
            optimizer.zero_grad()
            setup.workload.loss(model, batch, trial.point).backward()
            optimizer.step()
        yield


def rates(kind: str, folder: Path) -> dict[str, float]:
    """Steps a second of each loop."""
    count = PROCESSES[kind]
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        loops = {}
        for name, processes in (("data_workers = 0", 0), (f"data_workers = {count}", count)):
            setup, trial = setup_of(kind, folder)
            stack.enter_context(setup.data.loading.at_work(processes, count, pin=False))
            loops[name] = trainers_loop(setup, trial)
        loops[f"plain loop, {count} workers"] = plain_loop(setup, trial, count)
        for name, loop in loops.items():
            next(loop)  # processes start, kernels are chosen
            found[name] = []
        for _ in range(BLOCKS):
            for name, loop in loops.items():
                next(loop)  # what was made while the others ran is used up
                began = time.perf_counter()
                next(loop)
                found[name].append(STEPS[kind] / (time.perf_counter() - began))
    return {name: statistics.median(each) for name, each in found.items()}


def cpu_of_a_step(folder: Path) -> float:
    """Least microseconds of CPU time of a step of a dataset that costs nothing, fetched by the trainer itself."""
    loop, least = trainers_loop(*setup_of("nothing", folder)), float("inf")
    for _ in range(BLOCKS):
        before = time.thread_time()
        next(loop)
        least = min(least, 1e6 * (time.thread_time() - before) / STEPS["nothing"])
    return least


def against(before: Path) -> tuple[float, float]:
    """CPU time of a step, here and in an older checkout: processes in turn, the least of each."""
    here = Path(__file__).resolve().parents[1]
    found: dict[Path, list[float]] = {before: [], here: []}
    for _ in range(BLOCKS):
        for checkout, times in found.items():
            environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, __file__, "--cpu"], capture_output=True, text=True, check=True, env=environment
            )
            times.append(float(done.stdout))
    return min(found[here]), min(found[before])


def report(kind: str, folder: Path) -> None:
    measured = rates(kind, folder)
    (none, without), (some, ahead), (plain, by_hand) = measured.items()
    print(f"{kind}: {EXAMPLES:,} examples, batches of {BATCH}")
    for name, rate in measured.items():
        print(f"  {name:<24}{rate:>10.1f} steps/s")
    print(f"  {some} / {none}: {ahead / without:.2f}; / {plain}: {ahead / by_hand:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(COSTS), help="computing, waiting, nothing")
    parser.add_argument("--before", type=Path, help="an older checkout, to compare the CPU time of a step with")
    parser.add_argument("--cpu", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if given.cpu:
            print(cpu_of_a_step(Path(folder)))
            return
        for kind in given.kinds:
            report(kind, Path(folder))
        if given.before is not None:
            now, then = against(given.before.resolve())
            print(f"nothing, fetched by the trainer: {now:.1f} us of CPU a step, before {then:.1f}: {now / then:.3f}")


if __name__ == "__main__":
    main()
