"""`tuner launch`: train a round, or go on with it."""

import typer

from tuner.cli.options import DryRun, Expanded, LaunchedRound, MaxTrainSteps, NumTrials, RetryFailed, Verbose
from tuner.cli.where import Where, trains


@trains
def launch(
    where: Where,
    round_number: LaunchedRound = 1,
    max_train_steps: MaxTrainSteps = None,
    trials: NumTrials = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    retry_failed: RetryFailed = False,
    expanded: Expanded = False,
) -> None:
    """Train the trials of a round. The same command again continues and repeats nothing that is finished (exit code 4:
    trials failed).
    """
    from tuner.cli.launching import print_fusion, print_plan, run_launch
    from tuner.cli.sessions import open_session
    from tuner.rounds.launch import plan_study
    from tuner.rounds.prepare import prepared_expansion, prepared_round

    with open_session(where, dry_run=dry_run) as session:
        expansion = prepared_expansion(session, round_number) if expanded else None
        prepared = expansion or prepared_round(session, round_number, max_train_steps, trials)
        if dry_run:
            print_plan(plan_study(session, prepared.study, prepared.trials))
            if verbose:
                print_fusion(session, prepared)
        else:
            raise typer.Exit(run_launch(session, prepared, retry_failed=retry_failed, quiet=where.quiet))
