"""`tuner plot`, `report`, `export` and `demo`: what is written into files, to look at or for other tools."""

from pathlib import Path

from tuner.cli.given import command
from tuner.cli.output import next_step, say
from tuner.cli.places import opened
from tuner.cli.reading_options import DemoOptions, ExportOptions, PlotOptions, ReportOptions
from tuner.errors import DeclarationError, StorageError
from tuner.interchange.imported import write_imported
from tuner.interchange.optuna_out import export_to_optuna
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.interchange.tables_out import FORMATS, export_tables
from tuner.plots.catalog import PLOTS
from tuner.plots.theme import empty_because
from tuner.reading import load
from tuner.records.hourly_price import parsed_price
from tuner.report.page import report_path, write_report
from tuner.rounds.importances import importances
from tuner.security import make_private_folder, safe_cell, without_password
from tuner.shown import word

# 40 trials of 400 steps of studies/digits.py (round 1), recorded on a CPU with learning rates of at most 0.003: good
# trials still improve at the end, so the report has something to advise.
RECORDED = Path(__file__).parent / "demo_study"


def plot(options: PlotOptions) -> None:
    """Draw a plot into a file, and write a CSV of what is plotted beside it."""
    target = options.out or Path(f"{options.kind}.png")
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise StorageError(f"a plot is written as .png, .svg or .pdf, got {target.name!r}; name the file so")
    records = load(options.study, options.storage)
    figure, frame = records.drawn(options.kind, options.study_name or options.round_number)
    if reason := empty_because(figure):
        raise StorageError(f"there is nothing to plot: {reason} No file was written")
    make_private_folder(target.parent)
    figure.savefig(target, dpi=150)
    frame.map(safe_cell).rename(columns=safe_cell).to_csv(target.with_suffix(".csv"), index=False)
    say(f"wrote {target} and {target.with_suffix('.csv')}")


def kinds_of_plots() -> list[tuple[str, str]]:
    """The names of all plots, those of plugins too, and what each shows."""
    return [(one.name, one.title) for one in PLOTS]


def report(options: ReportOptions) -> None:
    """Write one page that holds everything."""
    price = parsed_price(options.price_per_hour)
    records = load(options.study, options.storage)
    with opened(options.storage, create=False) as ledger:
        target = options.out or report_path(ledger, records.name)
        write_report(ledger, records.name, target, importances, price)
    say(f"wrote {target}")


def export(options: ExportOptions) -> None:
    """Write a study as an Optuna study or as tables; the same again changes nothing."""
    form, place = options.to
    if form not in ("optuna", *FORMATS):
        raise DeclarationError(f"--to is followed by optuna, csv or parquet and a place, got {form!r}")
    records = load(options.study, options.storage)
    frames = records.frames(options.round_number)
    if form != "optuna":
        for path in export_tables(frames, Path(place), form):
            say(f"wrote {path}")
        return
    name = options.study_name or f"{records.name}-{frames.study.name}"
    done = export_to_optuna(frames, place, name)
    say(f"wrote Optuna study {name!r}: {done.new} new trials, {done.before} were there, {done.unfinished} not finished")
    next_step(f"optuna-dashboard {word(without_password(place))}")


def demo(options: DemoOptions) -> None:
    """Write the report of a recorded study that comes with the package; nothing is trained."""
    storage, page = options.folder / "tuner.sqlite", options.folder / "demo.html"
    terms = TableTerms("validation/loss", "minimize", schedule="constant")
    imported = imported_from_tables(RECORDED / "history.csv", RECORDED / "points.csv", RECORDED / "space.json", terms)
    with opened(str(storage), create=True) as ledger:
        write_imported(ledger, "demo", imported)
        write_report(ledger, "demo", page, importances)
    say(f"wrote {page}: 40 recorded trials of a classifier of digits; nothing was trained")
    at = ("--storage", storage)
    next_step(f"open {word(page)}", command("check", "demo", after=at), command("plot axes", "demo", after=at))
