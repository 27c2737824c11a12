"""What the Ledger holds: trials, training curves, checkpoint files."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Row, func, select

from tuner.design.points import Point
from tuner.design.trial import Trial
from tuner.errors import StorageError
from tuner.records import Checkpoint, CheckpointKind, Inherited, Measurement, Prefix, PrefixKey, State, TrialRecord
from tuner.storage.codec import point_from, schedule_from, steps_from
from tuner.storage.numbers import FINITE, restored
from tuner.storage.schema import checkpoint, checkpoint_file, measurement, metric, trial

_PART = 50_000  # measurements at a time: rows of the database are many times larger than what they hold


@dataclass(frozen=True, slots=True)
class Measurements:
    """Training curves as columns of equal length, one row a measurement.

    Grouped by trial and metric, steps ascending: `pd.DataFrame({"trial": m.trial_numbers, "step": m.steps, ...})`.
    """

    trial_numbers: list[int]
    steps: list[int]
    metrics: list[str]
    values: list[float]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file that some checkpoint points to: path relative to the checkpoint folder, sha256, size."""

    path: str
    digest: str
    num_bytes: int


def trial_records(connection: Connection, study_id: int) -> list[TrialRecord]:
    """All trials by number. One whose row cannot be read is FAILED with the reason, and an empty point."""
    rows = connection.execute(select(trial).where(trial.c.study_id == study_id).order_by(trial.c.number)).all()
    checkpoints = checkpoints_of(connection, [row.id for row in rows])
    return [_record_or_failure(row, checkpoints.get(row.id, ())) for row in rows]


def trial_record(connection: Connection, study_id: int, number: int) -> TrialRecord:
    """One trial. Raises StorageError when there is none, or when its row cannot be read."""
    mine = trial.c.study_id == study_id
    row = connection.execute(select(trial).where(mine, trial.c.number == number)).one_or_none()
    if row is None:
        count = connection.scalar(select(func.count()).select_from(trial).where(mine))
        raise StorageError(f"there is no trial {number} in this study, which has {count}; `tuner trials` lists them")
    return _record(row, checkpoints_of(connection, [row.id]).get(row.id, ()))


def declared_trial(row: Row[Any]) -> Trial:
    """What was planned, of a row of `trial`. Raises StorageError naming the trial."""
    try:
        point, schedule, pins = point_from(row.point), schedule_from(row.schedule), steps_from(row.pins)
    except StorageError as error:
        raise StorageError(f"trial {row.number} is unreadable in the Ledger: {error}") from error
    return Trial(row.number, point, row.seed, row.data_seed, schedule, row.origin, row.shape_group, pins)


def inherited_of(row: Row[Any]) -> Inherited:
    """What a trial took over, of its row of `trial`."""
    return Inherited(row.inherited_steps, row.inherited_from if row.inherited_steps else None)


def _record(row: Row[Any], checkpoints: tuple[Checkpoint, ...]) -> TrialRecord:
    declared = declared_trial(row)
    return TrialRecord(
        trial_id=row.id,
        number=row.number,
        state=State(row.state),
        reason=row.reason,
        point=declared.point,
        seed=row.seed,
        data_seed=row.data_seed,
        origin=row.origin,
        step=row.step,
        attempt=row.attempt,
        numerics=row.numerics,
        checkpoints=checkpoints,
        schedule=declared.schedule,
        inherited=inherited_of(row),
    )


def _record_or_failure(row: Row[Any], checkpoints: tuple[Checkpoint, ...]) -> TrialRecord:
    try:
        return _record(row, checkpoints)
    except StorageError as error:
        return TrialRecord(
            trial_id=row.id,
            number=row.number,
            state=State.FAILED,
            reason=str(error),
            point=Point(()),
            seed=row.seed,
            data_seed=row.data_seed,
            origin=row.origin,
            step=row.step,
            attempt=row.attempt,
            numerics=row.numerics,
            checkpoints=checkpoints,
        )


def checkpoints_of(connection: Connection, trial_ids: Iterable[int]) -> dict[int, tuple[Checkpoint, ...]]:
    """The checkpoints of trials by id, in the order in which the trainer named them."""
    query = (
        select(checkpoint, checkpoint_file.c.path, checkpoint_file.c.digest, checkpoint_file.c.num_bytes)
        .join(checkpoint_file)
        .where(checkpoint.c.trial_id.in_(list(trial_ids)))
        .order_by(checkpoint.c.trial_id, checkpoint.c.position)
    )
    found: dict[int, list[Checkpoint]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.trial_id].append(_checkpoint(row))
    return {trial_id: tuple(kept) for trial_id, kept in found.items()}


