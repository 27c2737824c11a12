"""The curves that people tell of a trial, in the shapes in which they have them: as metric -> step -> value."""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real

import pandas as pd

from tuner.design.study import Study
from tuner.errors import WorkloadError

SPLITS = ("training", "validation")
STEP = "step"  # the column or key that holds the number of updates
MOST_STEPS = 8  # that a message lists

Curves = dict[str, dict[int, float]]  # metric to the number of updates to the value

_SHAPES = (
    'a curve is {"validation/loss": {step: value}}, {step: value} or [(step, value)] of the metric that selects, '
    '{step: {metric: value}}, or a pandas DataFrame with a column "step"'
)


def told_curves(told: object, study: Study) -> Curves:
    """What was told, as curves by metric; a single number counts at the end. Raises WorkloadError for anything else."""
    if told is None:
        return {}
    if isinstance(told, pd.DataFrame):
        return _of_frame(told)
    if isinstance(told, pd.Series):
        told = told.to_dict()
    if isinstance(told, Mapping):
        return _of_mapping(told, study)
    if isinstance(told, str | bytes):
        raise WorkloadError(f"{_SHAPES}; got {told!r:.80}")
    if _is_number(told):
        return _of_number(told, study)
    if isinstance(told, Iterable):
        return _of_rows(list(told), study)
    raise WorkloadError(f"{_SHAPES}; got a {type(told).__name__}")


def _of_number(told: object, study: Study) -> Curves:
    due = study.budget.evaluation_steps
    if len(due) > 1:
        raise WorkloadError(
            f"one number is no curve: trials of {study.name} are compared after {steps_in_short(due)} updates; tell "
            f'{{"{study.objective.metric}": {{step: value}}}}, or declare Campaign(evaluations=1), which leaves '
            "nothing to pick afterwards"
        )
    return {study.objective.metric: {due[-1]: number_of(study.objective.metric, told)}}


def _of_mapping(told: Mapping[object, object], study: Study) -> Curves:
    """By metric, or by step."""
    if not told or all(isinstance(key, str) for key in told):
        found: Curves = {}
        for metric, curve in told.items():
            name = metric_name(metric)
            if not isinstance(curve, Mapping | pd.Series | Sequence) or isinstance(curve, str):
                raise WorkloadError(f"the curve of {name} has no steps, got {curve!r:.80}; {_SHAPES}")
            pairs = curve.items() if isinstance(curve, Mapping | pd.Series) else [_pair(one) for one in curve]
            for step, value in pairs:
                _put(found, name, step, value)
        return found
    return _of_rows(list(told.items()), study)


def _of_rows(rows: list[object], study: Study) -> Curves:
    """Rows that are (step, value), (step, {metric: value}), or dicts with a step."""
    found: Curves = {}
    for row in rows:
        if isinstance(row, Mapping):
            if STEP not in row:
                raise WorkloadError(f'a row of a curve has no "step": {dict(row)!r:.120}')
            step, values = row[STEP], {name: value for name, value in row.items() if name != STEP}
        else:
            step, value = _pair(row)
            values = dict(value) if isinstance(value, Mapping) else {study.objective.metric: value}
        for name, value in values.items():
            if value is not None:
                _put(found, metric_name(name), step, value)
    return found


def _pair(row: object) -> tuple[object, object]:
    if isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 2:
        return row[0], row[1]
    raise WorkloadError(f"{_SHAPES}; a row of it is {row!r:.80}")


def _of_frame(frame: pd.DataFrame) -> Curves:
    """Columns are metrics. A cell without a value, as a log has them where metrics have rows of their own, is none."""
    if STEP in frame.columns:
        frame = frame.set_index(STEP)
    elif frame.index.name != STEP:
        raise WorkloadError(
            f'the DataFrame has no column or index "step", only {", ".join(map(str, frame.columns))}: the number of '
            'updates after which each row was measured; frame.rename(columns={"...": "step"})'
        )
    found: Curves = {}
    for name in frame.columns:
        several_rows = frame[name].dropna() if len(frame.columns) > 1 else frame[name]
        for step, value in several_rows.items():
            _put(found, metric_name(name), step, value)
    return found


