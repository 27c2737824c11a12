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
    url: Annotated[str, typer.Argument(help="Optuna's storage, like sqlite:///optuna.db.", show_default=False)],
    study_name: Annotated[str, typer.Option("--study-name", help="The study's name there.", show_default=False)],
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
    _write(study or study_name, imported_from_optuna(url, study_name, terms), storage, worth)


@importing.command("table")
def import_table(
    curves: Annotated[Path, typer.Argument(help="trial, step, metric, value; .csv or .parquet.", show_default=False)],
    points: Annotated[Path, typer.Option(help="trial and a column for each hyperparameter.", show_default=False)],
    space: Annotated[Path, typer.Option(help="JSON: kind, low, high, log, choices of each.", show_default=False)],
    objective: Annotated[str, typer.Option(help="The metric that selects.", show_default=False)],
    direction: Annotated[str, typer.Option(help="minimize or maximize.", show_default=False)],
    max_train_steps: Annotated[int, typer.Option(min=1, help="The budget of every trial.", show_default=False)],
    study: Annotated[str, typer.Option("--study", help="Its name here.", show_default=False)],
    schedule: ScheduleKind = None,
    ignore: Ignore = None,
    worth: Worth = None,
    storage: Storage = None,
) -> None:
    """Import curves and points from tables."""
    from tuner.interchange.tables_in import TableTerms, imported_from_tables

    terms = TableTerms(objective, direction, max_train_steps, schedule, tuple(ignore or ()))
    _write(study, imported_from_tables(curves, points, space, terms), storage, worth)


def _write(name: str, imported: Any, storage: str | None, worth: float | None) -> None:
    """`imported`: an `interchange.imported.Imported`, whose module is too heavy for `tuner --help`."""
    from tuner.cli.output import next_step, say
    from tuner.cli.places import opened
    from tuner.interchange.imported import write_imported

    imported = imported if worth is None else imported.worth(worth)
    with opened(storage, create=True) as ledger:
        new = write_imported(ledger, name, imported)
        place = ledger.safe_url
    for note in imported.notes:
        say(f"note: {note}")
    study = imported.study
    say(
        f"imported {new} new of {len(imported.trials)} trials as {name!r} into {place}: {study.objective.direction} "
        f"{study.objective.metric}, {study.budget.max_train_steps:,} steps, schedule {study.schedule.name}"
    )
    next_step(f"tuner check {name}", f"tuner plot best-steps {name}")
