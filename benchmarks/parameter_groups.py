"""What a second parameter group costs of an optimizer's part of a step, alone and in a group; CPU time of one thread.

`python benchmarks/parameter_groups.py`: for each optimizer and model the microseconds of a trial's update with one
group and with two (vectors without decay), as the minimum of blocks that take turns. A second group is a second call of
the kernel: a microsecond or two in a group of trials, and eight alone, which shows on the smallest models only. So the
goal is for models whose updates take 50 us and more.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tuner.design.optimizers import Groups, ParameterGroup, one_group
from tuner.fused.optimizers import row_optimizer
from tuner.training.compiler import plain_step
from tuner.training.optimizers import make_optimizer
from tuner.training.update import rate_of_group

BLOCKS, CALLS, TRIALS = 40, 20, 16
GOAL = 1.10
SMALLEST = 50.0  # us
RATE = 1e-3
NAMES = ("adamw", "sgd", "adagrad", "rmsprop", "lion")


def multilayer(width: int, depth: int) -> nn.Module:
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.LayerNorm(width))]
    return nn.Sequential(*layers, nn.Linear(width, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "MLP, 6 tensors of width 64": lambda: nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)),
    "MLP, 6 tensors of width 256": lambda: nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10)),
    "4 blocks of width 128": lambda: multilayer(128, 4),
    "4 blocks of width 256": lambda: multilayer(256, 4),
}


def groups_of(parameters: Sequence[nn.Parameter], several: bool) -> Groups:
    if not several:
        return one_group(parameters)
    matrices = [one for one in parameters if one.ndim >= 2]
    vectors = [one for one in parameters if one.ndim < 2]
    return [
        ParameterGroup(params=matrices, rate=1.0, decay=1.0),
        ParameterGroup(params=vectors, rate=1.0, decay=0.0),
    ]


def made(name: str, model: nn.Module, several: bool) -> torch.optim.Optimizer:
    return make_optimizer(name, groups_of(list(model.parameters()), several), {"weight_decay": 0.1}, RATE)


def alone(name: str, make: Callable[[], nn.Module], several: bool) -> Callable[[], None]:
    model = make()
    optimizer = made(name, model, several)
    step = plain_step(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)

    def update() -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate_of_group(group, RATE)
        step()

    return update


def together(name: str, make: Callable[[], nn.Module], several: bool) -> Callable[[], None]:
    models = [make() for _ in range(TRIALS)]
    optimizers = [made(name, model, several) for model in models]
    parameters = [list(model.parameters()) for model in models]
    gradients = [torch.randn(TRIALS, *one.shape) for one in parameters[0]]
    steps = row_optimizer(optimizers, parameters, gradients)

    def update() -> None:
        with torch.inference_mode():
            steps.count()
            for trial in range(TRIALS):
                steps.step(trial, RATE)

    return update


def fastest(works: Sequence[Callable[[], None]], calls: int) -> list[float]:
    """Microseconds of a call of each, in turns."""
    best = [float("inf")] * len(works)
    for block in range(BLOCKS + 1):
        for place, work in enumerate(works):
            began = time.thread_time()
            for _ in range(calls):
                work()
            took = (time.thread_time() - began) / calls
            best[place] = min(best[place], took if block else float("inf"))  # the first one warms up
    return [1e6 * one for one in best]


def main() -> int:
    torch.set_num_threads(1)
    print("us of a trial's update with one group, with two, and their ratio")
    worst = 0.0
    for label, make in MODELS.items():
        for name in NAMES:
            one, two = fastest([alone(name, make, several) for several in (False, True)], CALLS)
            rows: Any = fastest([together(name, make, several) for several in (False, True)], max(1, CALLS // TRIALS))
            first, second = (row / TRIALS for row in rows)
            worst = max(worst, second / first) if first >= SMALLEST else worst
            print(
                f"{label:28} {name:8} alone {one:7.1f} {two:7.1f} {two / one:5.2f}   "
                f"in a group of {TRIALS} {first:7.1f} {second:7.1f} {second / first:5.2f}"
            )
    print(f"in a group, where an update takes {SMALLEST:g} us and more: {worst:.2f} at worst, at most {GOAL}")
    return int(worst > GOAL)


if __name__ == "__main__":
    sys.exit(main())
