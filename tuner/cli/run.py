"""`tuner run`: the whole playbook."""

from typing import Annotated

import typer

from tuner.cli.options import DryRun, RetryFailed
from tuner.cli.where import Where, trains


@trains
def run(
    where: Where,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposed action of every question.")] = False,
    expand: Annotated[
        int, typer.Option(min=0, help="How often a round is widened where its best points press against a range.")
    ] = 0,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Do what the playbook describes: sweep, regime, round 1, its findings, round 2, report (exit codes 3: a question
    waits for an answer, 4: trials failed; where both hold, 3, and the failed trials are listed above the question).
    """
    from tuner.cli.desks import open_desk
    from tuner.cli.playing import play, print_prices

    with open_desk(where, dry_run=dry_run) as desk:
        if dry_run:
            print_prices(desk)
            return
        raise typer.Exit(play(desk, yes=yes, expand=expand, retry_failed=retry_failed, quiet=where.quiet))
