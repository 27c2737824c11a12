"""Recording updates: states, measurements and checkpoints of many trials in one transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)

from tuner.errors import LeaseLost, StorageError
from tuner.records import BaseFile, Checkpoint, CheckpointKind, FinishedTrial, Measurement, State, TrialUpdate
from tuner.storage.codec import groups_text
from tuner.storage.dialects import BatchedStatement, DatabaseTime, insert_into
from tuner.storage.reading import unused_base
from tuner.storage.schema import checkpoint, checkpoint_file, measurement, metric, trial
from tuner.storage.stored_values import restored, stored
from tuner.storage.studies import insert_trials

_RUNNING = literal_column(f"'{State.RUNNING.value}'", Text)


def owned() -> tuple[ColumnElement[bool], ...]:
    """The guard of every write of a worker: this trial, under this fence, and still running."""
    return trial.c.id == bindparam("b_id"), trial.c.fence == bindparam("b_fence"), trial.c.state == _RUNNING


def given_back(attempt: ColumnElement[int], count: ColumnElement[int]) -> ColumnElement[int]:
    """`attempt` less `count`, and never below 0."""
    return case((attempt > count, attempt - count), else_=literal_column("0"))


_OURS = update(trial).where(*owned())
_REACHED = bindparam("b_step", type_=BigInteger)
_IS_FARTHER = trial.c.farthest < _REACHED
# Steps lost with a damaged checkpoint may be trained again as progress, but not by the claim that lost them: a trial
# that loses them at each claim and then dies would never be given up.
_ATTEMPT = case(
    (and_(_IS_FARTHER, bindparam("b_set_back", type_=Integer) == literal_column("0")), literal_column("1")),
    else_=trial.c.attempt,
)
_LOSES_STEPS = bindparam("b_loses_steps", type_=Integer) == literal_column("1")
_STEP: dict[str, Any] = {
    "step": bindparam("b_step"),
    "farthest": case((or_(_IS_FARTHER, _LOSES_STEPS), _REACHED), else_=trial.c.farthest),
    "numerics": func.coalesce(bindparam("b_numerics"), trial.c.numerics),
    "trained_seconds": func.coalesce(bindparam("b_seconds"), trial.c.trained_seconds),
    "inherited_steps": func.coalesce(bindparam("b_inherited_steps"), trial.c.inherited_steps),
    "inherited_from": func.coalesce(bindparam("b_inherited_from"), trial.c.inherited_from),
    "parameter_groups": func.coalesce(bindparam("b_groups"), trial.c.parameter_groups),
}
_GO_ON = _OURS.values(**_STEP, attempt=_ATTEMPT, lease_until=DatabaseTime() + trial.c.lease_seconds)
_END = _OURS.values(
    **_STEP,
    state=bindparam("b_state"),
    reason=bindparam("b_reason"),
    attempt=given_back(_ATTEMPT, bindparam("b_given_back", type_=Integer)),
    finished=case((bindparam("b_finished") == literal_column("1"), DatabaseTime()), else_=null()),
    worker=null(),
    lease_seconds=null(),
    lease_until=null(),
)


_ASKED: Mapping[str, Callable[[TrialUpdate], Any]] = {
    "b_id": attrgetter("trial_id"),
    "b_fence": attrgetter("fence"),
    "b_step": attrgetter("step"),
    "b_numerics": lambda one: one.numerics and one.numerics.text,
    "b_seconds": attrgetter("seconds"),
    "b_inherited_steps": lambda one: None if one.inherited is None else one.inherited.steps,
    "b_inherited_from": lambda one: None if one.inherited is None else one.inherited.trial_id,
    "b_groups": lambda one: None if one.groups is None else groups_text(one.groups),
    "b_set_back": lambda one: int(one.set_back),
    "b_loses_steps": lambda one: int(one.cut_back_to is not None),
    "b_state": lambda one: one.state.value,
    "b_reason": lambda one: one.reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode(),
    "b_given_back": lambda one: int(one.state is State.WAITING),
    "b_finished": lambda one: int(one.state.finished),
}


@dataclass(frozen=True, slots=True)
class _Batches:
    """What is executed for every update, measurement or file."""

    go_on: BatchedStatement
    end: BatchedStatement
    measure: BatchedStatement
    files: BatchedStatement


@lru_cache(maxsize=16)
def _batches(dialect: Dialect) -> _Batches:
    measure = BatchedStatement.of(insert_into(dialect, measurement).on_conflict_do_nothing(), dialect)
    files = insert_into(dialect, checkpoint_file).values(
        path=bindparam("b_path"), digest=bindparam("b_digest"), num_bytes=bindparam("b_bytes")
    )
    new = files.excluded
    files = files.on_conflict_do_update(
        index_elements=["path"], set_={"digest": new.digest, "num_bytes": new.num_bytes}
    )
    return _Batches(
        BatchedStatement.of(_GO_ON, dialect),
        BatchedStatement.of(_END, dialect),
        measure,
        BatchedStatement.of(files, dialect),
    )


def record_updates(connection: Connection, updates: Sequence[TrialUpdate], metric_ids: Mapping[str, int]) -> None:
    """Write all of it; the caller's transaction is rolled back when this raises LeaseLost or StorageError."""
    ordered = sorted(updates, key=lambda one: one.trial_id)  # one order of locking for everybody
    _write_states(connection, ordered)
    cut_back(connection, {one.trial_id: one.cut_back_to for one in ordered if one.cut_back_to is not None})
    write_measurements(connection, ordered, metric_ids)
    replaced = {one.trial_id: one.checkpoints for one in ordered if one.checkpoints is not None}
    if replaced:
        _replace_checkpoints(connection, replaced)


