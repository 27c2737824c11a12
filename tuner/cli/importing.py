"""`tuner import`: a study that was run elsewhere, read into the storage and known by its name from then on."""

from tuner.cli.given import command
from tuner.cli.output import next_step, say
from tuner.cli.places import opened
from tuner.cli.storage_options import ImportOptunaOptions, ImportTableOptions
from tuner.interchange.imported import Imported, outdated, write_imported
from tuner.interchange.optuna_in import OptunaTerms, imported_from_optuna
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.shown import counted


def import_optuna(options: ImportOptunaOptions) -> None:
    """Import an Optuna study."""
    schedule, ignore = options.schedule or "unknown", tuple(options.ignore or ())
    terms = OptunaTerms(options.objective, options.max_train_steps, schedule, ignore)
    imported = imported_from_optuna(options.url, options.study_name, terms)
    _write(options.study or imported.name, imported, options)


def import_table(options: ImportTableOptions) -> None:
    """Import histories of runs and their points from tables."""
    terms = TableTerms(
        options.objective,
        options.direction,
        options.max_train_steps,
        options.schedule,
        tuple(options.ignore or ()),
        options.step_column,
        options.empty,
    )
    history = options.history
    name = options.study or (history.stem if history.suffix else history.resolve().name)
    _write(name, imported_from_tables(history, options.points, options.space, terms), options)


def _write(name: str, imported: Imported, options: ImportOptunaOptions | ImportTableOptions) -> None:
    """Write what is new into the storage, and say what is there now."""
    imported = imported if options.worth is None else imported.worth(options.worth)
    with opened(options.storage, create=True) as ledger:
        new = write_imported(ledger, name, imported)
        older = outdated(ledger, name, imported)
        place = ledger.safe_url
    for note in imported.notes:
        say(f"note: {note}")
    if older:
        say(
            f"note: {counted(older, 'trial')} made more steps since the import and did not change here; to have them, "
            "import the study under another name: --study NAME"
        )
    study = imported.study
    say(
        f"imported {new} new of {len(imported.trials)} trials as {name!r} into {place}: {study.objective.direction} "
        f"{study.objective.metric}, {study.budget.max_train_steps:,} steps, schedule {study.schedule.name}"
    )
    next_step(command("check", name), command("plot best-steps", name))