def _put(found: Curves, name: str, step: object, value: object) -> None:
    at = step_of(step)
    curve, number = found.setdefault(name, {}), number_of(name, value)
    if at in curve:
        raise WorkloadError(f"{name} is told twice after {at:,} updates: {curve[at]!r} and {number!r}")
    curve[at] = number


def metric_name(name: object) -> str:
    """A name as "validation/loss". Raises WorkloadError for another one."""
    split, _, metric = str(name).partition("/")
    if split not in SPLITS or not metric:
        near = get_close_matches(split, SPLITS, n=1, cutoff=0.3) if metric else ()
        hint = f"; did you mean {near[0]}/{metric}?" if near and split != "test" else ""
        raise WorkloadError(
            f"{name!r} is no name of a metric: they are named by split and name, like 'validation/loss' or "
            f"'training/error_rate', and the test split never selects anything (D31){hint}"
        )
    return str(name)


def _is_number(value: object) -> bool:
    item = getattr(value, "item", None)
    return isinstance(value, Real) or (callable(item) and getattr(value, "ndim", 0) == 0)


def number_of(name: str, value: object) -> float:
    """A value as a number; a tensor or array of one number is one. Raises WorkloadError."""
    number = _plain(value)
    if isinstance(number, Real):
        return float(number)
    raise WorkloadError(f"{name} is told as {value!r:.80}, which is no number")


def _plain(value: object) -> object:
    """The number in a tensor or array of one number; anything else as it is."""
    item = getattr(value, "item", None)
    try:
        return item() if callable(item) else value
    except (ValueError, RuntimeError, TypeError):
        return value


def step_of(step: object) -> int:
    """A number of updates as an int; texts of digits, as the keys of JSON are, count. Raises WorkloadError."""
    if isinstance(step, str) and step.isdecimal():
        return int(step)
    number = _plain(step)
    if isinstance(number, Real) and not isinstance(number, bool):
        value = float(number)
        if math.isfinite(value) and value == int(value):
            return int(value)
    raise WorkloadError(f"a step is a whole number of updates, got {step!r:.80}")


def refuse_other_steps(curves: Curves, study: Study, number: int) -> None:
    """Raise WorkloadError for values where no evaluation is due, which could be compared with no other trial."""
    due = study.budget.evaluation_steps
    steps = {step for curve in curves.values() for step in curve}
    others = sorted(steps - set(due))
    if not others:
        return
    from_zero = {step + 1 for step in steps} <= set(due)
    way = (
        "these are one less each: a step is the number of updates made, so the first update ends at step 1"
        if from_zero
        else "evaluate there (trial.evaluation_steps), and leave out what lies between"
    )
    raise WorkloadError(
        f"trial {number} is told after {steps_in_short(others)} updates, and trials of {study.name} are compared after "
        f"{steps_in_short(due)}: {way}"
    )


def refuse_missing_steps(curves: Curves, study: Study, number: int) -> None:
    """Raise WorkloadError where a metric that is read was not told at every evaluation."""
    due = study.budget.evaluation_steps
    read = [study.objective.metric]
    if study.kind == "sweep" and study.fitted_when is not None:
        read.append(study.fitted_when.metric)
    for metric in dict.fromkeys(read):
        if metric not in curves:
            near = get_close_matches(metric, sorted(curves), n=1)
            told = f"{', '.join(map(repr, sorted(curves)))} is told" if curves else "nothing is told"
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise WorkloadError(f"{study.name} reads {metric!r}, and {told} of trial {number}{hint}")
        missing = [step for step in due if step not in curves[metric]]
        if missing:
            raise WorkloadError(
                f"{metric} of trial {number} is not told after {steps_in_short(missing)} updates: a trial is "
                f"evaluated after {steps_in_short(due)}, and trains all of its steps (A11). Where it could not, say "
                'why: study.tell(trial, curve, infeasible="out of memory") blames the point, failed="..." does not'
            )


def steps_in_short(steps: Sequence[int]) -> str:
    """Steps in words, the first and the last where there are many."""
    shown = [f"{step:,}" for step in steps]
    if len(shown) > MOST_STEPS:
        shown = [*shown[: MOST_STEPS - 2], "...", shown[-1]]
    return ", ".join(shown) if len(shown) < 2 or "..." in shown else f"{', '.join(shown[:-1])} and {shown[-1]}"
