"""Reads a study from tables: histories of runs (one table or a folder), points, and the space that was searched."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Hyperparameter
from tuner.design.objective import Objective
from tuner.design.origin import RUN_ORIGIN
from tuner.design.study import Study
from tuner.errors import DeclarationError
from tuner.interchange.cells import LARGEST, is_nothing
from tuner.interchange.cleaning import (
    Ended,
    ends_by_curve,
    interval_of,
    note_ends,
    note_replicates,
    schedule_by_curve,
    without_empty,
    without_overflow,
    without_repeats,
)
from tuner.interchange.histories import Columns, history_of, parameter_columns
from tuner.interchange.imported import (
    LEARNING_RATE_METRICS,
    Imported,
    imported_study,
    imported_trial,
    metric_name,
    refuse_unknown,
)
from tuner.interchange.points_in import (
    KnownRuns,
    checked_points,
    note_choices,
    point_of,
    points_of_curves,
    state_of,
    without_prefixes,
)
from tuner.interchange.run_folders import read_runs
from tuner.interchange.table_files import read_table, refuse_no_file
from tuner.interchange.table_space import read_space
from tuner.records import FinishedTrial, Measurement, State
from tuner.shown import counted

_EXPORTED = ("curves.csv", "curves.parquet")  # in a folder that `tuner export` wrote


@dataclass(frozen=True, slots=True)
class TableTerms:
    """What the tables do not say. `max_train_steps`: None for the last step of any trial; `empty`: see `cleaning`."""

    objective: str
    direction: str
    max_train_steps: int | None = None
    schedule: str | None = None
    ignored: tuple[str, ...] = ()
    step_column: str | None = None
    empty: str | None = None


@dataclass(frozen=True, slots=True)
class _Tables:
    """Curves in long form, points, and the file that messages about points name."""

    curves: pd.DataFrame
    points: pd.DataFrame
    points_file: Path
    of_logger: bool


def imported_from_tables(
    history: Path, points_file: Path | None, space_file: Path | None, terms: TableTerms
) -> Imported:
    """Read a study. `history`: a table, or a folder with one for each run. Without `points_file` the points are read
    from beside it, from its own columns, or from the parameter files of the runs.

    Raises DeclarationError naming file, column and value of what does not fit.
    """
    notes: list[str] = []
    objective = Objective(metric_name(terms.objective), terms.direction)  # type: ignore[arg-type]
    if not history.is_dir():
        refuse_no_file(history)
    declared = read_space(space_file or _beside(history, "space.json", "--space"))
    hyperparameters = [h for h in declared if h.name not in terms.ignored]
    tables = _tables(history, points_file, hyperparameters, terms, notes)
    refuse_unknown(terms.ignored, {*(h.name for h in declared), *map(str, tables.points)} - {"trial"})
    curves = _with_our_metrics(tables.curves, history, notes)
    known = KnownRuns(hyperparameters, terms.ignored, _logged(tables.curves), set(curves["run"]))
    points = checked_points(tables.points, tables.points_file, known, notes)
    _check_runs(curves, points, history, tables.points_file)
    _check_metric(curves, objective, terms.objective, history)
    curves = without_empty(curves, objective.metric, terms.empty, notes, known=tables.of_logger)
    curves["value"] = curves["value"].map(without_overflow)
    points, curves = _numbered(points, curves)
    curves = without_repeats(curves, notes)
    study = _study(hyperparameters, curves, objective, terms, history, notes)
    trials, ends = _trials(study, points, curves)
    notes += note_ends({t.trial.number: Ended(t.state, t.reason, t.step) for t in trials}, ends, curves, objective)
    notes += [*_note_running(points), *_note_unknown(study, trials), *note_choices(hyperparameters, points)]
    notes += note_replicates(trials)
    return Imported(replace(study, num_trials=len(trials)), tuple(trials), tuple(dict.fromkeys(notes)))


def _tables(
    history: Path, points_file: Path | None, hyperparameters: Sequence[Hyperparameter], terms: TableTerms,
    notes: list[str],
) -> _Tables:  # fmt: skip
    exported = next((history / name for name in _EXPORTED if history.is_dir() and (history / name).is_file()), None)
    if exported is not None:
        history, points_file = exported, points_file or exported.with_name(f"points{exported.suffix}")
    if history.is_dir():
        beside = next((path for path in (history / "points.csv", history / "points.parquet") if path.is_file()), None)
        points_file = points_file or beside
        columns = Columns(terms.objective, terms.step_column)
        runs = read_runs(history, notes, columns, [points_file] if points_file else [])
        points = runs.parameters if points_file is None else read_table(points_file)
        if points is None:
            raise DeclarationError(
                f"{history} has no parameters of its runs (points.csv, or params.json or hparams.yaml beside each "
                "history); give them: --points FILE with a column trial and one for each hyperparameter"
            )
        return _Tables(runs.curves, points, points_file or history, True)
    names = [*(h.name for h in hyperparameters), *terms.ignored]
    table = without_prefixes(read_table(history), names)
    config = parameter_columns(table, names)
    curves = history_of(table, history, notes, Columns(terms.objective, terms.step_column, config))
    points = points_of_curves(table, hyperparameters) if points_file is None else read_table(points_file)
    if points is None:
        points_file = _beside(history, f"points{history.suffix}", "--points")
        points = read_table(points_file)
    return _Tables(curves, points, points_file or history, False)


def _beside(history: Path, name: str, option: str) -> Path:
    """The file of that name in the folder of the histories. Raises DeclarationError where there is none."""
    path = (history if history.is_dir() else history.parent) / name
    if not path.is_file():
        raise DeclarationError(f"there is no {path}; say where it is: {option} FILE")
    return path


def _logged(curves: pd.DataFrame) -> set[str]:
    """The names of metrics as they were logged; a table of runs has their last values under the same names."""
    return set(map(str, curves["metric"].unique()))


def _with_our_metrics(curves: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    """Curves with the names of metrics used here; two logged metrics of one name would overwrite each other.

    Keras writes the loss of training as loss beside val_loss.
    """
    names = [str(name) for name in curves["metric"].unique()]
    ours = {name: metric_name(name) for name in names}
    bare = [name for name, mine in ours.items() if mine == f"validation/{name}"]
    trained = [name for name in bare if any(other != name and ours[other] == ours[name] for other in names)]
    if trained and not any(metric_name(f"train_{name}") in ours.values() for name in trained):
        ours |= {name: metric_name(f"train_{name}") for name in trained}
        notes.append(f"{', '.join(trained)} stands beside the same of validation and is taken as of training")
    for name, mine in ours.items():
        twin = next(other for other, its in ours.items() if its == mine)
        if twin != name:
            raise DeclarationError(f"{path}: {twin} and {name} are both {mine} here; keep one of them")
    return curves.assign(metric=curves["metric"].map(ours))


def _check_runs(curves: pd.DataFrame, points: pd.DataFrame, history: Path, points_file: Path) -> None:
    known = set(points["run"])
    unknown_runs = [run for run in curves["run"].unique() if run not in known]
    if unknown_runs:
        raise DeclarationError(
            f"{history} has trial {unknown_runs[0]:.80}, which {points_file} does not; its first is "
            f"{points['run'].iloc[0]:.80}"
        )


def _check_metric(curves: pd.DataFrame, objective: Objective, asked: str, path: Path) -> None:
    mine = curves[curves["metric"] == objective.metric]
    if mine.empty:
        known = ", ".join(sorted(set(curves["metric"])))
        raise DeclarationError(f"{path} has no metric {asked!r} (here {objective.metric}); it has: {known:.400}")
    if not np.isfinite(mine["value"]).any():
        raise DeclarationError(f"{path} has no finite value of {asked} in any trial; there is nothing to judge by")


def _numbered(points: pd.DataFrame, curves: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with a column `trial`: the number of the run, or its position where runs are named by texts."""
    names = points["run"].tolist()
    whole = all(re.fullmatch(r"\d{1,16}", name) and int(name) <= LARGEST for name in names)
    whole = whole and len({int(name) for name in names}) == len(names)
    numbers = {name: int(name) if whole else place for place, name in enumerate(names)}
    points = points.assign(trial=points["run"].map(numbers), named=not whole)
    return points, curves.assign(trial=curves["run"].map(numbers))


