"""Sessions of the Python API: what a function that trains was given, and a session that shows its progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

import torch

from tuner.api.showing import Display
from tuner.design.stages import Stage
from tuner.design.study_file import Declared, declared_stage
from tuner.errors import InputError
from tuner.execution.machine import Fuse
from tuner.rounds.launch import Session
from tuner.rounds.opening import SessionOptions, opened_session
from tuner.stores.places import parsed_root
from tuner.training.settings import Profile

WorkerCount = int | Literal["auto"]


class MachineOptions(TypedDict, total=False):
    """Further options of every function that trains, as on the command line.

    device: "cpu", "cuda" or "cuda:1"; None takes CUDA where there is one. threads: torch's threads in each process.
    workers_per_gpu: processes that may share one GPU. gang: how many processes train each trial together, a power of
    two; of which `workers` is then the number of gangs. shard: "fsdp2" where each of these has a part of the model.
    stall_seconds: a worker without a step for so long is replaced.
    fuse: how many trials train as one stacked model, "auto" or "off". profile: "exact" keeps the bits of each trial
    alone. keep_bytes: room for the checkpoints of a study. allow_changed_code: continue a study whose code changed.
    allow_inexact: take steps over from trials that were trained under other Numerics. engine: what starts workers
    elsewhere, "ray" or "ray://HOST:PORT"; cpus, gpus: what each of `workers` needs there.
    """

    device: str | None
    threads: int
    workers_per_gpu: int
    gang: int
    shard: str
    stall_seconds: float
    fuse: Fuse
    profile: Profile
    keep_bytes: int | None
    allow_changed_code: bool
    allow_inexact: bool
    engine: str | None
    cpus: float
    gpus: float


@contextmanager
def opened(study: Declared, options: SessionOptions, display: Display, *, dry_run: bool = False) -> Iterator[Session]:
    """A session that shows its progress. Torch's threads and determinism are as before after the block."""
    with opened_stage(declared_stage(study), options, display, dry_run=dry_run) as session:
        yield session


@contextmanager
def opened_stage(
    stage: Stage, options: SessionOptions, display: Display, *, dry_run: bool = False
) -> Iterator[Session]:
    """As `opened`, of a stage that is known. Raises InputError for workers without a study file."""
    if stage.file is None and (options.workers is not None or options.gang > 1):
        raise InputError(
            "each worker process loads the study file, and this campaign was passed as an object: write it to a "
            f"file (in a notebook: %%writefile {stage.name}.py) and pass the path, or train with workers=1"
        )
    with _torch_as_before(), opened_session(stage, options, dry_run=dry_run) as session:
        yield replace(session, watch=display.watch, stop=display.stop)


@contextmanager
def _torch_as_before() -> Iterator[None]:
    """Training needs a fixed number of threads and deterministic kernels; a notebook goes on with its own."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)


def session_options(
    storage: str | None, checkpoints: str | Path | None, workers: WorkerCount, machine: MachineOptions
) -> SessionOptions:
    """What a session is opened with. Raises InputError for a number of workers that cannot be."""
    if workers != "auto" and (not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers is 'auto' or a number of processes from 1, got {workers!r}")
    here = machine.get("engine") is None
    count = 0 if workers == "auto" else None if workers == 1 and here else workers
    folder = None if checkpoints is None else parsed_root(checkpoints)
    return SessionOptions(storage=storage, checkpoints=folder, workers=count, **machine)
