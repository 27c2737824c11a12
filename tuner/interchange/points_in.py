"""The table of points: one row for each trial, one column for each hyperparameter, cells read by the space file."""

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tuner.design.hyperparameters import Choice, Hyperparameter, condition_words, fulfils
from tuner.design.names import TRIAL_COLUMNS
from tuner.errors import DeclarationError
from tuner.interchange.cells import is_nothing, look_alike
from tuner.interchange.histories import RUN_NAMES, run_column, run_keys
from tuner.interchange.table_files import check_columns
from tuner.interchange.table_space import ABSENT, value_of
from tuner.records import State

# What Weights & Biases and MLflow write beside the parameters of a run.
_OF_LOGGERS = (
    "notes", "user", "tags", "created", "runtime", "sweep", "hostname", "start_time", "end_time", "duration",
    "experiment_id", "artifact_uri",
)  # fmt: skip
_OF_MLFLOW = ("tags.", "metrics.")  # prefixes of columns that are not parameters
# Words of other tools for how a run ended; a run that simply ended is judged by its curve.
_STATES = {
    "finished": None, "terminated": None, "success": None, "succeeded": None, "completed": None,
    "crashed": State.FAILED, "error": State.FAILED, "fail": State.FAILED, "errored": State.FAILED,
    "killed": State.CANCELLED, "stopped": State.CANCELLED, "pruned": State.CANCELLED, "preempted": State.CANCELLED,
    "pending": State.WAITING, "scheduled": State.WAITING, "queued": State.WAITING, "paused": State.WAITING,
    "preempting": State.RUNNING, "unfinished": State.RUNNING,
}  # fmt: skip
Row = Mapping[Hashable, object]


@dataclass(frozen=True, slots=True)
class KnownRuns:
    """What an import knows beside the points: the hyperparameters, names to leave out, logged metrics, runs."""

    hyperparameters: Sequence[Hyperparameter]
    ignored: Sequence[str]
    metrics: Collection[str]
    runs: Collection[str]


def checked_points(table: pd.DataFrame, path: Path, known: KnownRuns, notes: list[str]) -> pd.DataFrame:
    """Points with a column `run` (text, each once), `state` and `reason` where they are given, and the hyperparameters.

    Raises DeclarationError for columns or rows that do not fit.
    """
    names = [h.name for h in known.hyperparameters]
    table = without_prefixes(table, {*names, *known.ignored})
    column = _run_column(table, known.runs)
    check_columns(table, (column or "trial", *names), path)
    if table.empty:
        raise DeclarationError(f"{path} has no rows; it holds one for each trial")
    _refuse_unknown(table, path, known, notes)
    table = table.rename(columns={str(name): str(name).lower() for name in table if str(name) in ("State", "Reason")})
    if "state" not in table and "status" not in names:
        table = table.rename(columns={"status": "state"})  # MLflow's word
    keys = run_keys(table[str(column)], f"{path}: {column}")
    if keys.duplicated().any():
        raise DeclarationError(f"{path}: trial {keys[keys.duplicated()].iloc[0]} stands in more than one row")
    kept = [name for name in ("state", "reason", "origin") if name in table and name not in names]
    return table[[*names, *kept]].assign(run=keys)


