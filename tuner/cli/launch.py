"""`tuner launch`: train a round, or go on with it."""

from typing import Annotated

import typer

from tuner.cli.options import Checkpoints, Device, Quiet, Storage, StudyFile, Threads


def launch(
    study: StudyFile,
    round_number: Annotated[int, typer.Option("--round", "-r", help="The round, counted from 1.")] = 1,
    max_train_steps: Annotated[
        int | None, typer.Option(min=1, help="Step budget of every trial, over the declared one.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Price it; train and write nothing.")] = False,
    expanded: Annotated[
        bool, typer.Option("--expanded", help="Train the widened study that `tuner boundaries --expand` wrote.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train FAILED trials again.")] = False,
    allow_changed_code: Annotated[
        bool, typer.Option("--allow-changed-code", help="Go on although the workload's code or data changed.")
    ] = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Train the trials of a round. The same command again continues and repeats nothing that is finished."""
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.launching import print_plan, run_launch
    from tuner.rounds.launch import plan_study
    from tuner.rounds.prepare import prepared_expansion, prepared_round

    where = Where(study, storage, checkpoints, device, threads, dry_run=dry_run)
    with open_desk(where, allow_changed_code=allow_changed_code) as desk:
        prepared = (
            prepared_expansion(desk, round_number) if expanded else prepared_round(desk, round_number, max_train_steps)
        )
        if dry_run:
            print_plan(plan_study(desk, prepared.study, prepared.trials))
        else:
            run_launch(desk, prepared, retry_failed=retry_failed, quiet=quiet)