def _checkpoint(row: Row[Any]) -> Checkpoint:
    value = None if row.value_kind is None else restored(row.value_kind, row.value)
    kind = cast(CheckpointKind, row.kind)
    key = None if row.prefix_base is None else PrefixKey(row.prefix_base, row.prefix_path, row.prefix_numerics)
    return Checkpoint(kind, row.step, row.path, row.digest, row.num_bytes, value, row.member, key)


def checkpoint_files(connection: Connection) -> list[CheckpointFile]:
    """Every file the Ledger points to, by path; others in the checkpoint folder are left over from crashes."""
    rows = connection.execute(select(checkpoint_file).order_by(checkpoint_file.c.path))
    return [CheckpointFile(row.path, row.digest, row.num_bytes) for row in rows]


def study_measurements(connection: Connection, study_id: int, metrics: Collection[str] | None) -> Measurements:
    """The curves of a study, of all metrics or of those named."""
    mine = trial.c.study_id == study_id
    numbers = {row.id: row.number for row in connection.execute(select(trial.c.id, trial.c.number).where(mine))}
    names = {row.id: row.name for row in connection.execute(select(metric.c.id, metric.c.name))}
    query = select(
        measurement.c.trial_id, measurement.c.step, measurement.c.metric_id, measurement.c.value_kind,
        measurement.c.value,
    ).where(measurement.c.trial_id.in_(select(trial.c.id).where(mine)))  # fmt: skip
    if metrics is not None:
        query = query.where(measurement.c.metric_id.in_([number for number, name in names.items() if name in metrics]))
    query = query.order_by(measurement.c.trial_id, measurement.c.metric_id, measurement.c.step)
    whole = Measurements([], [], [], [])
    for part in connection.execution_options(yield_per=_PART).execute(query).partitions():
        ids, steps, metric_ids, kinds, values = zip(*part, strict=True)
        whole.trial_numbers.extend(numbers[trial_id] for trial_id in ids)
        whole.steps.extend(steps)
        whole.metrics.extend(names[metric_id] for metric_id in metric_ids)
        whole.values.extend(value if kind == FINITE else float(kind) for kind, value in zip(kinds, values, strict=True))
    return whole


def count_states(connection: Connection, study_id: int) -> dict[State, int]:
    """How many trials are in each state; every state is there."""
    query = select(trial.c.state, func.count()).where(trial.c.study_id == study_id).group_by(trial.c.state)
    counted = {State(state): count for state, count in connection.execute(query)}
    return {state: counted.get(state, 0) for state in State}


def prefixes_of(connection: Connection, bases: Collection[str]) -> dict[str, list[Prefix]]:
    """The saved states from which others may start, by what they are a function of; without their measurements.

    A trunk holds its best weights itself; beside the last state of a trial lie that trial's best checkpoints.
    """
    query = (
        select(checkpoint, checkpoint_file.c.path, checkpoint_file.c.digest, checkpoint_file.c.num_bytes)
        .join(checkpoint_file)
        .where(checkpoint.c.prefix_base.in_(sorted(set(bases))))
        .order_by(checkpoint.c.step.desc(), checkpoint.c.trial_id)
    )
    rows = connection.execute(query).all()
    whole = checkpoints_of(connection, [row.trial_id for row in rows if row.kind == "latest"])
    found: dict[str, list[Prefix]] = defaultdict(list)
    for row in rows:
        beside = whole.get(row.trial_id, ()) if row.kind == "latest" else ()
        bests = tuple(kept for kept in beside if kept.kind == "best")
        found[row.prefix_base].append(Prefix(row.trial_id, _checkpoint(row), bests))
    return dict(found)


def measurements_until(connection: Connection, trial_id: int, step: int) -> tuple[Measurement, ...]:
    """The first part of a trial's curves: everything measured up to a step, by step."""
    query = (
        select(metric.c.name, measurement.c.step, measurement.c.value_kind, measurement.c.value)
        .join(metric)
        .where(measurement.c.trial_id == trial_id, measurement.c.step <= step)
        .order_by(measurement.c.step, metric.c.name)
    )
    rows = connection.execute(query)
    return tuple(Measurement(row.step, row.name, restored(row.value_kind, row.value)) for row in rows)
