"""`tuner worker`: help with what somebody else launched."""

from dataclasses import replace

import typer

from tuner.cli.where import Where, trains


@trains
def worker(where: Where) -> None:
    """Train trials of a campaign that was launched, beside its launcher: here, or on any machine that sees both
    the storage and the checkpoint folder. Ends when no trial is left.
    """
    from tuner.cli.launching import run_worker
    from tuner.cli.sessions import open_session

    # In a process of its own, so that its lease is renewed whatever the training does.
    with open_session(replace(where, workers=where.workers or "1"), create=False) as session:
        raise typer.Exit(run_worker(session, quiet=where.quiet))
