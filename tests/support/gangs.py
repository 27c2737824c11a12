"""Gangs of forked processes: each rank runs a function of the test, and rank 0's answer comes back."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from tuner.execution.gang_store import LOCAL, hosted_store
from tuner.training.gang import Gang, Spot

SECONDS = 60.0


def run_gang(world: int, rank_0: Callable[[Gang], Any], others: Callable[[Gang], Any], seconds: float = SECONDS) -> Any:
    """What `rank_0(gang)` returns, while the other ranks run `others(gang)`; each in a process of its own."""
    store, port = hosted_store(LOCAL)
    fork = multiprocessing.get_context("fork")
    answers: Any = fork.SimpleQueue()
    processes = [
        fork.Process(
            target=_rank, args=(Spot(rank, world, port=port), rank_0 if rank == 0 else others, answers, seconds)
        )
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    good, answer = answers.get()
    for process in processes:
        process.join()
    del store
    if not good:
        raise RuntimeError(answer)
    return answer


def _rank(spot: Spot, do: Callable[[Gang], Any], answers: Any, seconds: float) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        gang = Gang.joined(spot, torch.device("cpu"), seconds)
        answer = True, do(gang)
        gang.close()
    except BaseException:
        answer = False, traceback.format_exc()
        sys.stderr.write(str(answer[1]))
    if spot.rank == 0:
        answers.put(answer)
    sys.stderr.flush()
    os._exit(0 if answer[0] else 1)
