"""A gang: what the tree of sums costs, how much faster two processes are than one, and how many bytes they send.

    python benchmarks/gangs.py                # all of it, on CPUs; needs two cores
    python benchmarks/gangs.py --only tree    # or: processes, bytes
    python benchmarks/gangs.py --only tree --device cuda

tree: one process with 8 slices, against the same micro-batches whose gradients `backward` accumulates in place.
processes: two processes of one thread that share the slices, against one process of one thread.
bytes: what goes over the loopback interface in an update of two and four processes, against torch's all_reduce of as
many numbers. It is counted in a network namespace of its own, where the system lets us have one (root on Linux).

Both sides of a ratio are timed in turn within one run, and medians are compared. The load of the machine is printed.
"""

import argparse
import ctypes
import fcntl
import multiprocessing
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, log_uniform, minimize
from tuner.design.points import Point
from tuner.execution.gang_store import GangStore
from tuner.rounds.plan import study_of_round, trial_at
from tuner.training.gang import Gang, Spot
from tuner.training.gang_sums import payload_of
from tuner.training.memory import keep_freed_memory
from tuner.training.setup import Data, TrainingSetup
from tuner.training.slices import Slices
from tuner.training.trial_run import TrialRun
from tuner.training.update import Update

SLICES = 8
WARM_UP = 2
CLONE_NEWNET = 0x40000000
FLAGS_OF_INTERFACE, SIOCSIFFLAGS, UP = "16sh", 0x8914, 0x41


