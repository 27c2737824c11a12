"""Tables as a study: curves in long form (trial, step, metric, value), points with a column a hyperparameter."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Hyperparameter, condition_words, fulfils
from tuner.design.objective import Objective
from tuner.design.study import Study
from tuner.design.trial import TRIAL_COLUMNS
from tuner.errors import DeclarationError
from tuner.interchange.cleaning import (
    Ended,
    ends_by_curve,
    interval_of,
    note_ends,
    schedule_by_curve,
    without_overflow,
    without_repeats,
)
from tuner.interchange.imported import (
    LEARNING_RATE_METRICS,
    Imported,
    imported_study,
    imported_trial,
    metric_name,
    refuse_unknown,
)
from tuner.interchange.table_space import read_space, value_of
from tuner.records import FinishedTrial, Measurement, State
from tuner.security import original_cell

CURVE_COLUMNS = ("trial", "step", "metric", "value")
LARGEST = 2**53  # whole numbers beyond are not exact


@dataclass(frozen=True, slots=True)
class TableTerms:
    """What the tables do not say."""

    objective: str
    direction: str
    max_train_steps: int
    schedule: str | None = None
    ignored: tuple[str, ...] = ()


def imported_from_tables(curves_file: Path, points_file: Path, space_file: Path, terms: TableTerms) -> Imported:
    """Read a study. Raises DeclarationError naming file, column and value of what does not fit."""
    notes: list[str] = []
    objective = Objective(metric_name(terms.objective), terms.direction)  # type: ignore[arg-type]
    declared = read_space(space_file)
    hyperparameters = [h for h in declared if h.name not in terms.ignored]
    points = _points(points_file, hyperparameters, terms.ignored)
    refuse_unknown(terms.ignored, {*(h.name for h in declared), *map(str, points)} - {"trial"})
    curves = without_repeats(_curves(curves_file), notes)
    _check_trials(curves, points, curves_file, points_file)
    _check_metric(curves, objective, terms.objective, curves_file)
    _check_steps(curves, terms.max_train_steps, curves_file)
    mine = curves[curves["metric"] == objective.metric]
    budget = StepBudget(terms.max_train_steps, min(terms.max_train_steps, interval_of(mine)))
    schedule = terms.schedule or schedule_by_curve(curves, LEARNING_RATE_METRICS) or "unknown"
    study = imported_study(hyperparameters, budget, objective, schedule, curves_file.name)
    ends = ends_by_curve(curves, objective, budget.max_train_steps, budget.evaluate_every)
    trials = _trials(study, points, curves, ends)
    notes += note_ends({t.trial.number: Ended(t.state, t.reason, t.step) for t in trials}, ends, curves, objective)
    notes += _note_empty(study, trials)
    return Imported(replace(study, num_trials=len(trials)), tuple(trials), tuple(notes))


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file as text cells, or a Parquet file. Raises DeclarationError."""
    if not path.is_file():
        raise DeclarationError(f"there is no file {path}")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path, engine="pyarrow")
        else:  # the heading is read as a row, so that pandas renames nothing
            rows = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, encoding="utf-8-sig")
            table = rows.iloc[1:].reset_index(drop=True).set_axis(rows.iloc[0].astype(str).tolist(), axis=1)
    except ImportError:
        raise DeclarationError(f"{path} is Parquet, which needs pyarrow: pip install 'tuner[parquet]'") from None
    except (ValueError, OSError) as error:
        reason = " ".join(f"{error!s:.200}".split())
        raise DeclarationError(
            f"{path} cannot be read as a table: {reason}; a table is UTF-8 text with a heading and commas between cells"
        ) from error
    table = table.rename(columns=lambda name: original_cell(str(name)))
    if table.columns.duplicated().any():
        raise DeclarationError(f"{path} has two columns {table.columns[table.columns.duplicated()][0]!r}; rename one")
    return table


def _check_columns(table: pd.DataFrame, wanted: Sequence[str], path: Path) -> None:
    missing = [name for name in wanted if name not in table]
    if missing:
        raise DeclarationError(
            f"{path} has no column {', '.join(missing)}; it has: {', '.join(map(str, table.columns))} (a heading, and "
            "commas between cells)"
        )


def _points(path: Path, hyperparameters: Sequence[Hyperparameter], ignored: Sequence[str]) -> pd.DataFrame:
    table = read_table(path)
    names = [h.name for h in hyperparameters]
    _check_columns(table, ("trial", *names), path)
    if table.empty:
        raise DeclarationError(f"{path} has no rows; it holds one for each trial")
    unknown = [column for column in table if column not in (*TRIAL_COLUMNS, *names, *ignored)]
    if unknown:
        raise DeclarationError(
            f"{path} has columns that the space file does not: {', '.join(map(str, unknown))}; add them to the space "
            f"file, or say --ignore {unknown[0]}"
        )
    table["trial"] = _whole(table["trial"], f"{path}: trial")
    doubled = table.loc[table["trial"].duplicated(), "trial"]
    if len(doubled):
        raise DeclarationError(f"{path}: trial {doubled.iloc[0]} stands in more than one row")
    return table


def _curves(path: Path) -> pd.DataFrame:
    table = read_table(path)
    _check_columns(table, CURVE_COLUMNS, path)
    table = table[list(CURVE_COLUMNS)].copy()
    table["trial"] = _whole(table["trial"], f"{path}: trial")
    table["step"] = _whole(table["step"], f"{path}: step")
    table["value"] = _numbers(table["value"], f"{path}: value").map(without_overflow)
    table["metric"] = _metrics(table["metric"], path)
    return table


