"""Batches in slices: time of a step, and memory of activations, against the same batch as one.

    python benchmarks/slices.py                  # an encoder whose products dominate, and a small MLP
    python benchmarks/slices.py --at-a-time      # whether slices computed together would be faster

Steps of both kinds are timed in turn within one process, and medians are compared: a ratio of one run. Activations are
the bytes that autograd keeps for the backward pass of a loss, without parameters. --at-a-time stacks the slices as a
group stacks trials, by the rules that keep each one's bits, and times it against one after the other.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, log_uniform, minimize
from tuner.design.points import Point
from tuner.fused.group import Group
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.setup import Data, TrainingSetup
from tuner.training.slices import Slices
from tuner.training.trial_run import TrialRun

CPU = torch.device("cpu")
BLOCKS = 9
WARM_UP = 2


class Encoder(Workload):
    """Compute dominates: two layers of width 256 over 64 positions."""

    batch_size = 64
    select_by = minimize("validation/loss")
    positions, width = 64, 256
    steps = 1  # of a block

    def data(self) -> Splits:
        x = torch.randn(256, self.positions, 16, generator=torch.Generator().manual_seed(0))
        y = (x.mean((1, 2)) > 0).long()
        return Splits(training=(x, y), validation=(x[:64], y[:64]))

    def model(self, point: Any) -> nn.Module:
        layer = nn.TransformerEncoderLayer(self.width, 4, 4 * self.width, 0.1, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.Sequential(nn.Linear(16, self.width), encoder, nn.Linear(self.width, 2))

    def loss(self, model: Any, batch: Any, point: Any) -> Any:
        return F.cross_entropy(model(batch[0]).mean(1), batch[1])

    def metrics(self, model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": F.cross_entropy(model(batch[0]).mean(1), batch[1], reduction="none")}


class Mlp(Encoder):
    """Calls dominate: the size at which nobody needs slices."""

    positions, width, steps = 1, 64, 30

    def model(self, point: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def run_of(workload: Workload, slices: int, number: int = 0) -> TrialRun:
    """A trial that trains for long enough."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-3))
    workload.slices = slices
    campaign = Campaign(workload, [Round("slices", trials=2, max_train_steps=100_000, space=space)], name="slices")
    study = study_of_round(campaign, 1, 100_000)
    setup = TrainingSetup(study, workload, Data.of(workload, CPU), CPU, Path("nowhere"), "slices")
    return TrialRun(setup, trial_at(study, number, Point.of({"learning_rate": 3e-4}), "benchmark"))


def seconds_of(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(workload: Workload, slices: int) -> tuple[float, float]:
    """Milliseconds of a step of one large batch, and how many times that its slices take."""
    runs = [run_of(workload, count) for count in (1, slices)]
    steps = workload.steps  # type: ignore[attr-defined]
    times: list[list[float]] = [[], []]
    for _ in range(WARM_UP + BLOCKS):
        for run, found in zip(runs, times, strict=True):
            found.append(seconds_of(lambda run=run: run.advance(run.step + steps)) / steps)
    whole, cut = (statistics.median(found[WARM_UP:]) for found in times)
    return 1e3 * whole, cut / whole


def activations(workload: Workload, slices: int) -> int:
    """The most bytes that autograd keeps for a backward pass, without parameters."""
    run = run_of(workload, slices)
    own = {parameter.untyped_storage().data_ptr() for parameter in run.model.parameters()}
    most = 0
    batch = run.batch_at(0)
    for each in [batch[part] for part in range(slices)] if isinstance(batch, Slices) else [batch]:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            place = tensor.untyped_storage()
            if place.data_ptr() not in own:
                kept[place.data_ptr()] = place.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = run.setup.workload.loss(run.model.train(), each, run.point)
        most = max(most, sum(kept.values()))
        del loss
    return most


def at_a_time(workload: Workload, size: int, together: int) -> float:
    """How many times as fast the losses and gradients of `together` slices are stacked, as one after the other."""
    workload.batch_size = size
    runs = [run_of(workload, 1) for _ in range(together)]
    alone = run_of(workload, 1)
    group = Group(runs)
    steps = workload.steps  # type: ignore[attr-defined]
    stacked, single = [], []
    for _ in range(WARM_UP + BLOCKS):
        stacked.append(seconds_of(lambda: group.advance(steps)))
        single.append(together * seconds_of(lambda: alone.advance(alone.step + steps)))
    return statistics.median(single[WARM_UP:]) / statistics.median(stacked[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-a-time", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for kind in (Encoder, Mlp):
        if options.at_a_time:
            for together in (2, 4, 8):
                print(
                    f"{kind.__name__}: {together} slices of 8 at a time: {at_a_time(kind(), 8, together):.2f} x as fast"
                )
            continue
        whole = activations(kind(), 1)
        for slices in (2, 4, 8):
            step, times = ratio(kind(), slices)
            share = activations(kind(), slices) / whole
            print(
                f"{kind.__name__}: {slices} slices of {64 // slices}: {times:.2f} x the time of one batch "
                f"({step:.2f} ms), {share:.3f} x its activations ({whole / 2**20:.1f} MiB)"
            )


if __name__ == "__main__":
    main()
