"""Reading, exchanging and reporting studies from Python. Nothing here needs torch.

`study` is the name of a campaign in the storage, the path of its study file, or a `Campaign` with a name. `storage` is
a path or URL; without one it is TUNER_STORAGE, or runs/tuner.sqlite. All functions raise `tuner.errors.TunerError`s,
whose messages name the way out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

from matplotlib.figure import Figure

from tuner.analysis.finding import Finding
from tuner.errors import DeclarationError, InputError
from tuner.interchange.imported import Imported, outdated, write_imported
from tuner.interchange.optuna_in import OptunaTerms, imported_from_optuna
from tuner.interchange.optuna_out import Exported, export_to_optuna
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.interchange.tables_out import export_tables
from tuner.reading import Asked, CampaignRecords, StudyName, Winner, load
from tuner.records.hourly_price import parsed_price
from tuner.report.page import report_path
from tuner.report.page import write_report as write_page
from tuner.rounds.importances import importances
from tuner.security import make_private_folder
from tuner.storage.engine import default_url
from tuner.storage.store import open_ledger


@dataclass(frozen=True, slots=True, repr=False)
class ImportResult:
    """What an import wrote.

    records: the campaign, to read. new: trials that were not in the storage before. trials: finished trials that were
    read. outdated: trials that have changed elsewhere since an earlier import and are left as they were. notes: what
    the import decided by rule, one sentence each.
    """

    records: CampaignRecords
    new: int
    trials: int
    outdated: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([f"imported {self.new} new of {self.trials} trials", *self.notes, repr(self.records)])


def check(study: StudyName, round: int | None = None, *, storage: str | None = None) -> list[Finding]:
    """Ask every question of the playbook about a round: verdict, evidence, caveats, next action.

    round: its number; None is the last round that was launched. The importances of hyperparameters come last.

    Raises StorageError where the campaign or the round was not launched.

    >>> findings = tuner.check("tiny")
    >>> sorted({finding.question for finding in findings})[:3]
    ['best_steps', 'boundary', 'enough_points']
    >>> [finding.verdict for finding in findings if finding.question == "best_steps"]
    ['inconclusive']
    """
    records = load(study, storage)
    frames = records.frames(round)
    return [*records.findings_about(frames), *importances(frames)]


def best(study: StudyName, round: Asked = None, *, storage: str | None = None) -> Winner:
    """The best configuration of a study by its objective; by the medians of fresh seeds where some were trained.

    round: its number, or the name of any study in `records.status()`; None is the last round.

    Raises StorageError where no trial is complete.

    >>> winner = tuner.best("tiny")
    >>> sorted(winner.point)
    ['dropout', 'learning_rate']
    >>> winner.value < 1.0
    True
    """
    return load(study, storage).best(round)


def best_steps(study: StudyName, round: Asked = None, *, storage: str | None = None) -> Finding:
    """Was the step budget right? (A13-A15)

    Raises StorageError where the campaign or the round was not launched.

    >>> tuner.best_steps("tiny").evidence.columns[:3].tolist()
    ['trial', 'best_value', 'best_step']
    """
    return load(study, storage).best_steps(round)


def boundaries(study: StudyName, round: Asked = None, *, storage: str | None = None) -> list[Finding]:
    """Was the range of each hyperparameter wide enough? One finding for each (B20).

    round: None is the last round that searched, because a round of chosen configurations has no ranges.

    Raises StorageError where the campaign or the round was not launched.

    >>> [finding.subject for finding in tuner.boundaries("tiny")]
    ['learning_rate', 'dropout']
    """
    return load(study, storage).boundaries(round)


def plot(
    name: str, study: StudyName, round: Asked = None, *, storage: str | None = None, out: str | Path | None = None
) -> Figure:
    """Draw a plot of `tuner plot --help`; a notebook shows the figure.

    out: a .png, .svg or .pdf file to write the figure to.

    Raises InputError for a name that no plot has, StorageError where the records are missing.

    >>> figure = tuner.plot("axes", "tiny")
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['learning_rate', 'dropout']
    """
    figure = load(study, storage).plot(name, round)
    if out is not None:
        target = Path(out)
        if target.suffix not in (".png", ".svg", ".pdf"):
            raise InputError(f"a plot is written as .png, .svg or .pdf, got {target.name!r}")
        make_private_folder(target.parent)
        figure.savefig(target, dpi=150)
    return figure


def write_report(
    study: StudyName,
    out: str | Path | None = None,
    *,
    price_per_hour: float | None = None,
    storage: str | None = None,
) -> Path:
    """Write the report of a campaign, one self-contained HTML page, and return its path.

    out: the file; None is the page beside the storage. price_per_hour: of one worker, in any currency; then the page
    says what was spent.

    Raises StorageError where the campaign was not launched, InputError where the page cannot be written, and for a
    price below 0.

    >>> tuner.write_report("tiny", "page.html").name
    'page.html'
    """
    price = parsed_price(None if price_per_hour is None else str(price_per_hour))
    records = load(study, storage)
    with open_ledger(records.storage, create=False) as ledger:
        page = report_path(ledger, records.name) if out is None else Path(out)
        write_page(ledger, records.name, page, importances, price)
    return page


@overload
def export(
    study: StudyName,
    to: Literal["csv", "parquet"],
    place: str | Path,
    round: int | None = ...,
    *,
    storage: str | None = ...,
) -> list[Path]: ...


@overload
def export(
    study: StudyName,
    to: Literal["optuna"],
    place: str | Path,
    round: int | None = ...,
    *,
    study_name: str | None = ...,
    storage: str | None = ...,
) -> Exported: ...


def export(
    study: StudyName,
    to: Literal["optuna", "csv", "parquet"],
    place: str | Path,
    round: int | None = None,
    *,
    study_name: str | None = None,
    storage: str | None = None,
) -> list[Path] | Exported:
    """Write a round as an Optuna study or as tables. The same call again changes nothing.

    place: a folder for tables; for Optuna a file or URL, and study_name is the study's name there.

    Returns the files of the tables, or how many trials the Optuna study received.

    Raises DeclarationError for another format, StorageError where the records are missing.

    >>> [path.name for path in tuner.export("tiny", "csv", "tables")]
    ['points.csv', 'curves.csv', 'space.json']
    """
    if to not in ("optuna", "csv", "parquet"):
        raise DeclarationError(f"a study is exported as optuna, csv or parquet, got {to!r}")
    records = load(study, storage)
    frames = records.frames(round)
    if to == "optuna":
        return export_to_optuna(frames, str(place), study_name or f"{records.name}-{frames.study.name}")
    return export_tables(frames, Path(place), to)


def import_optuna(
    url: str | Path,
    study_name: str | None = None,
    *,
    name: str | None = None,
    objective: str = "objective",
    max_train_steps: int | None = None,
    schedule: str = "unknown",
    ignore: Sequence[str] = (),
    worth: float | None = None,
    storage: str | None = None,
) -> ImportResult:
    """Import an Optuna study; its intermediate values become curves.

    url: a file (SQLite, or a journal) or a URL like sqlite:///optuna.db. study_name: the study there; None is the only
    one. name: the campaign here; None is the study's name there. objective: what its value is called.
    max_train_steps: the budget of a trial in steps; None is the last step. schedule: constant, decaying or unknown.
    ignore: hyperparameters to leave out. worth: the smallest change of the objective that matters, in its unit.

    Raises StorageError for a study that cannot be read, DeclarationError for one that cannot be imported.

    >>> tuner.export("tiny", "optuna", "optuna.db").new
    4
    >>> imported = tuner.import_optuna("optuna.db", name="again", storage="other.sqlite")
    >>> imported.new, imported.records.name
    (4, 'again')
    """
    terms = OptunaTerms(objective, max_train_steps, schedule, tuple(ignore))
    imported = imported_from_optuna(str(url), study_name, terms)
    return _written(name or imported.name, imported, worth, storage)


def import_table(
    history: str | Path,
    objective: str,
    direction: Literal["minimize", "maximize"],
    *,
    points: str | Path | None = None,
    space: str | Path | None = None,
    name: str | None = None,
    max_train_steps: int | None = None,
    schedule: str | None = None,
    ignore: Sequence[str] = (),
    step_column: str | None = None,
    empty: Literal["not-measured", "diverged"] | None = None,
    worth: float | None = None,
    storage: str | None = None,
) -> ImportResult:
    """Import histories of runs and their hyperparameters from tables.

    history: a table (trial, step, metric, value; or one column for each metric), or a folder with a history of each
    run: Lightning, Keras, Ray Tune, TensorBoard. objective: the metric that selects, as it was logged. points: a table
    with the trial and one column for each hyperparameter. space: a file that declares the searched ranges. name: the
    campaign here; None is the name of the table. step_column: the column that counts steps. empty: what empty cells at
    the end of a curve mean. The other arguments are those of `import_optuna`.

    Raises StorageError for tables that cannot be read, DeclarationError for a study that cannot be imported.

    >>> tables = tuner.export("tiny", "csv", "runs")
    >>> imported = tuner.import_table(
    ...     "runs", "validation/loss", "minimize", name="table", storage="other.sqlite"
    ... )
    >>> imported.new
    4
    """
    terms = TableTerms(objective, direction, max_train_steps, schedule, tuple(ignore), step_column, empty)
    file = Path(history)
    imported = imported_from_tables(file, _path(points), _path(space), terms)
    return _written(name or (file.stem if file.suffix else file.resolve().name), imported, worth, storage)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _written(name: str, imported: Imported, worth: float | None, storage: str | None) -> ImportResult:
    imported = imported if worth is None else imported.worth(worth)
    url = storage or default_url()
    with open_ledger(url, create=True) as ledger:
        new = write_imported(ledger, name, imported)
        older = outdated(ledger, name, imported)
    return ImportResult(CampaignRecords(name, url), new, len(imported.trials), older, imported.notes)
