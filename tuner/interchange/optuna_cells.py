"""Checks every cell of an Optuna database, and names trial, field and damage.

For a damaged cell Optuna raises an exception that names neither, or returns it. So a SQLite database is checked before
Optuna reads it, and every trial afterwards.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from optuna.distributions import BaseDistribution, CategoricalDistribution, json_to_distribution
from optuna.trial import FrozenTrial

LONGEST = 80  # characters of a damaged cell in a message
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")
_DIRECTIONS = ("NOT_SET", "MINIMIZE", "MAXIMIZE")
_KINDS = ("FINITE", "INF_POS", "INF_NEG", "NAN")
_OF_TRIALS = "SELECT {columns} FROM {table} AS cell LEFT JOIN trials ON cell.trial_id = trials.trial_id"
Cells = Mapping[str, object]


def damage_of_database(connection: sqlite3.Connection) -> list[str]:
    """The damaged cells of a database, each like "trial 3: param 'lr': param_value ..."; empty for a sound one."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.row_factory = sqlite3.Row
    found: list[str] = []
    for look in (_studies, _trials, _params, _values, _intermediate, _attributes):
        found += look(connection)
    return found


def damage_of_trial(trial: FrozenTrial) -> str | None:
    """The first damage of a trial that Optuna has read, or None."""
    for name, distribution in trial.distributions.items():
        if name not in trial.params or not distribution._contains(_internal(distribution, trial.params[name])):
            return f"param {name!r:.{LONGEST}}: {_shown(trial.params.get(name))} is not within {distribution!r:.200}"
    for step, value in trial.intermediate_values.items():
        if not _is_step(step) or not _is_number(value):
            return f"intermediate value at step {_shown(step)}: {_shown(value)} is no number at a step from 0 on"
    if any(not _is_number(value) for value in trial.values or ()):
        return f"value {_shown(trial.values)} is no number"
    try:
        constraints = trial.constraints
        if any(not _is_number(value) for value in constraints.values()):
            return f"constraints {_shown(constraints)} are no numbers"
    except Exception as error:  # Optuna reads them out of its attributes only now
        return f"constraints cannot be read ({type(error).__name__})"
    return None


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[sqlite3.Row]:
    yield from connection.execute(query)


def _joined(connection: sqlite3.Connection, table: str, *columns: str) -> Iterator[tuple[str, Cells]]:
    """The rows of a table with the trial they belong to, in words."""
    wanted = ", ".join(["trials.number AS number_", "cell.trial_id AS id_", *(f"cell.{one}" for one in columns)])
    for row in _rows(connection, _OF_TRIALS.format(columns=wanted, table=table)):
        number = row["number_"] if isinstance(row["number_"], int) else f"with id {_shown(row['id_'])}"
        yield f"trial {number}", {column: row[column] for column in columns}


def _studies(connection: sqlite3.Connection) -> Iterator[str]:
    for row in _rows(connection, "SELECT study_id, study_name FROM studies"):
        if not isinstance(row["study_name"], str):
            yield f"study with id {_shown(row['study_id'])}: study_name {_shown(row['study_name'])} is no text"
    of_study = "SELECT study_name, {columns} FROM {table} LEFT JOIN studies USING (study_id)"
    for row in _rows(connection, of_study.format(columns="direction", table="study_directions")):
        if row["direction"] not in _DIRECTIONS:
            yield f"study {_shown(row['study_name'])}: direction {_shown(row['direction'])} is none"
    for kind in ("user", "system"):
        for row in _rows(connection, of_study.format(columns="key, value_json", table=f"study_{kind}_attributes")):
            wrong = _wrong_json(row["value_json"])
            if wrong:
                told = f"{kind} attribute {_shown(row['key'])}: {_shown(row['value_json'])} {wrong}"
                yield f"study {_shown(row['study_name'])}: {told}"


def _trials(connection: sqlite3.Connection) -> Iterator[str]:
    columns = ("number", "state", "datetime_start", "datetime_complete")
    seen: set[tuple[object, object]] = set()
    for where, cells in _joined(connection, "trials", *columns, "study_id"):
        if (cells["study_id"], cells["number"]) in seen:
            yield f"{where}: another trial of the study has the same number"
        seen.add((cells["study_id"], cells["number"]))
        if not _is_step(cells["number"]):
            yield f"{where}: number {_shown(cells['number'])} is no whole number from 0 on"
        if cells["state"] not in _STATES:
            yield f"{where}: state {_shown(cells['state'])} is none of {', '.join(_STATES)}"
        for column in ("datetime_start", "datetime_complete"):
            if cells[column] is not None and not _is_moment(cells[column]):
                yield f"{where}: {column} {_shown(cells[column])} is no date"