def _study(
    hyperparameters: Sequence[Hyperparameter], curves: pd.DataFrame, objective: Objective, terms: TableTerms,
    history: Path, notes: list[str],
) -> Study:  # fmt: skip
    last = int(curves["step"].max())
    steps = terms.max_train_steps or max(last, 1)
    if last > steps:
        row = curves.iloc[int(curves["step"].to_numpy().argmax())]
        raise DeclarationError(
            f"{history}: trial {row['run']} was measured at step {last:,}, beyond --max-train-steps {steps:,}; all "
            "trials of a study have one budget (A11)"
        )
    if terms.max_train_steps is None:
        notes.append(
            f"max_train_steps is taken as {steps:,}, the last step of any trial; --max-train-steps says otherwise"
        )
    budget = StepBudget(steps, min(steps, interval_of(curves[curves["metric"] == objective.metric])))
    schedule = terms.schedule or schedule_by_curve(curves, LEARNING_RATE_METRICS) or "unknown"
    name = history.name or history.resolve().name
    return imported_study(hyperparameters, budget, objective, schedule, name)


def _trials(
    study: Study, points: pd.DataFrame, curves: pd.DataFrame
) -> tuple[list[FinishedTrial], Mapping[int, Ended]]:
    """The trials, and how they ended by their curves alone."""
    ends = ends_by_curve(curves, study.objective, study.budget.max_train_steps, study.budget.evaluate_every)
    measured = _measurements(curves)
    missing = Ended(State.FAILED, f"no measurement of {study.objective.metric}", 0)
    made = []
    for row in points.to_dict("records"):
        number, name = int(row["trial"]), str(row["run"])
        end = _declared_end(row, name, ends.get(number, missing))
        trial = imported_trial(study, number, point_of(study.hyperparameters, row, name), _origin(study, row))
        made.append(FinishedTrial(trial, end.state, end.reason, end.step, measured.get(number, [])))
    return made, ends


