"""Tables as a study: curves in long form (trial, step, metric, value), points with a column a hyperparameter."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Hyperparameter, Value
from tuner.design.objective import Objective
from tuner.design.study import Study
from tuner.errors import DeclarationError
from tuner.interchange.cleaning import (
    Ended,
    ends_by_curve,
    interval_of,
    note_ends,
    schedule_by_curve,
    without_repeats,
)
from tuner.interchange.imported import (
    LEARNING_RATE_METRICS,
    Imported,
    imported_study,
    imported_trial,
    metric_name,
)
from tuner.interchange.table_space import read_space, value_of
from tuner.records import FinishedTrial, Measurement, State
from tuner.security import original_cell

CURVE_COLUMNS = ("trial", "step", "metric", "value")
# Of points, besides hyperparameters.
KNOWN_COLUMNS = (
    "trial", "state", "reason", "seed", "data_seed", "origin", "steps", "inherited", "exact", "attempt", "best_value",
    "best_step", "last_value",
)  # fmt: skip


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
    hyperparameters = [h for h in read_space(space_file) if h.name not in terms.ignored]
    points = _points(points_file, hyperparameters, terms.ignored)
    curves = without_repeats(_curves(curves_file), notes)
    _check_trials(curves, points, curves_file, points_file)
    _check_metric(curves, objective, terms.objective, curves_file)
    _check_steps(curves, terms.max_train_steps, curves_file)
    mine = curves[curves["metric"] == objective.metric]
    budget = StepBudget(terms.max_train_steps, min(terms.max_train_steps, interval_of(mine)))
    schedule = terms.schedule or schedule_by_curve(curves, LEARNING_RATE_METRICS) or "unknown"
    study = imported_study(hyperparameters, budget, objective, schedule, curves_file.name)
    ends = ends_by_curve(curves, objective, budget.max_train_steps, budget.evaluate_every)
    note_ends(ends, curves, objective, notes)
    trials = _trials(study, points, curves, ends, notes)
    return Imported(replace(study, num_trials=len(trials)), tuple(trials), tuple(notes))


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file as text cells, or a Parquet file. Raises DeclarationError."""
    if not path.is_file():
        raise DeclarationError(f"there is no file {path}")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path, engine="pyarrow")
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ImportError:
        raise DeclarationError(f"{path} is Parquet, which needs pyarrow: pip install 'tuner[parquet]'") from None
    except (ValueError, OSError) as error:
        raise DeclarationError(f"{path} cannot be read as a table: {error!s:.200}") from error
    return table.rename(columns=lambda name: original_cell(str(name)))


def _points(path: Path, hyperparameters: Sequence[Hyperparameter], ignored: Sequence[str]) -> pd.DataFrame:
    table = read_table(path)
    names = [h.name for h in hyperparameters]
    missing = [name for name in ("trial", *names) if name not in table]
    if missing:
        raise DeclarationError(
            f"{path} has no column {', '.join(missing)}; it has: {', '.join(map(str, table.columns))}"
        )
    unknown = [column for column in table if column not in (*KNOWN_COLUMNS, *names, *ignored)]
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
    missing = [name for name in CURVE_COLUMNS if name not in table]
    if missing:
        raise DeclarationError(f"{path} has no column {', '.join(missing)}; curves have: {', '.join(CURVE_COLUMNS)}")
    table = table[list(CURVE_COLUMNS)].copy()
    table["trial"] = _whole(table["trial"], f"{path}: trial")
    table["step"] = _whole(table["step"], f"{path}: step")
    table["value"] = _numbers(table["value"], f"{path}: value")
    table["metric"] = table["metric"].astype(str).map(metric_name)
    return table


def _numbers(column: pd.Series, where: str) -> pd.Series:
    """Numbers, NaN and infinities as such; an empty cell is NaN."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    text = column.fillna("nan").astype(str).str.strip().replace({"": "nan", "None": "nan", "null": "nan"})
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = numbers.isna() & ~text.str.lower().str.lstrip("+-").isin(["nan"])
    if wrong.any():
        place = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DeclarationError(f"{where} in row {place + 2} is no number: {text.iloc[place]!r}")
    return numbers.astype(float)


def _whole(column: pd.Series, where: str) -> pd.Series:
    numbers = _numbers(column, where)
    wrong = ~np.isfinite(numbers) | (numbers != numbers.round()) | (numbers < 0)
    if wrong.any():
        place = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DeclarationError(f"{where} in row {place + 2} must be a whole number from 0: {column.iloc[place]!r}")
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


def _trials(
    study: Study, points: pd.DataFrame, curves: pd.DataFrame, ends: Mapping[int, Ended], notes: list[str]
) -> list[FinishedTrial]:
    by_trial = {int(str(trial)): part for trial, part in curves.groupby("trial")}
    made = []
    without = 0
    for row in points.to_dict("records"):
        number = int(row["trial"])
        values: dict[str, Value] = {}
        for hyperparameter in study.hyperparameters:
            value = value_of(hyperparameter, row[hyperparameter.name], f"trial {number}, {hyperparameter.name}")
            if value is not None:
                values[hyperparameter.name] = value
        missing = Ended(State.FAILED, f"no measurement of {study.objective.metric}", 0)
        without += number not in ends
        end = _declared_end(row, ends.get(number, missing))
        measured = _measurements(by_trial.get(number))
        made.append(
            FinishedTrial(imported_trial(study, number, dict(values)), end.state, end.reason, end.step, measured)
        )
    if without:
        notes.append(f"{without} trials have no curve of {study.objective.metric}; they count as failed unless the "
                     "points say otherwise")  # fmt: skip
    return made


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
