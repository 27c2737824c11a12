"""What a gang would gain for a study on this machine, from measured numbers: a step, a group, a transfer."""

import socket
import threading
import time
from collections.abc import Sequence

import torch

from tuner import system
from tuner.design.trial import Trial
from tuner.execution.machine import Machine
from tuner.fused.fusion import SLOW_STEP, best_fusion, largest_group
from tuner.records import Price
from tuner.records.gang_price import GangPrice
from tuner.training.engine import Fusion
from tuner.training.numerics import wait_for
from tuner.training.setup import TrainingSetup

SENT = 1 << 24  # bytes, several times
TRIES = 3  # the fastest counts: others may be at work


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
    return GangPrice(
        ranks, places, price.step_ms, price.memory.gradients, transfer_rate(setup.device),
        group=group.num_trials, group_ms=1e3 * group.seconds, why_alone=group.reason, asked=asked, on_gpu=on_gpu,
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


def transfer_rate(device: torch.device) -> float:
    """Bytes a second between two ends of this machine: through loopback, or from a GPU to the computer's memory."""
    return max((_from_gpu(device) if device.type == "cuda" else _through_loopback()) for _ in range(TRIES))


def _from_gpu(device: torch.device) -> float:
    there, here = torch.ones(SENT, dtype=torch.uint8, device=device), torch.empty(SENT, dtype=torch.uint8).pin_memory()
    wait_for(device)
    began = time.perf_counter()
    here.copy_(there)
    wait_for(device)
    return SENT / (time.perf_counter() - began)


def _through_loopback() -> float:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            thread = threading.Thread(target=sender.sendall, args=(bytes(SENT),), daemon=True)
            room, left = memoryview(bytearray(1 << 20)), SENT
            began = time.perf_counter()
            thread.start()
            while left:
                left -= receiver.recv_into(room, min(left, len(room)))
            took = time.perf_counter() - began
            thread.join()
    return SENT / took
