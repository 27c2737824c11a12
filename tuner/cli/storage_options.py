"""The commands that bring studies into the storage and look after it, each as the frozen value of its options.

Nothing heavy is imported: see `options`.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import Checkpoints, Format, OutputFormat, Storage, Study

Ignore = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A hyperparameter to leave out.", show_default=False)
]
ScheduleKind = Annotated[
    str | None, typer.Option(help="constant, decaying or unknown: how strong a best-step verdict can be.")
]
Worth = Annotated[
    float | None,
    typer.Option(help="The smallest change of the objective that matters to you, in its unit.", show_default=False),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptunaOptions:
    """Import an Optuna study. Its intermediate values become curves."""

    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Optuna's storage: a file (SQLite, or a journal), or a URL like sqlite:///optuna.db.",
            show_default=False,
        ),
    ]
    study_name: Annotated[
        str | None,
        typer.Option(
            "--study-name",
            metavar="NAME",
            help="The study's name in Optuna. Default: the only one.",
            show_default=False,
        ),
    ] = None
    objective: Annotated[str, typer.Option(metavar="NAME", help="What its value is called.")] = "objective"
    max_train_steps: Annotated[
        int | None, typer.Option(min=1, help="The budget of a trial. Default: the last step.", show_default=False)
    ] = None
    schedule: ScheduleKind = None
    ignore: Ignore = None
    worth: Worth = None
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Its name in the storage.", show_default=False)
    ] = None
    storage: Storage = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportTableOptions:
    """Import histories of runs and their points from tables."""

    history: Annotated[
        Path,
        typer.Argument(
            metavar="HISTORY",
            help="A table (trial, step, metric, value; or a column for each metric), or a folder with a history of "
            "each run: Lightning, Keras, Ray Tune, TensorBoard. .csv or .parquet.",
            show_default=False,
        ),
    ]
    objective: Annotated[
        str, typer.Option(metavar="NAME", help="The metric that selects, as it was logged.", show_default=False)
    ]
    direction: Annotated[str, typer.Option(help="minimize or maximize.", show_default=False)]
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table: trial and a column for each hyperparameter. Default: points.csv beside the history, its own "
            "columns, or params.json and hparams.yaml of the runs.",
            show_default=False,
        ),
    ] = None
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON: kind, low, high, log, choices of each. Default: space.json there.",
            show_default=False,
        ),
    ] = None
    max_train_steps: Annotated[
        int | None,
        typer.Option(min=1, help="The budget of every trial. Default: the last step of any.", show_default=False),
    ] = None
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="NAME",
            help="Its name in the storage. Default: that of the history.",
            show_default=False,
        ),
    ] = None
    step_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column that counts steps. Default: step, global_step, epoch ...",
            show_default=False,
        ),
    ] = None
    empty: Annotated[
        str | None,
        typer.Option(help="What empty cells at the end of a curve mean: not-measured or diverged.", show_default=False),
    ] = None
    schedule: ScheduleKind = None
    ignore: Ignore = None
    worth: Worth = None
    storage: Storage = None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyOptions:
    """Check files, digests, curves and states of every study of a campaign (exit code 3: something is wrong)."""

    study: Study
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move stray files to the trash folder, and free the trials of dead workers."),
    ] = False
    storage: Storage = None
    checkpoints: Checkpoints = None
    form: OutputFormat = Format.table


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupOptions:
    """Copy the records: SQLite by its backup interface, PostgreSQL by pg_dump. Checkpoint files are not copied.

    The copy can be read like the original. It trains and repairs nothing until `tuner adopt-storage` was called for it.
    """

    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; it must not exist yet.", show_default=False)]
    storage: Storage = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptStorageOptions:
    """Go on with a copy of a storage (a backup, a restored dump): take over the checkpoint folder of the original, or
    get its files in a folder of its own. No checkpoint is deleted.
    """

    storage: Storage = None
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints",
            metavar="FOLDER",
            help="The folder to take over, or an empty one for a folder of its own. Default: beside the storage file.",
            show_default=False,
        ),
    ] = None
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Where recorded files lie that are not in the folder. Default: beside the storage file.",
            show_default=False,
        ),
    ] = None
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it. Without --yes, only show what would happen (exit code 3).")
    ] = False


class Shell(StrEnum):
    """The shells that can complete what is typed."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionOptions:
    """Print the script with which a shell completes commands, options, study files, campaigns, rounds and plots.

    bash: write eval "$(tuner completion bash)" in ~/.bashrc

    zsh: write eval "$(tuner completion zsh)" in ~/.zshrc, below compinit

    fish: tuner completion fish > ~/.config/fish/completions/tuner.fish
    """

    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.", show_default=False)]
