"""The only door from the Ledger to pandas, and retrospective selection for all trials at once (A10, A12)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.numerics_sets import numerics_sets
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.schedules import Schedule
from tuner.design.hyperparameters import Choice, Range
from tuner.design.names import TRIAL_COLUMNS
from tuner.design.objective import Objective
from tuner.design.study import Study
from tuner.records import Promises, State, TrialRecord, groups_words
from tuner.records.promises import EVERYTHING, common_promises
from tuner.shown import quoted
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow


def study_frames(ledger: Ledger, campaign: str, study_name: str) -> StudyFrames:
    """A study as frames. Raises StorageError where the Ledger does not hold it."""
    row = ledger.study(campaign, study_name)
    curves, promises = measured_curves(ledger, row.study_id), promises_of(ledger, [row])
    frames = frames_of(row.study, ledger.trials(row.study_id), curves, promises)
    return replace(frames, weaker=not_promised(ledger, [row]))


def promises_of(ledger: Ledger, rows: Iterable[StudyRow]) -> Promises:
    """What may be relied on for the trials of some studies: the promises that all their launches gave."""
    return common_promises(launch.promises for row in rows for launch in ledger.launches(row.study_id))


def not_promised(ledger: Ledger, rows: Iterable[StudyRow]) -> str:
    """What is not promised of the trials of some studies, and why, as their newest launch told; "" for nothing."""
    told = [launch.not_promised for row in rows for launch in ledger.launches(row.study_id)]
    return next((words for words in reversed(told) if words), "")


def measured_curves(ledger: Ledger, study_id: int) -> pd.DataFrame:
    """The curves of a study as they were measured: trial, step, metric, value."""
    measured = ledger.measurements(study_id)
    curves = measured.curves
    lengths = [len(curve.steps) for curve in curves]
    names = sorted({curve.metric for curve in curves})
    places = {name: place for place, name in enumerate(names)}
    codes = np.array([places[curve.metric] for curve in curves], dtype=np.int64)
    steps = [np.frombuffer(curve.steps, dtype=np.int64) for curve in curves]
    return pd.DataFrame(
        {
            "trial": np.repeat(np.array([curve.trial_number for curve in curves], dtype=np.int64), lengths),
            "step": np.concatenate(steps) if steps else np.empty(0, dtype=np.int64),
            "metric": pd.Categorical.from_codes(np.repeat(codes, lengths), pd.Index(names, dtype=str)),
            "value": np.frombuffer(measured.numbers, dtype=np.float64),
        }
    )


def frames_of(
    study: Study, trials: Sequence[TrialRecord], curves: pd.DataFrame, promises: Promises = EVERYTHING
) -> StudyFrames:
    """Frames of records from anywhere; `curves` has the columns trial, step, metric, value in any order.

    A step measured twice keeps its later row (D33). A trial whose point no range can hold (text, or a rate below 0 on a
    log scale) is a damaged row: it is FAILED here, and takes no part.
    """
    tidy = _tidy_curves(curves)
    names = [hyperparameter.name for hyperparameter in study.hyperparameters]
    ranges = {h.name: h.domain for h in study.hyperparameters if isinstance(h.domain, Range)}
    records = sorted(trials, key=lambda one: one.number)
    rows = [_readable(_trial_row(record, names), ranges) for record in records]
    sets, places = numerics_sets(records)
    table = pd.DataFrame(rows, columns=[*TRIAL_COLUMNS, *names])
    for hyperparameter in study.hyperparameters:
        if isinstance(hyperparameter.domain, Choice) and _is_mixed(hyperparameter.domain, table[hyperparameter.name]):
            # pandas would give them one type: 16 becomes 16.0 where another value is missing, and None becomes missing.
            values = [row[hyperparameter.name] for row in rows]
            table[hyperparameter.name] = pd.Series(values, index=table.index, dtype=object)
    table["numerics"] = pd.array(places, dtype="Int64")
    selected = selected_steps(tidy, study.objective).reindex(table["trial"])
    for column in ("best_value", "best_step", "last_value"):
        table[column] = selected[column].array
    schedules = _schedules(study, trials) if promises.follows_schedule else {}
    groups = {record.number: record.groups for record in trials if record.groups}
    return StudyFrames(study, table, tidy, schedules, promises, groups, numerics=sets)


def _readable(row: Mapping[str, object], ranges: Mapping[str, Range]) -> Mapping[str, object]:
    """A row of trials, FAILED where a value has no place on the scale of its range."""
    for name, domain in ranges.items():
        value = row[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and (math.isnan(value) or (math.isfinite(value) and (value > 0.0 or not domain.log))):  # type: ignore[operator, arg-type]
            continue
        reason = f"trial {row['trial']} is unreadable in the Ledger: {name} = {quoted(value)} is no value of its range"
        return {**row, **dict.fromkeys(ranges, math.nan), "state": State.FAILED.value, "reason": reason}
    return row


def _is_mixed(domain: Choice, column: pd.Series) -> bool:
    """Whether a choice has values of several types (None and a number, 1 and "1"), or is missing somewhere."""
    return len({type(value) for value in domain.choices}) > 1 or bool(column.isna().any())


def _schedules(study: Study, trials: Sequence[TrialRecord]) -> dict[int, Schedule]:
    """The schedules as trained; of imported trials only where the import knows the schedule."""
    if study.schedule.kind.unknown:
        return {}
    return {record.number: record.schedule for record in trials if record.schedule is not None}


def selected_steps(curves: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Per trial (the index): best_value, best_step, last_value of the objective's metric in tidy `curves`.

    What is not finite never wins, ties go to the earlier step (D27, D29); last_value may be NaN or infinite.
    """
    mine = curves[curves["metric"] == objective.metric]
    finite = mine[np.isfinite(mine["value"].to_numpy())]
    sign = objective.sign
    # Rows are sorted by step, and idxmin names the first of equal values: the earlier step.
    winners = finite.loc[(sign * finite["value"]).groupby(finite["trial"]).idxmin()].set_index("trial")
    last = mine.drop_duplicates("trial", keep="last").set_index("trial")
    selected = last[["value"]].rename(columns={"value": "last_value"})
    selected["best_value"] = winners["value"].reindex(selected.index)
    selected["best_step"] = winners["step"].reindex(selected.index).astype("Int64")
    return selected