def _metrics(column: pd.Series, path: Path) -> pd.Series:
    """Metrics under the names they have here; two of one name would overwrite each other."""
    text = column.fillna("").astype(str).str.strip()
    if (text == "").any():
        raise DeclarationError(f"{path}: row {int((text == '').to_numpy().argmax()) + 2} has no metric")
    ours = {name: metric_name(name) for name in text.unique()}
    for name, mine in ours.items():
        twin = next(other for other, its in ours.items() if its == mine)
        if twin != name:
            raise DeclarationError(f"{path}: {twin} and {name} are both {mine} here; keep one of them")
    return text.map(ours)


def _numbers(column: pd.Series, where: str) -> pd.Series:
    """Numbers, NaN and infinities as such; an empty cell is NaN."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    text = column.fillna("nan").astype(str).str.strip().replace({"": "nan", "None": "nan", "null": "nan"})
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = numbers.isna() & ~text.str.lower().str.lstrip("+-").isin(["nan"])
    if wrong.any():
        place = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DeclarationError(f"{where} in row {place + 2} is no number: {text.iloc[place]!r}; write it like 0.001")
    return numbers.astype(float)


def _whole(column: pd.Series, where: str) -> pd.Series:
    numbers = _numbers(column, where)
    wrong = ~np.isfinite(numbers) | (numbers != numbers.round()) | (numbers < 0) | (numbers > LARGEST)
    if wrong.any():
        place = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DeclarationError(
            f"{where} in row {place + 2} must be a whole number from 0 to 2^53: {column.iloc[place]!r}"
        )
    return numbers.astype(np.int64)


def _check_trials(curves: pd.DataFrame, points: pd.DataFrame, curves_file: Path, points_file: Path) -> None:
    strangers = sorted(set(curves["trial"]) - set(points["trial"]))
    if strangers:
        raise DeclarationError(f"{curves_file} has trial {strangers[0]}, which {points_file} does not")


def _check_metric(curves: pd.DataFrame, objective: Objective, asked: str, path: Path) -> None:
    if len(curves) and objective.metric not in set(curves["metric"]):
        known = ", ".join(sorted(set(curves["metric"])))
        raise DeclarationError(f"{path} has no metric {asked!r} (here {objective.metric}); it has: {known}")


def _check_steps(curves: pd.DataFrame, max_train_steps: int, path: Path) -> None:
    if len(curves) and curves["step"].max() > max_train_steps:
        row = curves.iloc[int(curves["step"].to_numpy().argmax())]
        raise DeclarationError(
            f"{path}: trial {row['trial']} was measured at step {row['step']}, beyond --max-train-steps "
            f"{max_train_steps}; all trials of a study have one budget (A11)"
        )


def _trials(study: Study, points: pd.DataFrame, curves: pd.DataFrame, ends: Mapping[int, Ended]) -> list[FinishedTrial]:
    by_trial = {int(str(trial)): part for trial, part in curves.groupby("trial")}
    missing = Ended(State.FAILED, f"no measurement of {study.objective.metric}", 0)
    made = []
    for row in points.to_dict("records"):
        number = int(row["trial"])
        end = _declared_end(row, ends.get(number, missing))
        trial = imported_trial(study, number, _point(study, number, row))
        made.append(FinishedTrial(trial, end.state, end.reason, end.step, _measurements(by_trial.get(number))))
    return made


def _point(study: Study, number: int, row: Mapping[Hashable, object]) -> dict[str, object]:
    """The values of a row. Raises DeclarationError for what is not in the space, or not in this branch of it."""
    read = {h.name: value_of(h, row[h.name], f"trial {number}, {h.name}") for h in study.hyperparameters}
    values: dict[str, object] = {name: value for name, value in read.items() if value is not None}
    for h in study.hyperparameters:
        if h.name in values and h.condition and not fulfils(h.condition, values.get(h.condition[0])):
            raise DeclarationError(
                f"trial {number} has {h.name}, which exists only where {condition_words(h.condition)}; leave the cell "
                "empty"
            )
    return values


def _note_empty(study: Study, trials: Sequence[FinishedTrial]) -> list[str]:
    counts = {
        h.name: sum(h.name not in dict(one.trial.point.values_by_name) for one in trials)
        for h in study.hyperparameters
        if h.condition is None
    }
    return [f"{name} is empty in {count} trials: it is not known there" for name, count in counts.items() if count]


def _declared_end(row: Mapping[object, object], found: Ended) -> Ended:
    """The state that the points give, where they do; else what the curve says."""
    text = row.get("state", "")
    if text is None or str(text).strip() == "" or (isinstance(text, float) and math.isnan(text)):
        return found
    try:
        state = State(str(text).strip().lower())
    except ValueError:
        known = ", ".join(state.value for state in State if state.finished)
        raise DeclarationError(f"trial {row['trial']} has state {text!r}; it is one of {known}, or empty") from None
    if not state.finished:
        return Ended(State.CANCELLED, f"was {state.value} when it was written", found.step)
    reason = str(row.get("reason") or "") or (found.reason if state is found.state else "")
    return Ended(state, reason, found.step)


def _measurements(curve: pd.DataFrame | None) -> list[Measurement]:
    if curve is None:
        return []
    columns = (curve["step"].tolist(), curve["metric"].tolist(), curve["value"].tolist())
    return [Measurement(step, metric, value) for step, metric, value in zip(*columns, strict=True)]
