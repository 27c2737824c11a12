"""The histories that loggers write, as curves in long form: run, step, metric, value, empty.

A table is long (one row for each measurement: metric, value) or wide (one column for each metric). Weights & Biases
exports one column for each run, TensorBoard one file for each curve. The columns show which form a table has.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.errors import DeclarationError
from tuner.interchange.cells import has_numbers, is_nothing, numbers_in, whole_numbers_in
from tuner.interchange.table_files import columns_of

# Names of the columns of run and step, in lower case; the first that exists is taken.
RUN_NAMES = ("trial", "trial_id", "trial_number", "run", "run_id", "run_name", "id", "name")
STEP_NAMES = ("step", "trainer/global_step", "global_step", "training_iteration", "iteration", "_step", "epoch")
LONGEST_NAME = 200  # characters of the name of a run
TENSORBOARD = ("Wall time", "Step", "Value")
_TENSORBOARD_FILE = re.compile(r"run-(?P<run>.*?)-tag-(?P<metric>.*)")
_WHOLE = re.compile(r"(\d+)\.0*")  # as pandas writes a whole number where one cell of its column is empty
_PANEL = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?")
# Columns of a wide table that are not metrics: clocks, hosts and counters of Lightning, W&B, Ray and spreadsheets.
_NO_METRICS = (
    *STEP_NAMES, *RUN_NAMES, "epochs", "wall time", "wall_time", "timestamp", "time", "date", "time_this_iter_s",
    "time_total_s", "time_since_restore", "iterations_since_restore", "timesteps_total", "episodes_total", "pid",
    "hostname", "node_ip", "done", "checkpoint_dir_name", "should_checkpoint", "experiment_id", "experiment_tag",
    "warmup_time", "timesteps_since_restore",
)  # fmt: skip


def run_column(table: pd.DataFrame) -> str | None:
    """The column that names the run, or None."""
    return _first_of(RUN_NAMES, table)


def run_keys(column: pd.Series, where: str) -> pd.Series:
    """The names of runs as text; 16 and 16.0 are one. Raises DeclarationError for an empty cell."""
    text = texts_in(column)
    empty = (text == "").to_numpy()
    if empty.any():
        raise DeclarationError(f"{where} in row {int(empty.argmax()) + 2} is empty; every row names its run")
    longest = max(text.unique(), key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise DeclarationError(
            f"{where} names a run with {len(longest):,} characters, and {LONGEST_NAME} are allowed: {longest:.40}..."
        )
    return text


def texts_in(column: pd.Series) -> pd.Series:
    """The cells of a column of names as text without space around it; an empty cell is "", and 16.0 is 16."""
    codes, cells = pd.factorize(column.astype(object), use_na_sentinel=False)  # few names, in many rows
    plain = ["" if cell is None or cell is pd.NA or cell != cell else str(cell).strip() for cell in cells]
    names = np.array([found[1] if (found := _WHOLE.fullmatch(one)) else one for one in plain], dtype=object)
    return pd.Series(names[codes], index=column.index, dtype=object)


@dataclass(frozen=True, slots=True)
class Columns:
    """What is said about the columns of a history: the counter of steps, the metric that has to be numbers, and the
    columns of a wide table that are no metrics.
    """

    metric: str
    step: str | None = None
    no_metrics: Collection[str] = ()


def history_of(
    table: pd.DataFrame, path: Path, notes: list[str], columns: Columns, run: str | None = None
) -> pd.DataFrame:
    """The curves of a table, in long form. Columns: run (text), step, metric (as logged), value, empty (no value
    stands in the cell); rows in the order of the file.

    `run`: the run that all rows are of where the table does not name several. Raises DeclarationError naming file,
    column and row.
    """
    if table.empty:
        raise DeclarationError(f"{path} has a heading and no rows; nothing was measured")
    if tuple(table.columns) == TENSORBOARD and columns.step is None:
        return _tensorboard(table, path, run)
    found = run_column(table)
    if run is not None and found is not None and table[found].nunique() == 1:
        found = None  # the file is of one run, whatever name it contains
    panel = _panel_columns(table, columns.step) if found is None and run is None else []
    if panel:
        return _panel(table, path, panel, columns.step)
    if found is None and run is None:
        raise DeclarationError(
            f"{path} has no column that names the run; it has: {columns_of(table)}; call it trial (or run), or give "
            "the folder in which every run has a file of its own"
        )
    runs = run_keys(table[found], f"{path}: {found}") if found else pd.Series([run] * len(table), index=table.index)
    steps = _steps(table, path, columns.step, notes)
    named, value = (_first_of(known, table) for known in (("metric", "key"), ("value",)))  # key: MLflow's word
    if named is not None and value is not None:
        return _long(table.rename(columns={named: "metric", value: "value"}), path, runs, steps)
    return _wide(table, path, runs, steps, columns)


def _first_of(names: Sequence[str], table: pd.DataFrame) -> str | None:
    lower = {str(column).lower(): str(column) for column in reversed(table.columns)}
    return next((lower[name] for name in names if name in lower), None)


def _steps(table: pd.DataFrame, path: Path, given: str | None, notes: list[str]) -> np.ndarray:
    """Of every row the number of steps after which it was measured, counted from 1 where the logger counts from 0."""
    if given is not None and given not in table:
        raise DeclarationError(f"{path} has no column {given!r} (--step-column); it has: {columns_of(table)}")
    name = given or _first_of(STEP_NAMES, table)
    if name is None:
        raise DeclarationError(
            f"{path} has no column step (or {', '.join(STEP_NAMES[1:])}); it has: {columns_of(table)}; name the one "
            "that counts steps: --step-column NAME"
        )
    steps = whole_numbers_in(table[name], f"{path}: {name}")
    from_zero = _counts_from_zero(table, name, steps)
    if from_zero:
        notes.append(f"{name} is counted from 0: {name} n is taken as the state after n + 1")
    return steps + 1 if from_zero else steps


def _counts_from_zero(table: pd.DataFrame, name: str, steps: np.ndarray) -> bool:
    """Epochs that begin with 0, as Keras writes them; and steps that are indexes, as Lightning writes them: an epoch
    of n steps ends at n - 1, the next at 2 n - 1.
    """
    if name.lower() == "epoch":
        return bool(steps.min() == 0)
    if name != "step" or "epoch" not in table or "metric" in table:
        return False
    epochs, empty = numbers_in(table["epoch"], "epoch")
    ends = pd.Series(steps[~empty]).groupby(epochs[~empty]).max()
    if len(ends) < 2:
        return False
    per_epoch = float(np.median(np.diff(ends) / np.diff(ends.index)))
    return bool(ends.iloc[0] + 1 == (ends.index[0] + 1) * per_epoch)


def _long(table: pd.DataFrame, path: Path, runs: pd.Series, steps: np.ndarray) -> pd.DataFrame:
    metrics = texts_in(table["metric"])
    if (metrics == "").any():
        raise DeclarationError(f"{path}: row {int((metrics == '').to_numpy().argmax()) + 2} has no metric")
    values, empty = numbers_in(table["value"], f"{path}: value")
    return pd.DataFrame({"run": runs, "step": steps, "metric": metrics, "value": values, "empty": empty})


def _wide(table: pd.DataFrame, path: Path, runs: pd.Series, steps: np.ndarray, columns: Columns) -> pd.DataFrame:
    """A wide table: one column for each metric. A column of texts (a date, a host) is not a metric."""
    parts = []
    for name in table.columns:
        if str(name).lower() in _NO_METRICS or str(name).startswith(("_", "config/")) or name in columns.no_metrics:
            continue
        if name != columns.metric and not has_numbers(table[name]):
            continue
        values, empty = numbers_in(table[name], f"{path}: {name}")
        parts.append(pd.DataFrame({"run": runs, "step": steps, "metric": str(name), "value": values, "empty": empty}))
    if not parts:
        raise DeclarationError(
            f"{path} has no column of numbers that could be a metric; it has: {columns_of(table)} (a long table has "
            "the columns trial, step, metric, value)"
        )
    return pd.concat(parts, ignore_index=True)


def _tensorboard(table: pd.DataFrame, path: Path, run: str | None) -> pd.DataFrame:
    """One curve as TensorBoard's page downloads it; the name of the file contains run and tag."""
    named = _TENSORBOARD_FILE.fullmatch(path.stem)
    if named is None:
        raise DeclarationError(
            f"{path} is a curve of TensorBoard; its name says of which run and tag, as the download does: "
            "run-RUN-tag-TAG.csv"
        )
    values, empty = numbers_in(table["Value"], f"{path}: Value")
    steps = whole_numbers_in(table["Step"], f"{path}: Step")
    frame = pd.DataFrame({"run": named["run"], "step": steps, "metric": named["metric"], "value": values})
    return frame.assign(empty=empty)


