"""Options that mean the same on every command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.given import note_checkpoints, note_storage, note_study, note_study_file


class Format(StrEnum):
    """How a reading command prints."""

    table = "table"
    json = "json"
    csv = "csv"


class Profile(StrEnum):
    """What fused trials keep: the bits of each trial alone, or only their values, and more speed."""

    exact = "exact"
    fast = "fast"


Study = Annotated[
    str,
    typer.Argument(
        help="A study file, or the name of a campaign in the storage.", show_default=False, callback=note_study
    ),
]
StudyFile = Annotated[
    Path,
    typer.Argument(help="A study file, like studies/digits.py.", show_default=False, callback=note_study_file),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Where the records are: a file, or a database URL (its password better in PGPASSWORD or ~/.pgpass). "
        "Default: runs/tuner.sqlite.",
        envvar="TUNER_STORAGE",
        callback=note_storage,
    ),
]
Checkpoints = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoints. Default: beside the storage file.",
        show_default=False,
        callback=note_checkpoints,
    ),
]
RoundNumber = Annotated[
    int | None, typer.Option("--round", "-r", help="The round, counted from 1.", show_default=False)
]
StudyName = Annotated[
    str | None,
    typer.Option("--study", help="Any study of `tuner status`, instead of a round.", show_default=False),
]
OutputFormat = Annotated[Format, typer.Option("-f", "--format", help="How to print.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1; default: CUDA where there is one.", show_default=False)
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch; small models are fastest with one.")]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        "-w",
        help="Train in so many processes, or `auto`: in as many as pay. Default: in this one.",
        show_default=False,
    ),
]
WorkersPerGpu = Annotated[int, typer.Option(min=1, help="So many worker processes may share a GPU.")]
Fuse = Annotated[
    str,
    typer.Option(
        help="Train trials together as one stacked model: auto, off, or how many. The results are the same bits."
    ),
]
ProfileOption = Annotated[
    Profile,
    typer.Option(
        "--profile",
        help="exact: fused trials have the same bits as each alone. fast: equal to rounding; one profile for a study.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Price it; train and write nothing.")]
LaunchedRound = Annotated[int, typer.Option("--round", "-r", help="The round, counted from 1.")]
MaxTrainSteps = Annotated[
    int | None, typer.Option(min=1, help="Step budget of every trial, over the declared one.", show_default=False)
]
NumTrials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        min=1,
        help="Trials of the round in all, over the declared number: more of its quasi-random points.",
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
        help="Go on although code, arguments, data or initial weights changed; no earlier steps are taken over.",
    ),
]
StallTimeout = Annotated[
    float, typer.Option(min=1.0, help="Seconds without a step, or a sign of life, after which a worker is replaced.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="With --dry-run: how each operation runs when trials are fused.")
]
Thresholds = Annotated[bool, typer.Option("--verbose", "-v", help="With the thresholds behind each verdict.")]
Expanded = Annotated[
    bool, typer.Option("--expanded", help="Train the widened study that `tuner boundaries --expand` wrote.")
]
AllowInexact = Annotated[
    bool,
    typer.Option(
        "--allow-inexact", help="Let trials start from steps trained under other Numerics, and mark them exact=false."
    ),
]
KeepCheckpoints = Annotated[
    str | None,
    typer.Option(
        help="Room for the checkpoints of a study, like 2GB; never deleted: winners, what runs, what is still needed.",
        show_default=False,
    ),
]
