"""`tuner sweep`: how many steps does the fastest trial need to fit the training set?"""

from typing import Annotated

import typer

from tuner.cli.options import (
    Checkpoints,
    Device,
    Format,
    Fuse,
    OutputFormat,
    Profile,
    ProfileOption,
    Quiet,
    Storage,
    StudyFile,
    Threads,
    Workers,
    WorkersPerGpu,
)


def sweep(
    study: StudyFile,
    learning_rates: Annotated[
        str | None, typer.Option(help="A grid of your own: 1e-3,3e-3,1e-2.", show_default=False)
    ] = None,
    extend: Annotated[bool, typer.Option("--extend", help="Extend the grid of a sweep that was invalid.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Sweep anew although it came to an end: model, data or batch changed.")
    ] = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    threads: Threads = 1,
    workers: Workers = None,
    workers_per_gpu: WorkersPerGpu = 1,
    fuse: Fuse = "off",
    profile: ProfileOption = Profile.exact,
    quiet: Quiet = False,
    form: OutputFormat = Format.table,
) -> None:
    """Sweep constant learning rates without regularization and find the step budget (exit code 3: no number)."""
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.sweeping import chosen_sweep, run_and_print

    where = Where(
        study,
        storage,
        checkpoints,
        device,
        threads,
        workers=workers,
        workers_per_gpu=workers_per_gpu,
        fuse=fuse,
        profile=profile,
    )
    with open_desk(where) as desk:
        declared = chosen_sweep(desk, learning_rates, extend)
        raise typer.Exit(run_and_print(desk, declared, again=again, quiet=quiet, form=form))
