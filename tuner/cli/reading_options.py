"""The commands that only read, each as the frozen value of its options. Nothing heavy is imported: see `options`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import (
    Checkpoints,
    Device,
    ExportForm,
    Format,
    OutputFormat,
    PricePerHour,
    RoundNumber,
    Storage,
    Study,
    StudyName,
    Threads,
    Thresholds,
    values_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusOptions:
    """Show the studies in the storage: trials by state, steps done, budget, best value.

    Of a file with several campaigns: all its stages, which starts from which, and the steps of each and of all.
    """

    study: Annotated[
        str | None,
        typer.Argument(
            help="A campaign, its study file, or FILE:NAME. Default: all campaigns.",
            show_default=False,
            autocompletion=values_of("studies"),
        ),
    ] = None
    price_per_hour: PricePerHour = None
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialsOptions:
    """List the trials of a round: number, state, reason, point, best and last value, steps (inherited ones), seed.

    A hyperparameter that a trial does not have is shown as "-" (empty in CSV); None is a value, None or null.
    """

    study: Study
    round_number: RoundNumber = None
    study_name: StudyName = None
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, metavar="N", help="Only the N best complete trials.", show_default=False),
    ] = None
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class BestStepsOptions:
    """Show at which steps the best checkpoints lie, and whether the step budget was right (exit code 3: act)."""

    study: Study
    round_number: RoundNumber = None
    verbose: Thresholds = False
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundariesOptions:
    """Show for every hyperparameter whether the best points lie at a limit of its range (exit code 3: widen it).

    Without --round: the last round that searched. A round that trains chosen points has no ranges.
    """

    study: Study
    round_number: RoundNumber = None
    expand: Annotated[
        bool, typer.Option("--expand", help="Write the next study, with wider ranges and points only in the new part.")
    ] = False
    verbose: Thresholds = False
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions:
    """Answer every question of the playbook's checklist: verdict, evidence, next action (exit code 3: act)."""

    study: Study
    round_number: RoundNumber = None
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="VERDICTS",
            help="Verdicts that set exit code 3: expand_high,too_long; none: never; ?: all are listed. "
            "Default: what needs action.",
            show_default=False,
            autocompletion=values_of("verdicts"),
        ),
    ] = None
    verbose: Thresholds = False
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class ConclusionsOptions:
    """List conclusions and whether longer runs confirmed them."""

    study: Study
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptionsOptions:
    """List which configurations were adopted, kept or tied, oldest first, with the evidence (B34)."""

    study: Study
    storage: Storage = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class BestOptions:
    """Show the best configuration: its value (the median of fresh seeds, if some were trained), its selected run (its
    best training, whose weights --export writes), and the command that reproduces that run.
    """

    study: Study
    round_number: RoundNumber = None
    study_name: StudyName = None
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the weights of the selected run's best step to this file (safetensors).",
            show_default=False,
        ),
    ] = None
    export_form: Annotated[
        ExportForm | None,
        typer.Option(
            "--as",
            help="With --export, of a model with adapters (with_lora): merged into its weights, under the names of the "
            "base, or peft: a folder with the adapter in the format of peft.",
            show_default=False,
        ),
    ] = None
    average: Annotated[
        bool,
        typer.Option(
            "--average",
            help="With --export: the mean of the weights of all best checkpoints that the selected run kept (keep_best "
            "of the campaign), evaluated on the validation split first. STUDY is the study file.",
        ),
    ] = False
    storage: Storage = None
    checkpoints: Checkpoints = None
    device: Device = None
    threads: Threads = 1
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotOptions:
    """Draw a plot into a file, and write a CSV of the plotted numbers beside it."""

    kind: Annotated[
        str,
        typer.Argument(
            help="The kind of plot, one of those below.",
            show_default=False,
            autocompletion=values_of("plots"),
        ),
    ]
    study: Study
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="A .png, .svg or .pdf file. Default: KIND.png.", show_default=False
        ),
    ] = None
    round_number: RoundNumber = None
    study_name: StudyName = None
    storage: Storage = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """Write a self-contained HTML page: findings first, then plots, curves and the table of trials."""

    study: Study
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The page. Default: beside the storage.", show_default=False),
    ] = None
    price_per_hour: PricePerHour = None
    storage: Storage = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """Write a study as an Optuna study or as tables. The same command again changes nothing."""

    study: Study
    to: Annotated[
        tuple[str, str],
        typer.Option("--to", help="optuna URL-or-file, csv FOLDER or parquet FOLDER.", metavar="FORMAT PLACE"),
    ]
    round_number: RoundNumber = None
    study_name: Annotated[
        str | None,
        typer.Option(
            "--study-name", metavar="NAME", help="Its name in Optuna. Default: STUDY-round-N.", show_default=False
        ),
    ] = None
    storage: Storage = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoOptions:
    """Write an example report from 40 recorded trials that come with the package. Nothing is trained.

    The trials are in a storage of their own, for `tuner check`, `trials` and `plot` to be tried on.
    """

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where page and storage are written.")] = Path(
        "tuner-demo"
    )
