"""Training curves out of the Ledger, without a Python object for each row.

Two queries see the same rows in the same order: one groups them into curves (trial, metric and the steps as text,
which most curves share), the other yields nothing but the numbers, straight into an array. What SQL cannot be trusted
with (NaN, infinities, -0.0) is rare and put in its place afterwards.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Text, and_, case, cast, func, or_, select

from tuner.storage.dialects import column_of, is_real, is_whole
from tuner.storage.schema import measurement, metric, trial
from tuner.storage.stored_values import FINITE, UNUSUAL, restored

_PLACE = (measurement.c.trial_id, measurement.c.metric_id)


@dataclass(frozen=True, slots=True)
class StoredCurve:
    """One metric of one trial: the steps at which it was measured, ascending."""

    trial_number: int
    metric: str
    steps: "array[int]"


@dataclass(frozen=True, slots=True)
class Measurements:
    """Training curves: `curves` grouped by trial, and the values of all of them one after the other in `numbers`.

    For few rows `trial_numbers`, `steps`, `metrics` and `values` are columns of equal length, one row a measurement.
    """

    curves: tuple[StoredCurve, ...]
    numbers: "array[float]"

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def trial_numbers(self) -> list[int]:
        return [curve.trial_number for curve in self.curves for _ in curve.steps]

    @property
    def steps(self) -> list[int]:
        return [step for curve in self.curves for step in curve.steps]

    @property
    def metrics(self) -> list[str]:
        return [curve.metric for curve in self.curves for _ in curve.steps]

    @property
    def values(self) -> list[float]:
        return self.numbers.tolist()


def study_measurements(connection: Connection, study_id: int, metrics: Collection[str] | None) -> Measurements:
    """The curves of a study, of all metrics or of those named."""
    mine = trial.c.study_id == study_id
    rows = connection.execute(select(trial.c.id, trial.c.number).where(mine))
    trials = {row.id: row.number if isinstance(row.number, int) else -row.id for row in rows}
    known = {row.id: row.name for row in connection.execute(select(metric.c.id, metric.c.name))}
    names = {place: name for place, name in known.items() if isinstance(name, str)}
    ids = [place for place, name in names.items() if metrics is None or name in metrics]
    wanted: ColumnElement[bool] = and_(
        measurement.c.trial_id.in_(select(trial.c.id).where(mine)),
        measurement.c.metric_id.in_(ids),
        is_whole(connection, measurement.c.step),
    )
    value = case((is_real(connection, measurement.c.value), measurement.c.value), else_=0.0)
    numbers = column_of(connection, select(value).where(wanted).order_by(*_PLACE, measurement.c.step))
    steps = _steps_of_curves(connection, wanted)
    for position, kind in _unusual(connection, wanted, steps):
        numbers[position] = restored(kind, None)
    curves = (StoredCurve(trials[trial_id], names[metric_id], mine) for (trial_id, metric_id), mine in steps.items())
    return Measurements(tuple(curves), numbers)


def unreadable_values(connection: Connection, study_id: int) -> list[tuple[int, str, int]]:
    """(trial, metric, step) of damaged values: they are read as NaN, and `tuner verify` names them."""
    kinds = and_(measurement.c.value_kind != FINITE, measurement.c.value_kind.not_in(list(UNUSUAL)))
    no_number = ~is_real(connection, measurement.c.value)
    strange = or_(kinds, and_(measurement.c.value_kind == FINITE, no_number), ~is_whole(connection, measurement.c.step))
    query = select(trial.c.number, metric.c.name, measurement.c.step).select_from(measurement).join(trial).join(metric)
    query = query.where(trial.c.study_id == study_id, strange).order_by(trial.c.number, measurement.c.step)
    found = connection.execute(query)
    return [(number if isinstance(number, int) else -1, str(name), step) for number, name, step in found]


def _steps_of_curves(connection: Connection, wanted: ColumnElement[bool]) -> "dict[tuple[int, int], array[int]]":
    """The steps of each curve by (trial id, metric id), in the order of the ids."""
    together = func.aggregate_strings(cast(measurement.c.step, Text), ",")
    known: dict[str, array[int]] = {}
    found: dict[tuple[int, int], array[int]] = {}
    for trial_id, metric_id, text in connection.execute(
        select(*_PLACE, together).where(wanted).group_by(*_PLACE).order_by(*_PLACE)
    ):
        if text not in known:
            # SQL gives the steps of a group in any order; the values are read in that of the steps.
            known[text] = array("q", sorted(map(int, text.split(","))))
        found[trial_id, metric_id] = known[text]
    return found


def _unusual(
    connection: Connection, wanted: ColumnElement[bool], steps: "dict[tuple[int, int], array[int]]"
) -> Iterable[tuple[int, str]]:
    """Where among all values those are that are not finite or -0.0, and what they are."""
    query = select(*_PLACE, measurement.c.step, measurement.c.value_kind)
    unusual = or_(measurement.c.value_kind != FINITE, ~is_real(connection, measurement.c.value))
    rows = connection.execute(query.where(wanted, unusual)).all()
    if not rows:
        return
    starts, start = {}, 0
    for place, mine in steps.items():
        starts[place] = start
        start += len(mine)
    for trial_id, metric_id, step, kind in rows:
        kind = "nan" if kind == FINITE else kind  # a number was meant, and there is none
        yield starts[trial_id, metric_id] + bisect_left(steps[trial_id, metric_id], step), kind
