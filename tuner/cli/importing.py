"""`tuner import`: a study that was run elsewhere, by name from then on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.cli.options import Storage

Ignore = Annotated[list[str] | None, typer.Option(help="A hyperparameter to leave out.", show_default=False)]
Name = Annotated[str | None, typer.Option("--study", help="Its name here.", show_default=False)]
ScheduleKind = Annotated[
    str | None, typer.Option(help="constant, decaying or unknown: how strong a best-step verdict can be.")
]
History = Annotated[
    Path,
    typer.Argument(
        metavar="HISTORY",
        help="A table (trial, step, metric, value; or a column a metric), or a folder with a history of each run: "
        "Lightning, Keras, Ray Tune, TensorBoard. .csv or .parquet.",
        show_default=False,
    ),
]
Objective = Annotated[str, typer.Option(help="The metric that selects, as it was logged.", show_default=False)]
Direction = Annotated[str, typer.Option(help="minimize or maximize.", show_default=False)]
Points = Annotated[
    Path | None,
    typer.Option(
        help="A table: trial and a column for each hyperparameter. Default: points.csv beside the history, its own "
        "columns, or params.json and hparams.yaml of the runs.",
        show_default=False,
    ),
]
SpaceFile = Annotated[
    Path | None,
    typer.Option(help="JSON: kind, low, high, log, choices of each. Default: space.json there.", show_default=False),
]
Budget = Annotated[
    int | None,
    typer.Option(min=1, help="The budget of every trial. Default: the last step of any.", show_default=False),
]
TableName = Annotated[
    str | None, typer.Option("--study", help="Its name here. Default: that of the history.", show_default=False)
]
StepColumn = Annotated[
    str | None,
    typer.Option(help="The column that counts steps. Default: step, global_step, epoch ...", show_default=False),
]
Empty = Annotated[
    str | None,
    typer.Option(help="What empty cells at the end of a curve mean: not-measured or diverged.", show_default=False),
]

Worth = Annotated[
    float | None,
    typer.Option(help="The smallest change of the objective that is worth anything, in its unit.", show_default=False),
]

importing = typer.Typer(
    help="Read a study that was run elsewhere into the storage.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@importing.command("optuna")
def import_optuna(
    url: Annotated[
        str,
        typer.Argument(
            help="Optuna's storage: a file (SQLite, or a journal), or a URL like sqlite:///optuna.db.",
            show_default=False,
        ),
    ],
    study_name: Annotated[
        str | None,
        typer.Option("--study-name", help="The study's name there. Default: the only one.", show_default=False),
    ] = None,
    objective: Annotated[str, typer.Option(help="What its value is called.")] = "objective",
    max_train_steps: Annotated[
        int | None, typer.Option(min=1, help="The budget of a trial. Default: the last step.", show_default=False)
    ] = None,
    schedule: ScheduleKind = None,
    ignore: Ignore = None,
    worth: Worth = None,
    study: Name = None,
    storage: Storage = None,
) -> None:
    """Import an Optuna study; its intermediate values become curves."""
    from tuner.interchange.optuna_in import OptunaTerms, imported_from_optuna

    terms = OptunaTerms(objective, max_train_steps, schedule or "unknown", tuple(ignore or ()))
    imported = imported_from_optuna(url, study_name, terms)
    _write(study or imported.name, imported, storage, worth)


@importing.command("table")
def import_table(
    history: History,
    objective: Objective,
    direction: Direction,
    points: Points = None,
    space: SpaceFile = None,
    max_train_steps: Budget = None,
    study: TableName = None,
    step_column: StepColumn = None,
    empty: Empty = None,
    schedule: ScheduleKind = None,
    ignore: Ignore = None,
    worth: Worth = None,
    storage: Storage = None,
) -> None:
    """Import histories of runs and their points from tables."""
    from tuner.interchange.tables_in import TableTerms, imported_from_tables

    terms = TableTerms(objective, direction, max_train_steps, schedule, tuple(ignore or ()), step_column, empty)
    name = study or (history.stem if history.suffix else history.resolve().name)
    _write(name, imported_from_tables(history, points, space, terms), storage, worth)


def _write(name: str, imported: Any, storage: str | None, worth: float | None) -> None:
    """`imported`: an `interchange.imported.Imported`, whose module is too heavy for `tuner --help`."""
    from tuner.cli.given import command
    from tuner.cli.output import next_step, say
    from tuner.cli.places import opened
    from tuner.interchange.imported import outdated, write_imported

    imported = imported if worth is None else imported.worth(worth)
    with opened(storage, create=True) as ledger:
        new = write_imported(ledger, name, imported)
        older = outdated(ledger, name, imported)
        place = ledger.safe_url
    for note in imported.notes:
        say(f"note: {note}")
    if older:
        say(
            f"note: {older} trials have got on since they were imported and are left as they were; import the study "
            "again under another name: --study NAME"
        )
    study = imported.study
    say(
        f"imported {new} new of {len(imported.trials)} trials as {name!r} into {place}: {study.objective.direction} "
        f"{study.objective.metric}, {study.budget.max_train_steps:,} steps, schedule {study.schedule.name}"
    )
    next_step(command("check", name), command("plot best-steps", name))