def _panel_columns(table: pd.DataFrame, step: str | None) -> list[tuple[str, str, str]]:
    """Column, run and metric of each curve of a line chart that W&B exported; empty for another table."""
    found = []
    for column in table.columns:
        named = _PANEL.fullmatch(str(column))
        if named is None:
            if str(column).lower() not in _NO_METRICS and column != step:
                return []
        elif not named["bound"] and not named["metric"].startswith("_"):
            found.append((str(column), named["run"], named["metric"]))
    return found


def _panel(table: pd.DataFrame, path: Path, columns: Sequence[tuple[str, str, str]], step: str | None) -> pd.DataFrame:
    """One column for each run. Rows are the steps of all runs: an empty cell means no value of this run there."""
    steps = _steps(table, path, step, [])
    parts = []
    for column, run, metric in columns:
        values, empty = numbers_in(table[column], f"{path}: {column}")
        there = ~empty
        parts.append(
            pd.DataFrame({"run": run, "step": steps[there], "metric": metric, "value": values[there], "empty": False})
        )
    return pd.concat(parts, ignore_index=True)


def parameter_columns(table: pd.DataFrame, names: Collection[str]) -> list[str]:
    """The columns of a history that hold a hyperparameter: one value a run, wherever a value stands."""
    column = run_column(table)
    mine = [name for name in names if name in table.columns and name != column]
    return [name for name in mine if column is None or _is_constant(table, column, name)]


def _is_constant(table: pd.DataFrame, column: str, name: str) -> bool:
    there = table[~table[name].map(is_nothing)]
    return bool((there.groupby(column)[name].nunique() <= 1).all())
