"""Begun before this process imports torch, so that both import it at once: what worker processes are forked from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner import system
from tuner.execution.fork_server import ForkServer, worker_environment

_GPU = Path("/dev/nvidiactl")  # there where a driver is; workers on a GPU are not forked


@contextmanager
def early_fork_server(
    workers: str | None, device: str | None, threads: int, study: Path
) -> Iterator[ForkServer | None]:
    """A fork server for the workers that the command line asks for (a number, or auto), where they will be forked."""
    on_cpu = device == "cpu" or (device is None and not _GPU.exists())
    wanted = workers is not None and (workers == "auto" or workers.isdecimal())
    if not wanted or not system.FORKS_WHOLE or not on_cpu:
        yield None
        return
    server = ForkServer(worker_environment(threads), str(study))
    server.open()
    try:
        yield server
    finally:
        server.kill()
