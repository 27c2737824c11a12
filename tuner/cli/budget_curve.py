"""`tuner budget-curve`: what would a longer run buy?"""

from typing import Annotated

import typer

from tuner.cli.options import (
    AllowChangedCode,
    AllowInexact,
    Checkpoints,
    Device,
    DryRun,
    Format,
    Fuse,
    OutputFormat,
    Quiet,
    RoundNumber,
    Storage,
    StudyFile,
    Threads,
    Workers,
)


def budget_curve(
    study: StudyFile,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Steps with commas between: 200,400,800. Default: five, evenly spaced up to the production length.",
            show_default=False,
        ),
    ] = None,
    round_number: RoundNumber = None,
    trial: Annotated[
        int | None, typer.Option(help="Whose point to train. Default: the best of the round.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each length.")] = 1,
    dry_run: DryRun = False,
    allow_changed_code: AllowChangedCode = False,
    allow_inexact: AllowInexact = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    threads: Threads = 1,
    workers: Workers = None,
    fuse: Fuse = "off",
    quiet: Quiet = False,
    form: OutputFormat = Format.table,
) -> None:
    """Train one point to several lengths from one trunk, and say what a longer run would buy (exit code 3: act)."""
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.drawing_curves import chosen_stages, run_and_print
    from tuner.cli.launching import print_plan
    from tuner.rounds.budget_curve import priced_stages

    where = Where(study, storage, checkpoints, device, threads, dry_run, workers, fuse=fuse, create=False,
                  allow_inexact=allow_inexact)  # fmt: skip
    with open_desk(where, allow_changed_code=allow_changed_code) as desk:
        stages = chosen_stages(desk, round_number, trial, lengths, seeds)
        if dry_run:
            print_plan(*priced_stages(desk, stages))
            return
        raise typer.Exit(run_and_print(desk, stages, quiet, form))
