"""What a gang would gain for a study on this machine, from measured numbers: a step, a group, the exchanges."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from statistics import median
from typing import Any

import torch
from torch._C._distributed_c10d import HashStore, PrefixStore, ProcessGroupGloo

from tuner import system
from tuner.design.trial import Trial
from tuner.execution.machine import Machine
from tuner.execution.workers import START_SECONDS
from tuner.fused.fusion import SLOW_STEP, best_fusion, largest_group
from tuner.records import Price
from tuner.records.gang_price import GangPrice
from tuner.training.engine import Fusion
from tuner.training.numerics import wait_for
from tuner.training.setup import TrainingSetup

LITTLE, MUCH = 256, 1 << 23  # bytes of gradients
WARM_UP, TRIES = 3, 9
MOST_SECONDS = 20.0  # for a rank to answer


def estimated_gang(setup: TrainingSetup, trials: Sequence[Trial], price: Price, machine: Machine) -> GangPrice | None:
    """What the gang that was asked for would gain; or the largest one that fits, where steps are slow enough for it.

    None where there is nothing to say. trials: all that are to be trained, the priced one first.
    """
    on_gpu = setup.device.type == "cuda"
    places = torch.cuda.device_count() if on_gpu else max(1, system.num_cores() // machine.threads)
    ranks = machine.gang if machine.gang > 1 else _largest(setup.slices_of(trials[0]), places)
    asked = machine.gang > 1
    if price.memory is None or ranks == 1 or not (asked or price.step_ms > 1e3 * SLOW_STEP):
        return None
    group = _group(setup, trials)
    fixed, rate = exchange_speed(setup.device)
    gradients = price.memory.gradients
    if setup.shard:  # of a part; for each slice, parameters are gathered twice, and gradients scattered once
        gradients = round(1.5 * setup.slices_of(trials[0]) * gradients)
    return GangPrice(
        ranks, places, price.step_ms, gradients, rate, fixed_ms=1e3 * fixed, asked=asked, on_gpu=on_gpu,
        group=group.num_trials, group_ms=1e3 * group.seconds, why_alone=group.reason,
        start=START_SECONDS[setup.device.type],
    )  # fmt: skip


def _largest(slices: int, places: int) -> int:
    """The largest power of two that divides the slices and has a place for each of its ranks."""
    ranks = slices & -slices
    while ranks > places:
        ranks //= 2
    return max(1, ranks)


def _group(setup: TrainingSetup, trials: Sequence[Trial]) -> Fusion:
    """The fastest group of trials of the first one's shape, by the probe that `--fuse auto` makes, too."""
    alike = [trial for trial in trials if trial.shape_group == trials[0].shape_group]
    return best_fusion(setup, alike[: largest_group(setup.device)], len(trials))


def exchange_speed(device: torch.device) -> tuple[float, float]:
    """Seconds that the exchanges of a step take however little is sent, and bytes a second beyond that.

    Two threads exchange by gloo, through loopback, what two ranks do in a step. From one GPU nothing can be sent to
    another one here: there the rate is that of a copy to the computer's memory.
    """
    store, found = HashStore(), [Timed(), Timed()]
    ranks = [threading.Thread(target=_rank, args=(rank, store, found[rank]), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(MOST_SECONDS)
    fixed, large = (max(one.of[size] for one in found) for size in (LITTLE, MUCH))
    rate = _rate_from_gpu(device) if device.type == "cuda" else MUCH / max(1e-9, large - fixed)
    return fixed, rate


class Timed:
    """Seconds of the exchanges of a step at one rank, by the bytes of its gradients; the median of several steps."""

    def __init__(self) -> None:
        self.of = dict.fromkeys((LITTLE, MUCH), MOST_SECONDS)


def _rank(rank: int, store: HashStore, found: Timed) -> None:
    gloo: Any = ProcessGroupGloo  # torch's stubs know the half of it
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname="127.0.0.1")]
    options._timeout = timedelta(seconds=MOST_SECONDS)
    group = gloo(PrefixStore("exchange", store), rank, 2, options)
    with suppress(RuntimeError):  # that the other one does not answer in time
        for size in found.of:
            seconds = [_exchange(group, size // 4) for _ in range(WARM_UP + TRIES)]
            found.of[size] = median(seconds[WARM_UP:])


def _exchange(group: Any, numbers: int) -> float:
    """What two ranks exchange in a step: whether they go on, and their gradients, which are added up on the way."""
    flags, of_all = torch.zeros(64, dtype=torch.uint8), torch.empty(128, dtype=torch.uint8)
    sent, got = torch.ones(numbers), torch.empty(numbers)
    began = time.perf_counter()
    group._allgather_base(of_all, flags).wait()
    group.alltoall_base(got, sent, [], []).wait()
    mine, other = got.view(2, -1)
    group._allgather_base(sent, mine.add_(other)).wait()
    return time.perf_counter() - began


def _rate_from_gpu(device: torch.device) -> float:
    there, here = torch.ones(MUCH, dtype=torch.uint8, device=device), torch.empty(MUCH, dtype=torch.uint8).pin_memory()
    seconds = []
    for _ in range(WARM_UP + TRIES):
        wait_for(device)
        began = time.perf_counter()
        here.copy_(there)
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return MUCH / median(seconds)
