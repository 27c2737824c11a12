"""`tuner budget-curve`: what would a longer run buy?"""

from typing import Annotated

import typer

from tuner.cli.options import DryRun, Format, OutputFormat, RetryFailed, RoundNumber
from tuner.cli.where import Where, trains


@trains
def budget_curve(
    where: Where,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Steps with commas between: 200,400,800. Default: five, evenly spaced up to the production length.",
            show_default=False,
        ),
    ] = None,
    round_number: RoundNumber = None,
    trial: Annotated[
        int | None,
        typer.Option(help="Whose configuration to train. Default: the best of the round.", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Trainings of each length. Default: 1, or 3 for three lengths.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    form: OutputFormat = Format.table,
) -> None:
    """Train one configuration for several lengths (sharing the common steps) and show the gain from longer training
    (exit codes 3: act, 4: trials failed).
    """
    from tuner.cli.drawing_curves import chosen_stages, run_and_print
    from tuner.cli.launching import print_plan
    from tuner.cli.sessions import open_session
    from tuner.rounds.budget_curve import priced_stages

    with open_session(where, dry_run=dry_run, create=False) as session:
        stages = chosen_stages(session, round_number, trial, lengths, seeds)
        if dry_run:
            print_plan(*priced_stages(session, stages))
            return
        raise typer.Exit(run_and_print(session, stages, retry_failed=retry_failed, quiet=where.quiet, form=form))
