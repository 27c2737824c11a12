"""Fused trials on a GPU against the same trials one after the other: steps a second, bits, and the device's ceilings.

    python benchmarks/gpu.py [--sizes 1 8 64 256] [--seconds 1] [--json FILE] [--device cuda]

Digits data, batch 64, AdamW. "one by one" is the trainer's own loop on one trial (fused AdamW, deterministic
kernels, losses left on the device). A group is built with the least care that keeps the bits (0: batched products,
1: products trial by trial, 2: all that computes); where none does, the figure of care 0 is given and said to be equal
to rounding only. The floor of a trial-step is its arithmetic at the measured rate of a large matrix product, or the
traffic of weights, gradients and AdamW state at the measured copy rate, whichever is longer.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from reference_studies.digits import Digits, campaign
from support.fusible import Encoder, ResNet

from tuner.design.points import Point
from tuner.errors import NotFusible
from tuner.fused.cuda_graph import WARM_UP
from tuner.fused.group import Group
from tuner.fused.making import first_difference
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.determinism import settle_determinism
from tuner.training.numerics import choose_device, numerics, prepare_numerics, wait_for
from tuner.training.setup import Data, TrainingSetup
from tuner.training.trial_run import TrialRun

BYTES_A_PARAMETER = 28  # AdamW reads weight, gradient and two moments, and writes all but the gradient


class Mlp(Digits):
    def model(self, point):
        return nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )  # fmt: skip


class MlpWithDropout(Digits):
    """As in reference_studies/digits.py."""


class Cnn(Digits):
    def model(self, point):
        return ResNet()


class Transformer(Digits):
    def model(self, point):
        return Encoder()


CASES = {
    "MLP 64-128-128-10": Mlp,
    "the same with dropout": MlpWithDropout,
    "residual CNN": Cnn,
    "transformer encoder": Transformer,
}


def make_run(setting, number):
    point = Point.of({
        "learning_rate": 1e-3 * (1 + number % 7), "weight_decay": 0.01, "dropout": 0.05 + 0.001 * number,
        "label_smoothing": 0.0005 * number,
    })  # fmt: skip
    return TrialRun(setting, trial_at(setting.study, number, point, "by hand"))


def seconds_a_call(work, device, seconds, least=3):
    """Of a call that is repeated for about so long."""
    wait_for(device)
    began, calls = time.perf_counter(), 0
    while calls < least or time.perf_counter() - began < seconds:
        work()
        calls += 1
        if calls % 10 == 0:
            wait_for(device)
    wait_for(device)
    return (time.perf_counter() - began) / calls


def ceilings(device):
    """FLOP/s of a large float32 product, and bytes/s of a large copy, read and written."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    out = torch.empty_like(a)
    product = seconds_a_call(lambda: torch.mm(a, b, out=out), device, 0.3)
    copy = seconds_a_call(lambda: out.copy_(a), device, 0.3)
    tiny = torch.zeros(1, device=device)
    launch = seconds_a_call(lambda: tiny.add_(1.0), device, 0.2)
    return {"flops": 2 * size**3 / product, "bytes": 2 * a.nbytes / copy, "launch_us": 1e6 * launch}


def floor_of(run, limits):
    """Seconds that no way of computing a step of one trial goes below."""
    counter = FlopCounterMode(display=False)
    with counter:
        run.setup.workload.loss(run.model, run.batches.at(0), run.point).backward()
    run.model.zero_grad(set_to_none=True)
    parameters = sum(parameter.numel() for parameter in run.parameters)
    return max(counter.get_total_flops() / limits["flops"], BYTES_A_PARAMETER * parameters / limits["bytes"])


def built(setting, num_trials, cares):
    """The group of the least care that keeps the bits and what the others had wrong; None where none does."""
    wrong = {}
    for care in cares:
        try:
            group = Group([make_run(setting, number) for number in range(num_trials)], care=care)
            wrong[care] = first_difference(group)
        except NotFusible as error:
            wrong[care] = str(error)
        if wrong[care] is None:
            return group, wrong
    return None, wrong


def timed(group, device, seconds):
    """Updates a second of a whole group, after its graph was captured."""
    group.advance(WARM_UP + 2)
    took = seconds_a_call(lambda: group.advance(5), device, seconds, least=1) / 5
    for run in group.runs:
        run.losses = []
    return 1.0 / took


def measured(setting, sizes, seconds, limits):
    """A row for each size of group, as soon as it is there."""
    device = setting.device
    prepare_numerics(device, 1)
    one = make_run(setting, 0)
    if operation := settle_determinism(setting, one.trial):
        print(f"  {operation} has no deterministic kernel here")
    floor = floor_of(one, limits)
    one.advance(20)
    alone = 5 / seconds_a_call(lambda: one.advance(one.step + 5), device, seconds)
    care = 0
    for size in sizes:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        group, wrong = built(setting, size, range(care, 3))
        exact = group is not None
        care = group.task.care if exact else 3
        group = group or Group([make_run(setting, number) for number in range(size)])
        build = time.perf_counter() - began
        rate = size * timed(group, device, seconds)
        row = {
            "trials": size, "alone": alone, "together": rate, "ratio": rate / alone, "floor_share": rate * floor,
            "exact": exact, "care": group.task.care, "wrong": wrong, "build_s": build, "graph": group.graphs.in_use,
            "no_graph_because": group.graphs.refused,
            "peak_mb": torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
        }  # fmt: skip
        if exact and group.task.care:
            quick = Group([make_run(setting, number) for number in range(size)])
            row["to_rounding"] = size * timed(quick, device, seconds) / alone
        show(row)
        yield row


def show(row):
    bits = f"same bits (care {row['care']})" if row["exact"] else "equal to rounding only"
    graph = "graph" if row["graph"] else f"no graph: {row['no_graph_because'] or 'not on this device'}"
    quick = f", {row['to_rounding']:.1f}x to rounding" if "to_rounding" in row else ""
    print(
        f"  K={row['trials']:4}  {row['together']:10.0f} trial-steps/s  {row['ratio']:7.2f}x one by one{quick}  "
        f"{100 * row['floor_share']:5.1f} % of the ceiling  {bits}; {graph}; built in {row['build_s']:.1f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json")
    given = parser.parse_args()
    device = choose_device(given.device)
    prepare_numerics(device, 1)
    limits = ceilings(device)
    told = {"numerics": numerics(device).values, "ceilings": limits, "cases": {}}
    print(
        f"{told['numerics']['device']}: {limits['flops'] / 1e12:.1f} TFLOP/s float32, "
        f"{limits['bytes'] / 1e12:.2f} TB/s, {limits['launch_us']:.1f} us a launch from Python"
    )
    for case in given.cases:
        workload: Digits = CASES[case]()
        study = replace(study_of_round(campaign, 1, 100_000), batch_size=workload.batch_size)
        setting = TrainingSetup(study, workload, Data.of(workload, device), device, Path("nowhere"), "bench")
        print(f"{case}:", flush=True)
        rows = told["cases"][case] = []
        for row in measured(setting, given.sizes, given.seconds, limits):
            rows.append(row)
            if given.json:
                Path(given.json).write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
