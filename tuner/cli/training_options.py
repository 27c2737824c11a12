"""The commands that train, each as the frozen value of its options. Nothing heavy is imported: see `options`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner import system
from tuner.cli.options import (
    AllowChangedCode,
    AllowInexact,
    Checkpoints,
    Cpus,
    Device,
    DryRun,
    EngineName,
    Expanded,
    Format,
    Fuse,
    Gang,
    Gpus,
    KeepCheckpoints,
    LaunchedRound,
    MaxSeconds,
    MaxTrainSteps,
    NumTrials,
    OutputFormat,
    PricePerHour,
    Profile,
    ProfileOption,
    Quiet,
    RetryFailed,
    RoundNumber,
    Shard,
    StallTimeout,
    Storage,
    StudyFile,
    StudyName,
    Threads,
    Verbose,
    Workers,
    WorkersPerGpu,
    values_of,
)
from tuner.design.stages import split_stage
from tuner.execution.fork_server import ForkServer, worker_environment
from tuner.execution.machine import STALL_SECONDS
from tuner.execution.torchrun import Torchrun, check_torchrun, torchrun_of
from tuner.shown import shown
from tuner.time_limit import TimeLimit, known_limit

_GPU = Path("/dev/nvidiactl")  # there where a driver is; workers on a GPU are not forked


@contextmanager
def early_fork_server(
    workers: str | None, device: str | None, threads: int, study: Path
) -> Iterator[ForkServer | None]:
    """A fork server for the workers that the command line asks for, where they will be forked.

    It is started before this process imports torch, so that both import torch at the same time.
    """
    on_cpu = device == "cpu" or (device is None and not _GPU.exists())
    wanted = workers is not None and (workers == "auto" or workers.isdecimal())
    if not wanted or not system.FORKS_WHOLE or not on_cpu:
        yield None
        return
    server = ForkServer(worker_environment(threads), str(split_stage(study)[0]))
    server.open()
    try:
        yield server
    finally:
        server.kill()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """The options of every command that trains: which study, where its records are, and on what it trains."""

    study: StudyFile
    storage: Storage = None
    checkpoints: Checkpoints = None
    device: Device = None
    threads: Threads = 1
    workers: Workers = None
    workers_per_gpu: WorkersPerGpu = 1
    gang: Gang = 1
    shard: Shard = ""
    engine: EngineName = None
    cpus: Cpus = 1.0
    gpus: Gpus = 0.0
    stall_timeout: StallTimeout = STALL_SECONDS
    fuse: Fuse = "auto"
    profile: ProfileOption = Profile.exact
    keep_checkpoints: KeepCheckpoints = None
    allow_changed_code: AllowChangedCode = False
    allow_inexact: AllowInexact = False
    max_seconds: MaxSeconds = None
    quiet: Quiet = False
    fork_server: ForkServer | None = field(default=None, compare=False, metadata={"option": False})
    time_limit: TimeLimit | None = field(default=None, compare=False, metadata={"option": False})
    torchrun: Torchrun | None = field(default=None, compare=False, metadata={"option": False})
    ranks: Any = field(default=None, compare=False, metadata={"option": False})  # `LaunchedRanks`, which needs torch

    @property
    def around(self) -> str:
        """What runs the command, where it is one of several that were started together; "" for it alone."""
        return "" if self.torchrun is None else "tuner.cli.ranks:among_ranks"

    @contextmanager
    def prepared(self) -> Iterator["TrainingOptions"]:
        """The same options with what is made before anything heavy is imported.

        That is the time limit, and the fork server that worker processes are forked from, where there are some. Raises
        InputError, and Interrupted where the time is up before it began.
        """
        dry_run = getattr(self, "dry_run", False)
        torchrun = torchrun_of(os.environ)
        if torchrun is not None:
            check_torchrun(torchrun, self.gang, self.workers, self.engine)
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # where a rank is gone, we say so
        gang = self.gang if torchrun is None else torchrun.world
        limit = None if dry_run else known_limit(self.max_seconds, os.environ)
        if sys.stderr.isatty() and not self.quiet:
            print(f"loading torch and {shown(str(self.study))} ...", file=sys.stderr)
        if limit is not None and not self.quiet:
            print(limit.told, file=sys.stderr)
        workers = None if dry_run or self.engine else self.workers or ("1" if gang > 1 else None)
        with (
            limit.observed() if limit is not None else nullcontext(),
            early_fork_server(workers, self.device, self.threads, self.study) as fork_server,
        ):
            yield replace(self, gang=gang, torchrun=torchrun, fork_server=fork_server, time_limit=limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions(TrainingOptions):
    """Run the whole playbook: sweep, regime, round 1, its findings, round 2, report.

    A file with several campaigns is trained stage by stage; FILE:NAME is that one, after what it starts from.
    Exit code 3: a question waits for an answer. Exit code 4: trials failed. If both hold it is 3, and the failed trials
    are listed above the question.
    """

    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposed action of every question.")] = False
    expand: Annotated[
        int, typer.Option(min=0, help="How often to widen a round whose best points lie at the limit of a range.")
    ] = 0
    dry_run: DryRun = False
    price_per_hour: PricePerHour = None
    retry_failed: RetryFailed = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """Show the rounds of a campaign, or of each stage of a file: trials, steps, cost. Nothing is trained."""

    study: StudyFile
    total_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Plan for this many steps in all, instead of as declared.", show_default=False),
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="With --total-steps: the number of rounds. Default: as declared.", show_default=False),
    ] = None
    price_per_hour: PricePerHour = None
    storage: Storage = None
    device: Device = None
    threads: Threads = 1
    gang: Gang = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions(TrainingOptions):
    """Sweep constant learning rates without regularization and find the step budget.

    Exit code 3: no budget could be determined. Exit code 4: trials of one rate failed twice, so there is none.
    """

    learning_rates: Annotated[
        str | None, typer.Option(metavar="RATES", help="A grid of your own: 1e-3,3e-3,1e-2.", show_default=False)
    ] = None
    extend: Annotated[bool, typer.Option("--extend", help="Extend the grid of a sweep that was invalid.")] = False
    again: Annotated[
        bool,
        typer.Option("--again", help="Sweep again although a sweep is complete: model, data or batch changed."),
    ] = False
    retry_failed: RetryFailed = False
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchOptions(TrainingOptions):
    """Train the trials of a round. The same command again continues and repeats nothing that is finished.

    Exit code 4: trials failed.
    """

    round_number: LaunchedRound = 1
    max_train_steps: MaxTrainSteps = None
    trials: NumTrials = None
    dry_run: DryRun = False
    verbose: Verbose = False
    price_per_hour: PricePerHour = None
    retry_failed: RetryFailed = False
    expanded: Expanded = False


class Until(StrEnum):
    """When a worker has done its work."""

    campaign = "campaign"
    study = "study"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions(TrainingOptions):
    """Train trials of a campaign that is launched elsewhere, on this or on any machine that sees both storage and
    checkpoint folder.

    By default it serves every study of the campaign (of a file with several campaigns: every stage), and waits between
    two of them. Exit code 75: no launch came in time. Exit code 4: trials failed.
    """

    until: Annotated[
        Until,
        typer.Option(
            help="campaign: serve every round until the campaign is over. study: end as soon as no study that was "
            "launched has trials left."
        ),
    ] = Until.campaign
    idle_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="End where nobody has trained anything, and no study was launched, for so long."
        ),
    ] = 300.0
    wait_for_launch: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Wait for the launch for so long; by default it has to be there."),
    ] = 0.0


class Sampler(StrEnum):
    """Who proposes the points."""

    tpe = "tpe"
    gp = "gp"
    cmaes = "cmaes"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExploitOptions(TrainingOptions):
    """Run Bayesian optimization in a round's search space (only after exploration is complete, B35).

    A scientific hyperparameter keeps the value that leads.
    """

    round_number: Annotated[
        int, typer.Option("--round", "-r", metavar="N", help="The round whose space is searched.")
    ] = 1
    sampler: Annotated[
        Sampler, typer.Option(help="tpe searches everything; gp for few trials; cmaes for many, numbers only.")
    ] = Sampler.tpe
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all; may grow. Default: 32.", show_default=False)
    ] = None
    batch: Annotated[
        int | None, typer.Option(min=1, help="Points proposed together. Default: 8.", show_default=False)
    ] = None
    although: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Begin despite findings that advise against it. The reason is kept and shown with the study.",
            show_default=False,
        ),
    ] = None
    dry_run: DryRun = False
    retry_failed: RetryFailed = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetCurveOptions(TrainingOptions):
    """Train one configuration for several lengths (sharing the common steps) and show the gain from longer training.

    Exit code 3: act. Exit code 4: trials failed.
    """

    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Steps with commas between: 200,400,800. Default: five, evenly spaced up to the production length.",
            show_default=False,
        ),
    ] = None
    round_number: RoundNumber = None
    trial: Annotated[
        int | None,
        typer.Option(help="Whose configuration to train. Default: the best of the round.", show_default=False),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(help="Trainings of each length. Default: 1, or 3 for three lengths.", show_default=False),
    ] = None
    dry_run: DryRun = False
    retry_failed: RetryFailed = False
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class StabilityOptions(TrainingOptions):
    """Train the best configuration at learning rates above its own, and look for instability (B36-B39).

    Loss and gradient norm of each update are recorded. Where a rate is unstable, --yes trains warmups to a far higher
    rate, the shortest first, until one is stable. Nothing of the rounds changes. Exit code 3: act. Exit code 4: trials
    failed.
    """

    above: Annotated[
        str,
        typer.Option(metavar="MULTIPLES", help="Rates to try, in multiples of the best one, with commas between."),
    ] = "2,5,10"
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="N|SHARE",
            help="Steps of each trial, or a share of the budget: 1000 or 20%. Default: 500 after the warmup, at most "
            "the budget.",
            show_default=False,
        ),
    ] = None
    seeds: Annotated[int, typer.Option(help="Trainings of each rate and of each warmup.")] = 3
    warmups: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Warmups to try, in steps: 10,100,1000. Default: powers of ten, up to a tenth of the budget.",
            show_default=False,
        ),
    ] = None
    factor: Annotated[float, typer.Option(help="The rate that warmups lead to, in multiples of the unstable rate.")] = (
        10.0
    )
    round_number: RoundNumber = None
    trial: Annotated[
        int | None,
        typer.Option(help="Whose configuration to train. Default: the best of the round.", show_default=False),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Train the warmups where a rate is unstable.")] = False
    dry_run: DryRun = False
    retry_failed: RetryFailed = False
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptOptions(TrainingOptions):
    """Train candidate and baseline again with fresh seeds, and answer ADOPT, KEEP or TIE.

    For an imported study (its name instead of a file) the replicates in the storage are compared; nothing is trained.
    Exit code 4: trials failed.
    """

    candidate: Annotated[
        str | None,
        typer.Option(
            metavar="ROUND/TRIAL",
            help="Like 2/0. Default: the best trial of the last round. For an imported study a TRIAL, or values, like "
            "lr=0.1,width=32.",
            show_default=False,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="ROUND/TRIAL", help="The same. Default: the configuration adopted last.", show_default=False
        ),
    ] = None
    replicates: Annotated[int, typer.Option(help="Fresh seeds for each of the two.")] = 5
    level: Annotated[float, typer.Option(help="Probability of the interval of the difference.")] = 0.8
    minimum_gain: Annotated[float, typer.Option(help="The gain that pays for the candidate's added complexity.")] = 0.0
    dry_run: DryRun = False
    retry_failed: RetryFailed = False
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTestOptions:
    """Score the test split, once: for the configuration adopted last, else for the best trial of the last round.

    Asked again, it shows the recorded score.
    """

    study: StudyFile
    storage: Storage = None
    checkpoints: Checkpoints = None
    device: Device = None
    threads: Threads = 1
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOptions:
    """Train a recorded trial again from its first step, write nothing, and compare the curves (exit code 3: differ).

    All steps are trained, also those that the trial inherited from another one.
    """

    study: StudyFile
    trial: Annotated[
        int,
        typer.Option(
            "--trial", "-t", help="The trial's number.", show_default=False, autocompletion=values_of("trial_numbers")
        ),
    ]
    round_number: RoundNumber = None
    study_name: StudyName = None
    storage: Storage = None
    device: Device = None
    threads: Threads = 1