def _write_states(connection: Connection, updates: Sequence[TrialUpdate]) -> None:
    batches = _batches(connection.dialect)
    going_on = [one for one in updates if one.state is State.RUNNING]
    ending = [one for one in updates if one.state is not State.RUNNING]
    written = 0
    for batch, ours in ((batches.go_on, going_on), (batches.end, ending)):
        if ours:
            asked = [_ASKED[name] for name in batch.names]
            written += batch.run(connection, [tuple([ask(one) for ask in asked]) for one in ours])
    if written != len(updates):
        _refuse_lost(connection, updates)


def _refuse_lost(connection: Connection, updates: Sequence[TrialUpdate]) -> None:
    """Raise LeaseLost, unless all that was not written now had been written before: its answer got lost."""
    ours = {one.trial_id: one for one in updates}
    rows = connection.execute(
        select(trial.c.id, trial.c.number, trial.c.fence, trial.c.state, trial.c.step, trial.c.worker)
        .where(trial.c.id.in_(list(ours))).order_by(trial.c.id)
    ).all()  # fmt: skip
    lost = [
        f"trial {row.number} is {row.state} with fence {row.fence} (worker {row.worker}), and ours is "
        f"{ours[row.id].fence}"
        for row in rows
        if (row.fence, row.state, row.step) != (ours[row.id].fence, ours[row.id].state.value, ours[row.id].step)
    ]
    lost += [f"there is no trial with id {missing}" for missing in sorted(set(ours) - {row.id for row in rows})]
    if lost:
        raise LeaseLost("; ".join(lost) + "; nothing was written")