def _tidy_curves(curves: pd.DataFrame) -> pd.DataFrame:
    tidy = curves[["trial", "step", "metric", "value"]].astype({"value": np.float64, "metric": "category"})
    categories = tidy["metric"].cat.categories
    if not categories.is_monotonic_increasing:
        tidy["metric"] = tidy["metric"].cat.reorder_categories(sorted(categories))
    keys = [tidy["step"].to_numpy(), tidy["metric"].cat.codes.to_numpy(), tidy["trial"].to_numpy()]
    if _ascending(keys):  # as the Ledger gives them
        return tidy.reset_index(drop=True)
    tidy = tidy.iloc[np.lexsort(keys)]
    return tidy[~tidy.duplicated(["trial", "metric", "step"], keep="last")].reset_index(drop=True)


def _ascending(keys: Sequence[NDArray[Any]]) -> bool:
    """Whether every row comes after the one before it, by the last key, then by the one before that."""
    later = np.zeros(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        later = (key[1:] > key[:-1]) | ((key[1:] == key[:-1]) & later)
    return bool(later.all())


def _trial_row(record: TrialRecord, names: Sequence[str]) -> Mapping[str, object]:
    values = dict(record.point.values_by_name)
    return {
        "trial": record.number,
        "state": record.state.value,
        "reason": record.reason,
        "origin": record.origin,
        "seed": record.seed,
        "data_seed": record.data_seed,
        "steps": record.step,
        "inherited": record.inherited.steps,
        "exact": record.exact,
        "attempt": record.attempt,
        "parameter_groups": groups_words(record.groups),
        # What does not exist in a branch is NaN; None is a value that a choice may have.
        **{name: values.get(name, math.nan) for name in names},
    }
