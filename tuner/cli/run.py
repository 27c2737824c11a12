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
    from tuner.cli.playing import play, print_prices
    from tuner.cli.sessions import open_session

    with open_session(where, dry_run=dry_run) as session:
        if dry_run:
            print_prices(session)
            return
        raise typer.Exit(play(session, yes=yes, expand=expand, retry_failed=retry_failed, quiet=where.quiet))
