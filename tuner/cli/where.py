"""The options of every command that trains, declared once: which study, where its records are, on what it trains."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, get_type_hints

from tuner.cli.early import early_fork_server
from tuner.cli.options import (
    AllowChangedCode,
    AllowInexact,
    Checkpoints,
    Device,
    Fuse,
    KeepCheckpoints,
    Profile,
    ProfileOption,
    Quiet,
    StallTimeout,
    Storage,
    StudyFile,
    Threads,
    Workers,
    WorkersPerGpu,
)
from tuner.execution.fork_server import ForkServer
from tuner.execution.machine import STALL_SECONDS


@dataclass(frozen=True, slots=True)
class Where:
    """What the command line said about study file, storage and machine; each field but the last is an option."""

    study: StudyFile
    storage: Storage = None
    checkpoints: Checkpoints = None
    device: Device = None
    threads: Threads = 1
    workers: Workers = None
    workers_per_gpu: WorkersPerGpu = 1
    stall_timeout: StallTimeout = STALL_SECONDS
    fuse: Fuse = "auto"
    profile: ProfileOption = Profile.exact
    keep_checkpoints: KeepCheckpoints = None
    allow_changed_code: AllowChangedCode = False
    allow_inexact: AllowInexact = False
    quiet: Quiet = False
    fork_server: ForkServer | None = field(default=None, compare=False, metadata={"option": False})


def trains(command: Callable[..., None]) -> Callable[..., None]:
    """Make `command(where, own options ...)` a command that has the options of `Where` after its own."""
    hints = get_type_hints(Where, include_extras=True)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in fields(Where)
        if one.metadata.get("option", True)
    ]

    def with_options(**given: Any) -> None:
        where = Where(**{parameter.name: given.pop(parameter.name) for parameter in shared})
        workers = None if given.get("dry_run") else where.workers
        with early_fork_server(workers, where.device, where.threads, where.study) as fork_server:
            command(replace(where, fork_server=fork_server), **given)

    parameters = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *shared]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    with_options.__dict__["__signature__"] = inspect.Signature(parameters)  # what typer reads
    return with_options