class Encoder(Workload):
    """An encoder of width 256 over 64 positions: products dominate, and a step takes more than 100 ms on one core."""

    batch_size = 64
    slices = SLICES
    select_by = minimize("validation/loss")
    positions, width, layers = 64, 256, 2

    def data(self) -> Splits:
        x = torch.randn(256, self.positions, 16, generator=torch.Generator().manual_seed(0))
        y = (x.mean((1, 2)) > 0).long()
        return Splits(training=(x, y), validation=(x[:64], y[:64]))

    def model(self, point: Any) -> nn.Module:
        layer = nn.TransformerEncoderLayer(self.width, 4, 4 * self.width, 0.1, batch_first=True)
        encoder = nn.TransformerEncoder(layer, self.layers, enable_nested_tensor=False)
        return nn.Sequential(nn.Linear(16, self.width), encoder, nn.Linear(self.width, 2))

    def loss(self, model: Any, batch: Any, point: Any) -> Any:
        return F.cross_entropy(model(batch[0]).mean(1), batch[1])

    def metrics(self, model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": F.cross_entropy(model(batch[0]).mean(1), batch[1], reduction="none")}


class Large(Encoder):
    """About 100 million parameters, for a GPU."""

    positions, width, layers = 256, 1024, 8
    batch_size = 64


class Wide(Encoder):
    """5 million parameters and little to compute, so that most of a step is what is sent."""

    positions, width, layers = 1, 640, 1
    batch_size = 8


def run_of(workload: Workload, device: torch.device, gang: Gang | None = None) -> TrialRun:
    """A trial that trains for long enough."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-3))
    campaign = Campaign(workload, [Round("gangs", trials=2, max_train_steps=100_000, space=space)], name="gangs")
    study = study_of_round(campaign, 1, 100_000)
    setup = TrainingSetup(study, workload, Data.of(workload, device), device, Path("nowhere"), "gangs")
    run = TrialRun(setup, trial_at(study, 0, Point.of({"learning_rate": 3e-4}), "benchmark"))
    if gang is not None:
        run.gang = gang
        gang.open(payload_of(len(run.parameters), SLICES // gang.world))
    return run


class Accumulating(Update):
    """The same micro-batches, seeds and shares; each `backward` adds its gradients to what is there."""

    def by_slices(self, slices: Slices, point: Any, step: int) -> torch.Tensor:
        self._clear_gradients()
        total = torch.zeros((), device=self.device)
        for part in range(slices.count):
            batch = slices[part]
            kept = [parameter.grad for parameter in self.parameters]
            self.prepare(step, host_draws=True, part=part)
            for parameter, gradient in zip(self.parameters, kept, strict=True):
                parameter.grad = gradient
            loss = self.loss(self.model, batch, point) / slices.count
            self.backward(loss)
            total += loss.detach()
        return total


def update_of(run: TrialRun, kind: type[Update]) -> Update:
    return kind(run.setup, run.rule, run.model, run.parameters, run.optimizer)


def steps_with(run: TrialRun, update: Update, steps: int) -> None:
    for _ in range(steps):
        made = update.make(run.batch_at(run.step), run.point, run.step, host_draws=True)
        run.losses = [] if made is None else [made[0]]
        run.moved()
    if run.setup.device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def in_turn(
    works: Sequence[Callable[[], object]], blocks: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each, block by block; the first ones are left out."""
    times = [[seconds_of(work, clock) for work in works] for _ in range(WARM_UP + blocks)][WARM_UP:]
    return [list(found) for found in zip(*times, strict=True)]


def busy() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def of_the_tree(device: torch.device, blocks: int) -> None:
    workload = Large() if device.type == "cuda" else Encoder()
    runs = [run_of(workload, device) for _ in range(2)]
    kinds = (Update, Accumulating)
    updates = [update_of(run, kind) for run, kind in zip(runs, kinds, strict=True)]
    works = [
        lambda run=run, update=update: steps_with(run, update, 1) for run, update in zip(runs, updates, strict=True)
    ]
    clock = time.process_time if device.type == "cpu" else time.perf_counter  # what else the machine does is no matter
    tree, plain = in_turn(works, blocks, clock)
    parameters = sum(parameter.numel() for parameter in runs[0].parameters)
    ratio = statistics.median(one / other for one, other in zip(tree, plain, strict=True))
    print(
        f"the tree, 1 process, {SLICES} slices, {parameters:,} parameters: "
        f"{1e3 * statistics.median(tree):.1f} ms of {device.type} a step, {ratio:.3f} x that of accumulating "
        f"({1e3 * statistics.median(plain):.1f} ms); {blocks} blocks, {busy()}"
    )


def on_ranks(world: int, do: Callable[[Gang], Any]) -> Any:
    """What rank 0 returns of `do(gang)`, which each of so many processes calls."""
    store = GangStore(world)
    fork = multiprocessing.get_context("fork")
    answers: Any = fork.SimpleQueue()
    spots = [Spot(rank, world, store.host, store.port, store.name) for rank in range(world)]
    ranks = [fork.Process(target=_rank, args=(spot, do, answers)) for spot in spots]
    for rank in ranks:
        rank.start()
    answer = answers.get()
    for rank in ranks:
        rank.join()
    store.close()
    return answer


def _rank(spot: Spot, do: Callable[[Gang], Any], answers: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    keep_freed_memory()  # as every training does
    gang = Gang.joined(spot, torch.device("cpu"), 600.0)
    answer = do(gang)
    if spot.rank == 0:
        answers.put(answer)
    gang.close()


def of_processes(blocks: int) -> None:
    device = torch.device("cpu")

    def work(gang: Gang) -> list[list[float]]:
        together, alone = run_of(Encoder(), device, gang), run_of(Encoder(), device)

        def both() -> None:
            together.advance(together.step + 1)

        def one() -> None:
            if gang.rank == 0:
                alone.advance(alone.step + 1)

        def meet() -> None:
            gang.exchanged(gang.wish())  # where the other one sleeps until it is done

        return [
            found
            for clock in (time.perf_counter, time.process_time)
            for found in in_turn([both, meet, one, meet], blocks, clock)
        ]

    both, _, one, _, busy_both, _, busy_one, _ = on_ranks(2, work)
    for what, two, alone in (("", both, one), (" (time of cpu of a rank)", busy_both, busy_one)):
        times = statistics.median(single / shared for single, shared in zip(alone, two, strict=True))
        ms, ms_alone = (1e3 * statistics.median(found) for found in (two, alone))
        print(
            f"2 processes of one thread: {times:.2f} x as fast as one ({ms:.1f} ms a step against {ms_alone:.1f} ms)"
            f"{what}; {blocks} blocks, {busy()}"
        )


def own_network() -> bool:
    """Whether this process, and those that it starts, have a loopback interface of their own from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(FLAGS_OF_INTERFACE, b"lo", UP))
    return True


def sent() -> int:
    """Bytes sent over the loopback interface so far."""
    (line,) = [line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.partition(":")[2].split()[8])


def of_bytes(steps: int) -> None:
    whose = "of its own" if own_network() else "of the machine, with what else is sent there"

    def work(gang: Gang) -> tuple[float, float, int]:
        run = run_of(Wide(), torch.device("cpu"), gang)
        numbers = torch.zeros(sum(parameter.numel() for parameter in run.parameters))
        run.advance(1)
        dist.all_reduce(numbers)
        found = []
        for each in (lambda: run.advance(run.step + 1), lambda: dist.all_reduce(numbers)):
            dist.barrier()
            before = sent()
            for _ in range(steps):
                each()
            dist.barrier()
            found.append((sent() - before) / steps)
        return found[0], found[1], numbers.nbytes

    for world in (2, 4):
        tree, ring, size = on_ranks(world, work)
        print(
            f"{world} processes, {size:,} bytes of gradients: {tree:,.0f} bytes a step, {tree / ring:.3f} x all_reduce "
            f"({ring:,.0f}); a ring: {2 * (world - 1) * size:,}; loopback interface {whose}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["tree", "processes", "bytes"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every training does
    if options.only in (None, "tree"):
        of_the_tree(torch.device(options.device), options.blocks)
    if options.only in (None, "processes"):
        of_processes(options.blocks)
    if options.only in (None, "bytes"):
        of_bytes(5)


if __name__ == "__main__":
    main()