def metric_ids_of(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The ids of metrics by name; new names are added."""
    wanted = sorted(set(names))
    insertion = insert_into(connection.dialect, metric).on_conflict_do_nothing()
    connection.execute(insertion, [{"name": name} for name in wanted])
    rows = connection.execute(select(metric.c.name, metric.c.id).where(metric.c.name.in_(wanted)))
    return {row.name: row.id for row in rows}


def write_measurements(connection: Connection, updates: Iterable[TrialUpdate], metric_ids: Mapping[str, int]) -> None:
    """Raises StorageError for a second, different value of a metric at a step."""
    rows = [
        (one.trial_id, metric_ids[measured.metric], measured.step, *_stored(one.trial_id, measured))
        for one in updates
        for measured in one.measurements
    ]
    if not rows:
        return
    written = _batches(connection.dialect).measure.run(connection, rows)
    if written != len(rows):
        _refuse_second_values(connection, rows, {number: name for name, number in metric_ids.items()})


def _stored(trial_id: int, measured: Measurement) -> tuple[str, float | None]:
    try:
        return stored(float(measured.value))
    except (TypeError, ValueError, OverflowError) as error:
        raise StorageError(
            f"{measured.metric} of trial id {trial_id} at step {measured.step} must be a number, "
            f"got {measured.value!r:.80}: {error}"
        ) from error


def _refuse_second_values(connection: Connection, rows: Sequence[tuple[Any, ...]], names: Mapping[int, str]) -> None:
    """The same value again is fine (a replay); another one at the same place is a bug that must not pass."""
    kept = select(measurement).where(
        measurement.c.trial_id.in_({row[0] for row in rows}), measurement.c.step.in_({row[2] for row in rows})
    )
    known = {tuple(row)[:3]: (row.value_kind, row.value) for row in connection.execute(kept)}
    for trial_id, metric_id, step, kind, value in rows:
        before = known[trial_id, metric_id, step]
        if before != (kind, value):
            number = connection.scalar(select(trial.c.number).where(trial.c.id == trial_id))
            raise StorageError(
                f"trial {number} already has {names[metric_id]} = {restored(*before)!r} at step {step}, and now "
                f"{restored(kind, value)!r}: a training must give the same numbers when it is replayed; "
                "nothing was written"
            )


def _replace_checkpoints(connection: Connection, replaced: Mapping[int, Sequence[Checkpoint]]) -> None:
    before = _forget_checkpoints(connection, replaced)
    named = [(trial_id, i, kept) for trial_id, kepts in replaced.items() for i, kept in enumerate(kepts)]
    files: dict[str, Checkpoint | BaseFile] = {kept.file: kept for _, _, kept in named}
    file_ids = _file_ids(connection, files | {kept.base.file: kept.base for _, _, kept in named if kept.base})
    if named:
        connection.execute(insert(checkpoint), [_checkpoint_row(*one, file_ids) for one in named])
    _delete_unused_files(connection, before - set(file_ids.values()))


def _file_ids(connection: Connection, files: Mapping[str, Checkpoint | BaseFile]) -> dict[str, int]:
    """The rows of files, by path; a file that was rewritten under its old name gets its new digest."""
    if not files:
        return {}
    batch = _batches(connection.dialect).files
    rows = [{"b_path": path, "b_digest": kept.digest, "b_bytes": kept.num_bytes} for path, kept in files.items()]
    batch.run(connection, [tuple(row[name] for name in batch.names) for row in sorted(rows, key=itemgetter("b_path"))])
    known = select(checkpoint_file.c.path, checkpoint_file.c.id).where(checkpoint_file.c.path.in_(list(files)))
    return {row.path: row.id for row in connection.execute(known)}


def _checkpoint_row(trial_id: int, position: int, kept: Checkpoint, file_ids: Mapping[str, int]) -> dict[str, Any]:
    kind, value = (None, None) if kept.value is None else stored(float(kept.value))
    key = kept.prefix
    return {
        "trial_id": trial_id,
        "kind": kept.kind,
        "step": kept.step,
        "position": position,
        "file_id": file_ids[kept.file],
        "member": kept.member,
        "value_kind": kind,
        "value": value,
        "prefix_base": key and key.base,
        "prefix_path": key and key.path,
        "prefix_numerics": key and key.numerics.text,
        "base_id": kept.base and file_ids[kept.base.file],
    }


def drop_checkpoints(connection: Connection, trial_ids: Iterable[int]) -> None:
    """Delete the checkpoints of trials, and the rows of files that no checkpoint names any more."""
    _delete_unused_files(connection, _forget_checkpoints(connection, trial_ids))


def forget_checkpoints(connection: Connection, chosen: Iterable[tuple[int, CheckpointKind, int]]) -> list[str]:
    """Delete rows of finished trials by (trial, kind, step); returns the paths of files that are not named any more."""
    finished = select(trial.c.id).where(trial.c.state.in_([state.value for state in State if state.finished]))
    named = [and_(checkpoint.c.trial_id == one, checkpoint.c.kind == kind, checkpoint.c.step == step)
             for one, kind, step in chosen]  # fmt: skip
    forgotten: set[int] = set()
    for mine in named:
        deletion = delete(checkpoint).where(mine, checkpoint.c.trial_id.in_(finished)).returning(checkpoint.c.file_id)
        forgotten |= set(connection.scalars(deletion))
    paths = {row.id: row.path for row in connection.execute(select(checkpoint_file.c.id, checkpoint_file.c.path).where(
        checkpoint_file.c.id.in_(forgotten)))}  # fmt: skip
    _delete_unused_files(connection, forgotten)
    left = set(connection.scalars(select(checkpoint_file.c.id).where(checkpoint_file.c.id.in_(forgotten))))
    return [path for file_id, path in sorted(paths.items()) if file_id not in left]


def delete_unused_bases(connection: Connection) -> None:
    """Delete the rows of base files that no checkpoint needs any more; while nobody can commit one that would."""
    connection.execute(delete(checkpoint_file).where(unused_base()))


def _forget_checkpoints(connection: Connection, trial_ids: Iterable[int]) -> set[int]:
    """Delete the rows of trials, and return the files they pointed to."""
    mine = checkpoint.c.trial_id.in_(list(trial_ids))
    return set(connection.scalars(delete(checkpoint).where(mine).returning(checkpoint.c.file_id)))


def _delete_unused_files(connection: Connection, file_ids: set[int]) -> None:
    if file_ids:
        named = select(checkpoint.c.file_id).where(checkpoint.c.file_id == checkpoint_file.c.id).exists()
        connection.execute(delete(checkpoint_file).where(checkpoint_file.c.id.in_(file_ids), ~named))


def cut_back(connection: Connection, steps: Mapping[int, int]) -> None:
    """Delete the measurements of each trial beyond a step, from which it will be replayed; -1: all of them."""
    if steps:
        beyond = measurement.c.step > bindparam("b_step")
        cut = delete(measurement).where(measurement.c.trial_id == bindparam("b_id"), beyond)
        connection.execute(cut, [{"b_id": trial_id, "b_step": step} for trial_id, step in steps.items()])


_FINISHED = (
    update(trial)
    .where(trial.c.id == bindparam("b_id"))
    .values(
        state=bindparam("b_state"),
        reason=bindparam("b_reason"),
        step=bindparam("b_step"),
        farthest=bindparam("b_step"),
        started=bindparam("b_started"),
        finished=DatabaseTime(),
    )
)


def insert_finished(
    connection: Connection, study_id: int, finished: Sequence[FinishedTrial], metric_ids: Mapping[str, int]
) -> int:
    """Write trials whose numbers are new; those that are there already stay as they are. Returns how many were new."""
    unfinished = [one.trial.number for one in finished if not one.state.finished]
    if unfinished:
        raise StorageError(f"only finished trials can be recorded so, and trials {unfinished[:5]} are not finished")
    known = set(connection.scalars(select(trial.c.number).where(trial.c.study_id == study_id)))
    new = [one for one in finished if one.trial.number not in known]
    if not new:
        return 0
    insert_trials(connection, study_id, [one.trial for one in new])
    numbered = select(trial.c.number, trial.c.id).where(trial.c.study_id == study_id)
    ids = {row.number: row.id for row in connection.execute(numbered)}
    connection.execute(
        _FINISHED,
        [
            {
                "b_id": ids[one.trial.number],
                "b_state": one.state.value,
                "b_reason": one.reason,
                "b_step": one.step,
                "b_started": one.started,
            }
            for one in new
        ],
    )
    updates = [TrialUpdate(ids[one.trial.number], 0, one.step, one.measurements) for one in new]
    write_measurements(connection, updates, metric_ids)
    return len(new)
