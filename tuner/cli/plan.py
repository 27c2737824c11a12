"""`tuner plan`: rounds, trials, steps, cost and relevance before anything is trained."""

from typing import Annotated

import typer

from tuner.cli.options import Device, Storage, StudyFile, Threads


def plan(
    study: StudyFile,
    total_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Plan trials for so many steps in all, over the declared numbers.", show_default=False
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="With --total-steps: so many rounds. Default: as declared.", show_default=False),
    ] = None,
    storage: Storage = None,
    device: Device = None,
    threads: Threads = 1,
) -> None:
    """Show the rounds of a campaign: trials, steps, cost, and how relevant their lengths are. Nothing is trained."""
    from tuner.cli.planning import print_rounds
    from tuner.cli.sessions import open_session
    from tuner.cli.where import Where

    with open_session(Where(study, storage, device=device, threads=threads), dry_run=True) as session:
        print_rounds(session, total_steps, rounds)
