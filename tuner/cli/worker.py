"""`tuner worker`: help with what somebody else launched."""

from typing import Annotated

import typer

from tuner.cli.options import (
    AllowInexact,
    Checkpoints,
    Device,
    Fuse,
    KeepCheckpoints,
    Profile,
    ProfileOption,
    Quiet,
    Storage,
    StudyFile,
    Threads,
    WorkersPerGpu,
)


def worker(
    study: StudyFile,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes on this machine.")] = 1,
    workers_per_gpu: WorkersPerGpu = 1,
    device: Device = None,
    threads: Threads = 1,
    fuse: Fuse = "off",
    profile: ProfileOption = Profile.exact,
    allow_changed_code: Annotated[
        bool, typer.Option("--allow-changed-code", help="Work although the workload's code or data changed.")
    ] = False,
    allow_inexact: AllowInexact = False,
    keep_checkpoints: KeepCheckpoints = None,
    quiet: Quiet = False,
) -> None:
    """Train trials of a campaign that was launched, beside its launcher: here, or on any machine that sees both
    the storage and the checkpoint folder. Ends when no trial is left.
    """
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.launching import run_worker

    where = Where(
        study, storage, checkpoints, device, threads, workers=str(workers), workers_per_gpu=workers_per_gpu, fuse=fuse,
        profile=profile, create=False, allow_inexact=allow_inexact, keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    with open_desk(where, allow_changed_code=allow_changed_code) as desk:
        run_worker(desk, quiet=quiet)
