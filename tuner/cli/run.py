"""`tuner run`: the whole playbook."""

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
    Workers,
    WorkersPerGpu,
)


def run(
    study: StudyFile,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposed action of every question.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Price all of it; train and write nothing.")] = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    threads: Threads = 1,
    workers: Workers = None,
    workers_per_gpu: WorkersPerGpu = 1,
    fuse: Fuse = "off",
    profile: ProfileOption = Profile.exact,
    allow_inexact: AllowInexact = False,
    keep_checkpoints: KeepCheckpoints = None,
    quiet: Quiet = False,
) -> None:
    """Do what the playbook describes: sweep, regime, round 1, its findings, round 2, report."""
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.playing import play, print_prices

    where = Where(
        study, storage, checkpoints, device, threads, dry_run, workers, fuse=fuse, workers_per_gpu=workers_per_gpu,
        profile=profile, allow_inexact=allow_inexact, keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    with open_desk(where) as desk:
        if dry_run:
            print_prices(desk)
            return
        raise typer.Exit(play(desk, yes=yes, quiet=quiet))