def _origin(study: Study, row: Mapping[object, object]) -> str:
    """Where a trial came from, with the name of its run where that is not its number."""
    known = str(row.get("origin", ""))
    return f"{RUN_ORIGIN}{row['run']}" if row["named"] else known if known.startswith(RUN_ORIGIN) else study.source


def _declared_end(row: Mapping[object, object], trial: str, found: Ended) -> Ended:
    """The state that the points give, where they do; else what the curve says."""
    state = state_of(row, trial)
    if state is None:
        return found
    if not state.finished:
        return Ended(State.CANCELLED, f"was {state.value} when it was written", found.step)
    reason = "" if is_nothing(row.get("reason")) else str(row["reason"])
    return Ended(state, reason or (found.reason if state is found.state else ""), found.step)


def _note_running(points: pd.DataFrame) -> list[str]:
    states = [state_of(row, str(row["run"])) for row in points.to_dict("records")] if "state" in points else []
    count = sum(state is not None and not state.finished for state in states)
    if not count:
        return []
    return [
        f"the table was written while {counted(count, 'trial')} waited or ran: what was measured is kept, no verdict "
        "speaks about unfinished trials; when all have finished, import the study again under another name (--study)"
    ]


def _note_unknown(study: Study, trials: Sequence[FinishedTrial]) -> list[str]:
    counts = {
        h.name: sum(h.name not in dict(one.trial.point.values_by_name) for one in trials)
        for h in study.hyperparameters
        if h.condition is None
    }
    return [
        f"{name} is empty in {counted(count, 'trial')}: it is not known there"
        for name, count in counts.items()
        if count
    ]


def _measurements(curves: pd.DataFrame) -> Mapping[int, list[Measurement]]:
    """What every trial measured, in the order of the rows."""
    ordered = curves.sort_values("trial", kind="stable")
    columns = (ordered["step"].tolist(), ordered["metric"].tolist(), ordered["value"].tolist())
    made = [Measurement(step, metric, value) for step, metric, value in zip(*columns, strict=True)]
    trials, starts = np.unique(ordered["trial"].to_numpy(), return_index=True)
    ends = [*starts[1:].tolist(), len(made)]
    return {int(trial): made[a:b] for trial, a, b in zip(trials, starts.tolist(), ends, strict=True)}
