"""`tuner launch`: train a round, or go on with it."""

from tuner.cli.options import (
    AllowChangedCode,
    AllowInexact,
    Checkpoints,
    Device,
    DryRun,
    Expanded,
    Fuse,
    KeepCheckpoints,
    LaunchedRound,
    MaxTrainSteps,
    Profile,
    ProfileOption,
    Quiet,
    RetryFailed,
    StallTimeout,
    Storage,
    StudyFile,
    Threads,
    Verbose,
    Workers,
    WorkersPerGpu,
)


def launch(
    study: StudyFile,
    round_number: LaunchedRound = 1,
    max_train_steps: MaxTrainSteps = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    retry_failed: RetryFailed = False,
    allow_changed_code: AllowChangedCode = False,
    expanded: Expanded = False,
    storage: Storage = None,
    checkpoints: Checkpoints = None,
    device: Device = None,
    threads: Threads = 1,
    workers: Workers = None,
    workers_per_gpu: WorkersPerGpu = 1,
    stall_timeout: StallTimeout = 1800.0,
    fuse: Fuse = "off",
    profile: ProfileOption = Profile.exact,
    allow_inexact: AllowInexact = False,
    keep_checkpoints: KeepCheckpoints = None,
    quiet: Quiet = False,
) -> None:
    """Train the trials of a round. The same command again continues and repeats nothing that is finished."""
    from tuner.cli.desks import Where, open_desk
    from tuner.cli.launching import print_fusion, print_plan, run_launch
    from tuner.rounds.launch import plan_study
    from tuner.rounds.prepare import prepared_expansion, prepared_round

    where = Where(
        study, storage, checkpoints, device, threads, dry_run, workers, stall_timeout, fuse, workers_per_gpu, profile,
        allow_inexact=allow_inexact, keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    with open_desk(where, allow_changed_code=allow_changed_code) as desk:
        expansion = prepared_expansion(desk, round_number) if expanded else None
        prepared = expansion or prepared_round(desk, round_number, max_train_steps)
        if dry_run:
            print_plan(plan_study(desk, prepared.study, prepared.trials))
            if verbose:
                print_fusion(desk, prepared)
        else:
            run_launch(desk, prepared, retry_failed=retry_failed, quiet=quiet)
