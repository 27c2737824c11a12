"""Begun before this process imports torch, so that both import it at once: what worker processes are forked from."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.execution.nursery import Nursery, worker_environment

_GPU = Path("/dev/nvidiactl")  # there where a driver is; workers on a GPU are not forked


@contextmanager
def early_nursery(workers: str | None, device: str | None, threads: int, study: Path) -> Iterator[Nursery | None]:
    """A nursery for the workers that the command line asks for (a number, or auto), where they will be forked."""
    on_cpu = device == "cpu" or (device is None and not _GPU.exists())
    wanted = workers is not None and (workers == "auto" or workers.isdecimal())
    if not wanted or sys.platform != "linux" or not on_cpu:
        yield None
        return
    nursery = Nursery(worker_environment(threads), str(study))
    nursery.open()
    try:
        yield nursery
    finally:
        nursery.kill()
