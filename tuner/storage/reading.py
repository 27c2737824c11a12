"""What the Ledger holds besides training curves: trials, checkpoint files."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, or_, select

from tuner.design.trial import Trial
from tuner.errors import StorageError
from tuner.records import (
    FROZEN_FOLDER,
    BaseFile,
    Checkpoint,
    CheckpointKind,
    Inherited,
    Measurement,
    Numerics,
    Prefix,
    PrefixKey,
    State,
    TrialRecord,
    UnreadableTrial,
)
from tuner.records.conclusions import StageStart
from tuner.shown import quoted
from tuner.storage.codec import conclusion_from, groups_from, point_from, schedule_from, steps_from
from tuner.storage.dialects import DatabaseTime
from tuner.storage.schema import campaign, checkpoint, checkpoint_file, conclusion, measurement, metric, study, trial
from tuner.storage.stored_values import MOST_STEPS, refuse_strange, restored

T = TypeVar("T")


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
        refuse_strange(row, trial)
        _state(row)
        point = _field("point", point_from, row.point)
        schedule = _field("schedule", schedule_from, row.schedule)
        pins = _field("pins", steps_from, row.pins)
    except StorageError as error:
        raise StorageError(f"trial {_numbered(row)} is unreadable in the Ledger: {error}") from error
    return Trial(row.number, point, row.seed, row.data_seed, schedule, row.origin, row.shape_group, pins)


def _field(name: str, read: Callable[[str], T], text: str) -> T:
    """What a column of JSON holds. Raises StorageError naming the column."""
    try:
        return read(text)
    except StorageError as error:
        raise StorageError(f"{name}: {error}") from error


def _numbered(row: Row[Any]) -> str:
    """How a trial is called whose number may be none."""
    return str(row.number) if isinstance(row.number, int) else f"with the id {row.id}"


def inherited_of(row: Row[Any]) -> Inherited:
    """How many steps a trial inherited, from its row of `trial`."""
    return Inherited(row.inherited_steps, row.inherited_from if row.inherited_steps else None)


def _record(row: Row[Any], checkpoints: tuple[Checkpoint, ...]) -> TrialRecord:
    declared = declared_trial(row)
    refuse_strange_checkpoints(row, checkpoints)
    stored = row.parameter_groups
    try:
        groups = () if stored is None else _field("parameter_groups", groups_from, stored)
    except StorageError as error:
        raise StorageError(f"trial {_numbered(row)} is unreadable in the Ledger: {error}") from error
    return TrialRecord(
        trial_id=row.id,
        trial=declared,
        state=_state(row),
        reason=row.reason,
        step=row.step,
        attempt=row.attempt,
        numerics=_numerics(row.numerics),
        checkpoints=checkpoints,
        inherited=inherited_of(row),
        groups=groups,
        seconds=row.trained_seconds,
    )


def _numerics(stored: object) -> Numerics | None:
    return Numerics.from_text(stored) if isinstance(stored, str) else None


def _state(row: Row[Any]) -> State:
    """Raises StorageError for a state that there is not."""
    try:
        return State(row.state)
    except ValueError as error:
        raise StorageError(f"state: {quoted(row.state)} is none of {', '.join(State)}") from error


def refuse_strange_checkpoints(row: Row[Any], kept: Iterable[Checkpoint]) -> None:
    """Raises StorageError for a checkpoint with a damaged column."""
    for one in kept:
        base = () if one.base is None else (one.base.file, one.base.digest)
        texts = (one.kind, one.file, one.digest, one.member, *base)
        counts = (one.step, one.num_bytes, *(() if one.base is None else (one.base.num_bytes,)))
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(count, int) and 0 <= count <= MOST_STEPS for count in counts
        ):
            raise StorageError(
                f"trial {_numbered(row)} is unreadable in the Ledger: checkpoint: {quoted((*texts, *counts))}"
            )


def _record_or_failure(row: Row[Any], checkpoints: tuple[Checkpoint, ...]) -> TrialRecord:
    try:
        return _record(row, checkpoints)
    except StorageError as error:
        number = row.number if isinstance(row.number, int) else -row.id  # no trial of ours is below 0
        return TrialRecord(
            trial_id=row.id,
            trial=UnreadableTrial(number, _whole(row.seed), _whole(row.data_seed), str(row.origin)),
            state=State.FAILED,
            reason=str(error),
            step=_whole(row.step),
            attempt=_whole(row.attempt),
            numerics=_numerics(row.numerics),
            checkpoints=_readable(row, checkpoints),
        )


def _readable(row: Row[Any], checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """The checkpoints of a row that is unreadable anyway, if they can be read."""
    try:
        refuse_strange_checkpoints(row, checkpoints)
    except StorageError:
        return ()
    return checkpoints


def _whole(value: object) -> int:
    """A whole number of a row that is unreadable anyway."""
    return value if isinstance(value, int) and -MOST_STEPS <= value <= MOST_STEPS else 0


_OF_BASE = (("path", "base_path"), ("digest", "base_digest"), ("num_bytes", "base_bytes"))
_BASE = checkpoint_file.alias("base")
_LOST = f"{FROZEN_FOLDER}/whose record is lost"
_WITH_FILES = (
    select(
        checkpoint,
        *(checkpoint_file.c[name] for name in ("path", "digest", "num_bytes")),
        *(_BASE.c[name].label(label) for name, label in _OF_BASE),
    )
    .join(checkpoint_file, checkpoint_file.c.id == checkpoint.c.file_id)
    .outerjoin(_BASE, _BASE.c.id == checkpoint.c.base_id)
)


def checkpoints_of(connection: Connection, trial_ids: Iterable[int]) -> dict[int, tuple[Checkpoint, ...]]:
    """The checkpoints of trials by id, in the order in which the trainer named them."""
    query = _WITH_FILES.where(checkpoint.c.trial_id.in_(list(trial_ids)))
    query = query.order_by(checkpoint.c.trial_id, checkpoint.c.position)
    found: dict[int, list[Checkpoint]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.trial_id].append(_checkpoint(row))
    return {trial_id: tuple(kept) for trial_id, kept in found.items()}


def _checkpoint(row: Row[Any]) -> Checkpoint:
    value = None if row.value_kind is None else restored(row.value_kind, row.value)
    kind = cast(CheckpointKind, row.kind)
    numerics = _numerics(row.prefix_numerics)
    key = None if numerics is None else PrefixKey(row.prefix_base, row.prefix_path, numerics)
    base = None
    if row.base_id is not None:  # a row that is lost leaves nothing to read, and a name that no file has
        named = row.base_path is not None
        base = BaseFile(row.base_path, row.base_digest, row.base_bytes) if named else BaseFile(_LOST, "", 0)
    return Checkpoint(kind, row.step, row.path, row.digest, row.num_bytes, value, row.member, key, base)


def checkpoint_files(connection: Connection) -> list[CheckpointFile]:
    """Every file the Ledger points to, by path; others in the checkpoint folder are left over from crashes."""
    rows = connection.execute(select(checkpoint_file).where(~unused_base()))
    found = {row.path: CheckpointFile(row.path, row.digest, row.num_bytes) for row in rows if isinstance(row.path, str)}
    found |= {file.path: file for file in start_files(connection)}
    return [found[path] for path in sorted(found)]


def start_files(connection: Connection, study_id: int | None = None) -> list[CheckpointFile]:
    """The weights of earlier stages that studies start from, or one study; an unreadable record is told elsewhere."""
    asked = select(conclusion.c.data).where(conclusion.c.kind == StageStart.KIND)
    found: list[CheckpointFile] = []
    for text in connection.scalars(asked if study_id is None else asked.where(conclusion.c.study_id == study_id)):
        with suppress(StorageError):
            candidates = conclusion_from(StageStart, text).candidates
            found += [CheckpointFile(one.file, one.digest, one.num_bytes) for one in candidates if one.file]
    return found


def unused_base() -> ColumnElement[bool]:
    """Of rows of `checkpoint_file`: a base file that no checkpoint needs any more."""
    needed = select(checkpoint.c.base_id).where(checkpoint.c.base_id.is_not(None))
    return checkpoint_file.c.path.contains(f"/{FROZEN_FOLDER}/base-") & checkpoint_file.c.id.not_in(needed)


def first_start(connection: Connection, study_id: int) -> float | None:
    """When the first trial of a study was started; None where it is not known of any."""
    earliest: float | None = connection.scalar(select(func.min(trial.c.started)).where(trial.c.study_id == study_id))
    return earliest


def count_states(connection: Connection, study_id: int) -> dict[State, int]:
    """How many trials are in each state; every state is there."""
    query = select(trial.c.state, func.count()).where(trial.c.study_id == study_id).group_by(trial.c.state)
    counted = {row[0]: int(row[1]) for row in connection.execute(query)}
    known = {state: counted.pop(state.value, 0) for state in State}
    known[State.FAILED] += sum(counted.values())  # a state that there is not: the trial is unreadable
    return known


@dataclass(frozen=True, slots=True)
class StudyLeft:
    """A study, and what is left of it.

    free: whether a claim may get a trial: one waits, or the lease of one is over. running: whether somebody holds one.
    """

    campaign: str
    study_id: int
    name: str
    free: bool
    running: bool


def studies_left(connection: Connection, campaigns: Collection[str]) -> list[StudyLeft]:
    """The studies of some campaigns in the order of their start; campaigns that are not recorded have none."""
    rows = connection.execute(_left(campaigns))
    return [StudyLeft(name, study_id, of, bool(free), bool(held)) for name, study_id, of, free, held in rows]


def _left(campaigns: Collection[str]) -> Select[Any]:
    """One look into the index for each state of each study: how many trials have ended makes no difference."""

    def some(*kind: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists().where(trial.c.study_id == study.c.id, *kind)

    running = trial.c.state == State.RUNNING.value
    held, over = trial.c.lease_until >= DatabaseTime(), trial.c.lease_until < DatabaseTime()
    free = or_(some(trial.c.state == State.WAITING.value), some(running, over))
    columns = (campaign.c.name, study.c.id, study.c.name, free.label("free"), some(running, held).label("running"))
    query = select(*columns).join(campaign, campaign.c.id == study.c.campaign_id)
    return query.where(campaign.c.name.in_(sorted(set(campaigns)))).order_by(study.c.id)


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """How far a trial is, without its curves and files. finished: when it ended, by the clock of the database."""

    number: int
    state: State
    step: int
    fence: int
    finished: float | None


def trials_in_progress(connection: Connection, study_id: int, since: float) -> list[TrialProgress]:
    """The trials that run, and those that ended at this time of the database or later."""
    ended = trial.c.finished >= since
    running = trial.c.state == State.RUNNING.value
    columns = (trial.c.number, trial.c.state, trial.c.step, trial.c.fence, trial.c.finished)
    query = select(*columns).where(trial.c.study_id == study_id, or_(running, ended)).order_by(trial.c.number)
    rows: Iterable[Row[Any]] = connection.execute(query)
    return [TrialProgress(row.number, _state(row), row.step, row.fence, row.finished) for row in rows]


def prefixes_of(connection: Connection, bases: Collection[str]) -> dict[str, list[Prefix]]:
    """The saved states from which others may start, by what they are a function of; without their measurements.

    A shared checkpoint contains its best weights; the last state of a trial has that trial's best checkpoints.
    """
    query = _WITH_FILES.where(checkpoint.c.prefix_base.in_(sorted(set(bases))))
    query = query.order_by(checkpoint.c.step.desc(), checkpoint.c.trial_id)
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


def unbegun_trials(connection: Connection, study_id: int) -> list[Trial]:
    """Unfinished trials without a checkpoint, by number; what cannot be read is left out."""
    has_state = select(checkpoint.c.trial_id).where(checkpoint.c.trial_id == trial.c.id).exists()
    unfinished = trial.c.state.in_([state.value for state in State if not state.finished])
    query = select(trial).where(trial.c.study_id == study_id, unfinished, ~has_state).order_by(trial.c.number)
    found = []
    for row in connection.execute(query):
        with suppress(StorageError):
            found.append(declared_trial(row))
    return found


def checkpoint_bytes(connection: Connection, study_id: int) -> int:
    """The size of the files of a study, each counted once."""
    files, bases = (
        select(column).join(trial).where(trial.c.study_id == study_id, column.is_not(None))
        for column in (checkpoint.c.file_id, checkpoint.c.base_id)
    )
    total = select(func.sum(checkpoint_file.c.num_bytes)).where(checkpoint_file.c.id.in_(files.union(bases)))
    return int(connection.scalar(total) or 0)