def _params(connection: sqlite3.Connection) -> Iterator[str]:
    read: dict[object, BaseDistribution | str] = {}
    for where, cells in _joined(connection, "trial_params", "param_name", "param_value", "distribution_json"):
        name, value, text = cells["param_name"], cells["param_value"], cells["distribution_json"]
        told = f"{where}: param {_shown(name)}"
        if not isinstance(name, str) or (not name.isprintable() and any(0xDC80 <= ord(one) <= 0xDCFF for one in name)):
            yield f"{told}: param_name is no text"
            continue
        if text not in read:
            read[text] = _distribution(text)
        distribution = read[text]
        if isinstance(distribution, str):
            yield f"{told}: distribution_json {_shown(text)} {distribution}"
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"{told}: param_value {_shown(value)} is no number"
        elif isinstance(distribution, CategoricalDistribution) and value not in range(len(distribution.choices)):
            yield f"{told}: param_value {_shown(value)} names none of its {len(distribution.choices)} choices"
        elif not distribution._contains(value):
            yield f"{told}: param_value {_shown(value)} is not within {distribution!r:.200}"


def _distribution(text: object) -> BaseDistribution | str:
    """The distribution, or what is wrong with its text."""
    if not isinstance(text, str):
        return "is no text"
    try:
        return json_to_distribution(text)
    except json.JSONDecodeError:
        return "is no JSON"
    except Exception as error:  # whatever Optuna makes of a wrong name, a missing bound, an empty choice
        return f"is no distribution ({type(error).__name__}: {error!s:.{LONGEST}})"


def _values(connection: sqlite3.Connection) -> Iterator[str]:
    kinds = _columns(connection, "trial_values")
    columns = ("objective", "value", *(("value_type",) if "value_type" in kinds else ()))
    for where, cells in _joined(connection, "trial_values", *columns):
        if not _is_step(cells["objective"]):
            yield f"{where}: objective {_shown(cells['objective'])} of a value is no whole number"
        yield from _number_and_kind(f"{where}: value", cells["value"], cells.get("value_type", "FINITE"))


def _intermediate(connection: sqlite3.Connection) -> Iterator[str]:
    kind = "intermediate_value_type"
    there = kind in _columns(connection, "trial_intermediate_values")
    columns = ("step", "intermediate_value", *((kind,) if there else ()))
    for where, cells in _joined(connection, "trial_intermediate_values", *columns):
        if not _is_step(cells["step"]):
            yield f"{where}: step {_shown(cells['step'])} of an intermediate value is no whole number from 0 on"
        told = f"{where}: intermediate_value at step {_shown(cells['step'])}"
        yield from _number_and_kind(told, cells["intermediate_value"], cells.get(kind, "FINITE"))


def _number_and_kind(told: str, value: object, kind: object) -> Iterator[str]:
    if kind not in _KINDS:
        yield f"{told}: its type {_shown(kind)} is none of {', '.join(_KINDS)}"
    elif kind == "FINITE" and not _is_number(value):
        yield f"{told}: {_shown(value)} is no number"
    elif kind != "FINITE" and value is not None:
        yield f"{told}: {_shown(value)} stands beside the type {kind}"


def _attributes(connection: sqlite3.Connection) -> Iterator[str]:
    for kind in ("user", "system"):
        for where, cells in _joined(connection, f"trial_{kind}_attributes", "key", "value_json"):
            wrong = _wrong_json(cells["value_json"]) or _wrong_constraint(kind, cells)
            if wrong:
                yield f"{where}: {kind} attribute {_shown(cells['key'])}: {_shown(cells['value_json'])} {wrong}"


def _wrong_constraint(kind: str, cells: Cells) -> str:
    """Constraints are attributes that Optuna reads as numbers."""
    key, value = cells["key"], json.loads(str(cells["value_json"]))
    if kind != "system" or not str(key).startswith("constraints"):
        return ""
    several: Iterable[object] = value if isinstance(value, list) else [value]
    return "" if all(_is_number(one) for one in several) else "is no constraint: those are numbers"


def _wrong_json(text: object) -> str:
    try:
        json.loads(text) if isinstance(text, str) else json.loads("")
    except (ValueError, RecursionError):
        return "is no JSON"
    return ""


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row["name"] for row in _rows(connection, f"PRAGMA table_info({table})")}


def _internal(distribution: BaseDistribution, value: object) -> float:
    try:
        return float(distribution.to_internal_repr(value))
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_moment(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _shown(value: object) -> str:
    """A cell on one line, never more than a piece of it."""
    text = ascii(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