def without_prefixes(table: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """`config.lr` (W&B), `config/lr` (Ray) and `params.lr` (MLflow) as `lr`, where that is a name of the space."""
    there = set(map(str, table))
    bare = {str(one): found[1] for one in table if (found := re.fullmatch(r"(?:config|params)[./](.+)", str(one)))}
    return table.rename(columns={name: mine for name, mine in bare.items() if mine in names and mine not in there})


def points_of_curves(table: pd.DataFrame, hyperparameters: Sequence[Hyperparameter]) -> pd.DataFrame | None:
    """The points of a history that has a column for every hyperparameter; None where it has not."""
    column, names = run_column(table), [h.name for h in hyperparameters]
    if column is None or not set(names) <= set(table.columns):
        return None
    there = table[names].mask(table[names].map(is_nothing)).groupby(table[column], sort=False).first()
    return there.rename_axis("trial").reset_index()


def point_of(hyperparameters: Sequence[Hyperparameter], row: Row, trial: str) -> dict[str, object]:
    """The values of a row. Raises DeclarationError for what is not in the space, or not in this branch of it."""
    values: dict[str, object] = {}
    for h in _parents_first(hyperparameters):
        cell, where = row[h.name], f"trial {trial}, {h.name}"
        exists = h.condition is None or fulfils(h.condition, values.get(h.condition[0], ABSENT))
        if exists:
            values[h.name] = value_of(h, cell, where)
        elif h.condition and not is_nothing(cell):
            raise DeclarationError(
                f"trial {trial} has {h.name}, which exists only where {condition_words(h.condition)}; leave the cell "
                "empty"
            )
    return {h.name: values[h.name] for h in hyperparameters if values.get(h.name, ABSENT) is not ABSENT}


def _parents_first(hyperparameters: Sequence[Hyperparameter]) -> list[Hyperparameter]:
    """In an order in which each comes after what it exists under, however deep."""
    by_name = {h.name: h for h in hyperparameters}

    def depth(h: Hyperparameter | None, left: int) -> int:
        return 0 if h is None or h.condition is None or not left else 1 + depth(by_name.get(h.condition[0]), left - 1)

    return sorted(hyperparameters, key=lambda h: depth(h, len(by_name)))


def state_of(row: Row, trial: str) -> State | None:
    """The state that the points give a trial; None where its curve decides. Raises DeclarationError."""
    cell = row.get("state")
    if is_nothing(cell):
        return None
    word = str(cell).strip().lower()
    if word in _STATES:
        return _STATES[word]
    try:
        return State(word)
    except ValueError:
        known = ", ".join(state.value for state in State if state.finished)
        raise DeclarationError(f"trial {trial} has state {cell!r:.80}; it is one of {known}, or empty") from None


def note_choices(hyperparameters: Sequence[Hyperparameter], points: pd.DataFrame) -> list[str]:
    """What a table cannot tell apart, and how it was read."""
    found = []
    for h in hyperparameters:
        alike = look_alike(h.domain.choices) if isinstance(h.domain, Choice) else []
        if alike and not points[h.name].map(is_nothing).all():
            shown = ", ".join(map(repr, alike))
            found.append(
                f"{h.name} has choices that look alike in a table ({shown}): a bare cell is read as the number or "
                'word, and only "..." in quotes as the text'
            )
    return found


def _run_column(table: pd.DataFrame, runs: Collection[str]) -> str | None:
    """The column that names the runs; of several (an id and a name) the one in which the curves' runs stand."""
    mine = [str(name) for name in table if str(name).lower() in RUN_NAMES]
    mine.sort(key=lambda name: RUN_NAMES.index(name.lower()))
    return next(
        (name for name in mine if set(runs) <= set(table[name].astype(str).str.strip())), next(iter(mine), None)
    )


def _refuse_unknown(table: pd.DataFrame, path: Path, known: KnownRuns, notes: list[str]) -> None:
    """Refuse a column that varies and is known nowhere: the space file may lack that hyperparameter."""
    names = [h.name for h in known.hyperparameters]
    expected = {*TRIAL_COLUMNS, *RUN_NAMES, *_OF_LOGGERS, "status"}
    spare = [
        str(name)
        for name in table
        if str(name).lower() not in expected
        and not str(name).startswith(_OF_MLFLOW)
        and name not in (*names, *known.ignored, *known.metrics)
    ]
    constant = [name for name in spare if len(table) > 1 and table[name].astype(str).nunique() == 1]
    if constant:
        notes.append(f"{', '.join(constant)} has one value in all trials and does not vary; it is left out")
    unknown = [name for name in spare if name not in constant]
    if unknown:
        options = " ".join(f"--ignore {name}" for name in unknown[:20])
        raise DeclarationError(
            f"{path} has columns that the space file does not: {', '.join(unknown[:20])}; add them to the space file, "
            f"or leave them out: {options}"
        )
