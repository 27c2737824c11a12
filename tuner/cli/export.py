"""`tuner export`: a study for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import RoundNumber, Storage, Study


def export(
    study: Study,
    to: Annotated[
        tuple[str, str],
        typer.Option("--to", help="optuna URL-or-file, csv FOLDER or parquet FOLDER.", metavar="FORMAT PLACE"),
    ],
    round_number: RoundNumber = None,
    study_name: Annotated[
        str | None, typer.Option("--study-name", help="Its name in Optuna. Default: STUDY-round-N.", show_default=False)
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a study as an Optuna study or as tables; the same again changes nothing."""
    from tuner.cli.output import next_step, say
    from tuner.errors import DeclarationError
    from tuner.interchange.optuna_out import export_to_optuna
    from tuner.interchange.tables_out import FORMATS, export_tables
    from tuner.reading import load
    from tuner.security import without_password
    from tuner.shown import word

    form, place = to
    if form not in ("optuna", *FORMATS):
        raise DeclarationError(f"--to is followed by optuna, csv or parquet and a place, got {form!r}")
    records = load(study, storage)
    frames = records.frames(round_number)
    if form != "optuna":
        for path in export_tables(frames, Path(place), form):
            say(f"wrote {path}")
        return
    name = study_name or f"{records.name}-{frames.study.name}"
    done = export_to_optuna(frames, place, name)
    say(f"wrote Optuna study {name!r}: {done.new} new trials, {done.before} were there, {done.unfinished} not finished")
    next_step(f"optuna-dashboard {word(without_password(place))}")
