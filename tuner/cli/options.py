"""Options that mean the same on every command, and the lazy loading of what stands behind a command.

Modules of options import nothing heavy: `tuner COMMAND --help` and shell completion read only them.
"""

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.cli.given import note_checkpoints, note_storage, note_study, note_study_file

# Headings of a command's help for options of the same kind.
RECORDS, MACHINE = "Records", "Machine"


def loaded(target: str) -> Any:
    """The object behind "module:name"; its module is imported only now."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def values_of(name: str) -> Callable[[typer.Context, str], list[str]]:
    """What a shell offers for a value: the function of this name in `tuner.cli.completion`."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return list(loaded(f"tuner.cli.completion:{name}")(ctx.params, incomplete))

    return complete


class Format(StrEnum):
    """How a reading command prints."""

    table = "table"
    json = "json"
    csv = "csv"


class ExportForm(StrEnum):
    """How weights with adapters are written."""

    merged = "merged"
    peft = "peft"


class Profile(StrEnum):
    """What fused trials keep: the bits of each trial alone, or only their values, and more speed."""

    exact = "exact"
    fast = "fast"


Study = Annotated[
    str,
    typer.Argument(
        help="A study file (FILE:NAME: one of its campaigns), or the name of a campaign in the storage.",
        show_default=False,
        callback=note_study,
        autocompletion=values_of("studies"),
    ),
]
StudyFile = Annotated[
    Path,
    typer.Argument(
        help="A study file, like studies/digits.py; FILE:NAME: one of several campaigns in it.",
        show_default=False,
        callback=note_study_file,
        autocompletion=values_of("study_files"),
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Where the records are: a file, or a database URL (its password better in PGPASSWORD or ~/.pgpass). "
        "Default: runs/tuner.sqlite.",
        envvar="TUNER_STORAGE",
        callback=note_storage,
        rich_help_panel=RECORDS,
    ),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the checkpoints are: a folder, or a place in a bucket (s3://BUCKET/PLACE, gs://, az://). "
        "Default: beside the storage file.",
        show_default=False,
        callback=note_checkpoints,
        rich_help_panel=RECORDS,
    ),
]
RoundNumber = Annotated[
    int | None,
    typer.Option(
        "--round",
        "-r",
        metavar="N",
        help="The round, counted from 1.",
        show_default=False,
        autocompletion=values_of("rounds"),
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME",
        help="Any study of `tuner status`, instead of a round.",
        show_default=False,
        autocompletion=values_of("studies_of_campaign"),
    ),
]
OutputFormat = Annotated[Format, typer.Option("-f", "--format", help="How to print.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda or cuda:1. Default: CUDA if the machine has it.", show_default=False, rich_help_panel=MACHINE
    ),
]
Threads = Annotated[
    int, typer.Option(min=1, help="Threads of torch; small models are fastest with one.", rich_help_panel=MACHINE)
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        "-w",
        metavar="N|auto",
        help="Train in N processes; auto: in as many as this machine has use for. Default: in this process.",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]
WorkersPerGpu = Annotated[
    int, typer.Option(min=1, help="How many worker processes may share a GPU.", rich_help_panel=MACHINE)
]
Shard = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="fsdp2: the processes of --gang each have a part of the model, which does not fit one of them. Results "
        "are the same bits only with the same number of processes, and the trials are marked with it.",
        rich_help_panel=MACHINE,
    ),
]
Gang = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Train each trial in N processes together, its slices shared among them: a power of two. The results are "
        "the same bits. --workers is then how many such gangs train.",
        rich_help_panel=MACHINE,
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ray[://HOST:PORT]",
        help="Train in --workers workers on a Ray cluster: one that is there, or a new one on this machine.",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]
Cpus = Annotated[
    float,
    typer.Option(min=0.0, metavar="X", help="With --engine: CPUs of a worker; 0.5 is half.", rich_help_panel=MACHINE),
]
Gpus = Annotated[
    float,
    typer.Option(min=0.0, metavar="X", help="With --engine: GPUs of a worker; 0.5 is half.", rich_help_panel=MACHINE),
]
Fuse = Annotated[
    str,
    typer.Option(
        metavar="auto|off|N",
        help="Train trials together as one stacked model: auto, off, or how many. The results are the same bits.",
        rich_help_panel=MACHINE,
    ),
]
ProfileOption = Annotated[
    Profile,
    typer.Option(
        "--profile",
        help="exact: fused trials have the same bits as each alone. fast: equal to rounding; one profile for a study.",
        rich_help_panel=MACHINE,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate time and disk; train and write nothing.")]
LaunchedRound = Annotated[
    int,
    typer.Option(
        "--round", "-r", metavar="N", help="The round, counted from 1.", autocompletion=values_of("declared_rounds")
    ),
]
MaxTrainSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Training steps of every trial, instead of the declared number.", show_default=False),
]
NumTrials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        min=1,
        help="Trials of the round in all, instead of the declared number: more of its quasi-random points.",
        show_default=False,
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Train FAILED trials again, from their last saved state; after a change of code from step 0.",
    ),
]
AllowChangedCode = Annotated[
    bool,
    typer.Option(
        "--allow-changed-code",
        help="Go on although code, arguments, data or initial weights changed; earlier steps are not inherited.",
    ),
]
StallTimeout = Annotated[
    float,
    typer.Option(
        min=1.0,
        metavar="SECONDS",
        help="Replace a worker that made no step, and gave no sign of life, for so long.",
        rich_help_panel=MACHINE,
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Stop and save so early that the command has ended after so many seconds (exit code 130: run it again). "
        "A SLURM job stops before its end without it (SLURM_JOB_END_TIME).",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="With --dry-run: how each operation runs when trials are fused.")
]
Thresholds = Annotated[bool, typer.Option("--verbose", "-v", help="Show the thresholds behind each verdict.")]
Expanded = Annotated[
    bool, typer.Option("--expanded", help="Train the widened study that `tuner boundaries --expand` wrote.")
]
AllowInexact = Annotated[
    bool,
    typer.Option(
        "--allow-inexact",
        help="Let trials start from steps trained under other Numerics, and mark them exact=false.",
        rich_help_panel=MACHINE,
    ),
]
PricePerHour = Annotated[
    str | None,
    typer.Option(
        "--price-per-hour",
        metavar="PRICE",
        help="What an hour of one worker costs, like 2.50; costs are then shown in the same currency.",
        show_default=False,
    ),
]
KeepCheckpoints = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Disk space for the checkpoints of a study, like 2GB. Never deleted: winners, what runs, what is needed.",
        show_default=False,
        rich_help_panel=RECORDS,
    ),
]
