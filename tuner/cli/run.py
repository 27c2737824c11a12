"""`tuner run`: the whole playbook."""

from typing import Annotated

import typer

from tuner.cli.options import (
    Checkpoints,
    Device,
    Fuse,
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
    quiet: Quiet = False,
) -> None:
    """Do what the playbook describes: sweep, regime, round 1, its findings, round 2, report."""
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.playing import play, print_prices

    where = Where(
        study,
        storage,
        checkpoints,
        device,
        threads,
        dry_run=dry_run,
        workers=workers,
        workers_per_gpu=workers_per_gpu,
        fuse=fuse,
        profile=profile,
    )
    with open_desk(where) as desk:
        if dry_run:
            print_prices(desk)
            return
        raise typer.Exit(play(desk, yes=yes, quiet=quiet))
