"""Claims on trials with lease and fence: taken, renewed, released, expired, and trials that are tried again.

Leases are in the time of the database.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)

from tuner.design.trial import Trial
from tuner.errors import StorageError, StudyChanged
from tuner.records import Checkpoint, Claim, Numerics, State
from tuner.records.conclusions import StudyNumerics
from tuner.storage.dialects import DatabaseTime, is_postgresql
from tuner.storage.liveness import dead_workers, names_here
from tuner.storage.reading import checkpoints_of, declared_trial, inherited_of, refuse_strange_checkpoints
from tuner.storage.recording import cut_back, drop_checkpoints, given_back
from tuner.storage.schema import checkpoint, launch, measurement, study, trial
from tuner.storage.studies import Start, StudyRow, insert_conclusion, newest_conclusion, restarted, study_row

RESUMABLE = ("latest", "trunk")  # the kinds of checkpoint that hold the whole state of a training
AT_ONCE = 500  # trials that one statement names; PostgreSQL has no room for the pairs of ten thousand on its stack
NOBODY: dict[str, Any] = {"worker": None, "lease_seconds": None, "lease_until": None}

# Statements are built once: building them takes SQLAlchemy longer than executing them.
_TAKE = (
    update(trial)
    .where(trial.c.id == bindparam("b_id"))
    .values(
        state=State.RUNNING.value,
        reason="",
        attempt=trial.c.attempt + 1,
        fence=trial.c.fence + 1,
        step=bindparam("b_step"),
        worker=bindparam("b_worker"),
        lease_seconds=bindparam("b_lease"),
        lease_until=DatabaseTime() + bindparam("b_lease", type_=Double),
        started=func.coalesce(trial.c.started, DatabaseTime()),
    )
    .returning(trial.c.fence, trial.c.attempt)
)


@dataclass(frozen=True, slots=True)
class _Free:
    """How free rows of one kind are found: the first one, and those of a shape group besides the ones taken.

    mine, mine_of_group: of those that were not begun, or begun under the Numerics of the worker.
    """

    first: Select[Any]
    of_group: Select[Any]
    mine: Select[Any]
    mine_of_group: Select[Any]

    @classmethod
    def where(cls, *kind: ColumnElement[bool]) -> "_Free":
        mine = select(trial).where(trial.c.study_id == bindparam("b_study"), *kind)
        mine = mine.order_by(trial.c.number).with_for_update(skip_locked=True)
        taken = trial.c.id.in_(bindparam("b_taken", expanding=True))
        of_group = mine.where(trial.c.shape_group == bindparam("b_group"), ~taken)
        of_group = of_group.limit(bindparam("b_limit", type_=Integer))
        here = or_(trial.c.numerics.is_(None), trial.c.numerics.in_(bindparam("b_numerics", expanding=True)))
        return cls(mine.limit(1), of_group, mine.where(here).limit(1), of_group.where(here))


# Two queries and not one with OR, because each finds its rows at once in the index, among any number of trials.
_FREE = (
    _Free.where(trial.c.state == State.RUNNING.value, trial.c.lease_until < DatabaseTime()),
    _Free.where(trial.c.state == State.WAITING.value),
)


_OF_STUDY_RUNNING = and_(trial.c.study_id == bindparam("b_study"), trial.c.state == State.RUNNING.value)
_HELD = select(func.count().label("running"), func.min(trial.c.lease_until).label("first_end"))
_HELD_NOW = _HELD.where(_OF_STUDY_RUNNING).subquery()
_WAITS = exists().where(trial.c.study_id == bindparam("b_study"), trial.c.state == State.WAITING.value)
# One statement that reads: a worker without a trial asks it again and again.
_LEFT = select(_HELD_NOW.c.running, or_(_WAITS, _HELD_NOW.c.first_end < DatabaseTime()))


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a study at this moment.

    free: whether a claim may get a trial: one waits, or its lease is over. running: how many trials somebody holds.
    """

    free: bool
    running: int

    @property
    def nothing(self) -> bool:
        """Whether all trials have ended."""
        return not (self.free or self.running)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker asks for. `shape_group` None: the group of the first free trial; only one group is claimed.

    numerics: under which it trains; None where it does not matter.
    """

    worker: str
    lease_seconds: float
    max_trials: int = 1
    shape_group: str | None = None
    max_attempts: int = 5
    numerics: Numerics | None = None

    def is_foreign(self, begun: str | None) -> bool:
        """Whether a trial was begun under other Numerics, given as their text."""
        if self.numerics is None or begun is None or begun == self.numerics.text:
            return False
        return bool(self.numerics.differences(Numerics.from_text(begun)))

    def __post_init__(self) -> None:
        if self.max_trials < 1 or self.max_attempts < 1:
            raise StorageError(
                f"max_trials and max_attempts must be at least 1, got {self.max_trials} and {self.max_attempts}"
            )
        if not 0 < self.lease_seconds < 1e9:
            raise StorageError(f"a lease lasts a positive number of seconds, got {self.lease_seconds}")


def claim_trials(connection: Connection, study_id: int, terms: Terms) -> list[Claim]:
    """Claim trials without an owner; measurements after the step of resumption are deleted."""
    trials: dict[int, Trial] = {}
    begun: list[int] = []
    checkpoints: dict[int, tuple[Checkpoint, ...]] = {}
    while not trials:  # again where every row that was found is given up, and now FAILED
        rows = _free_rows(connection, study_id, terms)
        if not rows:
            return []
        begun = [row.id for row in rows if row.fence]
        checkpoints = checkpoints_of(connection, begun) if begun else {}
        trials = _worth_trying(connection, rows, checkpoints, terms.max_attempts)
    begun = [trial_id for trial_id in begun if trial_id in trials]
    cut_back(connection, {trial_id: resume_step(checkpoints.get(trial_id, ())) for trial_id in begun})
    steps = {trial_id: max(0, resume_step(checkpoints.get(trial_id, ()))) for trial_id in trials}
    found = {row.id: row for row in rows}
    return [
        _claim(found[trial_id], trials[trial_id], fence, attempt, checkpoints.get(trial_id, ()))
        for trial_id, (fence, attempt) in _take(connection, steps, terms).items()
    ]


def resume_step(checkpoints: Iterable[Checkpoint]) -> int:
    """The step after which training is resumed: the step of the latest complete state, -1 without one."""
    return max((kept.step for kept in checkpoints if kept.kind in RESUMABLE), default=-1)


def renew_leases(connection: Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Lengthen the leases that are still ours, and return their claims, by trial."""
    ours = _update_ours(connection, _keys(claims), {"lease_until": DatabaseTime() + trial.c.lease_seconds})
    return sorted((one for one in claims if one.trial_id in ours), key=lambda claim: claim.trial_id)


def release_trials(connection: Connection, claims: Sequence[Claim], *, count_attempt: bool, reason: str = "") -> int:
    """Return trials to WAITING. Returns how many were still ours."""
    attempt = trial.c.attempt if count_attempt else given_back(trial.c.attempt, literal(1))
    waiting = {"state": State.WAITING.value, "reason": reason, "attempt": attempt, **NOBODY}
    return len(_update_ours(connection, _keys(claims), waiting))


def unheard_claims(
    connection: Connection, study_id: int, worker: str, given: Collection[tuple[int, int]]
) -> list[Claim]:
    """What a worker owns beyond the (trial, fence) it was given: taken by a claim whose answer got lost."""
    mine = select(trial).where(trial.c.study_id == study_id, trial.c.state == State.RUNNING.value)
    rows = connection.execute(mine.where(trial.c.worker == worker).order_by(trial.c.number)).all()
    rows = [row for row in rows if (row.id, row.fence) not in given]
    checkpoints = checkpoints_of(connection, [row.id for row in rows]) if rows else {}
    return [_claim(row, declared_trial(row), row.fence, row.attempt, checkpoints.get(row.id, ())) for row in rows]


def _claim(row: Row[Any], declared: Trial, fence: int, attempt: int, checkpoints: tuple[Checkpoint, ...]) -> Claim:
    return Claim(
        row.id, fence, declared, attempt, checkpoints,
        inherited=inherited_of(row), farthest=row.farthest, begun_under=row.numerics,
        seconds=row.trained_seconds or 0.0,
    )  # fmt: skip


def _free_rows(connection: Connection, study_id: int, terms: Terms) -> list[Row[Any]]:
    """At most `max_trials` rows of one shape group, by number: those whose lease ran out, then those that wait."""
    first = None if terms.shape_group else _first_free(connection, study_id, terms)
    group = first.shape_group if first is not None else terms.shape_group
    rows = [] if first is None else [first]
    of_here = terms.numerics is not None and not (first is not None and terms.is_foreign(first.numerics))
    here = {"b_numerics": terms.numerics.texts} if terms.numerics is not None and of_here else {}
    for free in _FREE:
        if group is not None and len(rows) < terms.max_trials:
            wanted = {"b_group": group, "b_taken": [row.id for row in rows], "b_limit": terms.max_trials - len(rows)}
            query = free.mine_of_group if here else free.of_group
            rows += connection.execute(query, {"b_study": study_id, **wanted, **here})
    return rows


def _first_free(connection: Connection, study_id: int, terms: Terms) -> Row[Any] | None:
    """The first free row; one that was begun under other Numerics only where there is none else."""
    foreign = None
    for free in _FREE:
        row = connection.execute(free.first, {"b_study": study_id}).first()
        if row is not None and terms.numerics is not None and terms.is_foreign(row.numerics):
            foreign = foreign or row
            of_here = {"b_study": study_id, "b_numerics": terms.numerics.texts}
            row = connection.execute(free.mine, of_here).first()
        if row is not None:
            return row
    return foreign


def _worth_trying(
    connection: Connection,
    rows: Iterable[Row[Any]],
    checkpoints: Mapping[int, tuple[Checkpoint, ...]],
    max_attempts: int,
) -> dict[int, Trial]:
    """The declared trials by id. Those that make no progress, or cannot be read, become FAILED; their state stays."""
    worth: dict[int, Trial] = {}
    for row in rows:
        try:
            if row.attempt >= max_attempts:
                last = f"; the last one: {row.reason}" if row.reason else ""
                raise StorageError(
                    f"quarantined after {row.attempt} attempts, none of which got beyond step {row.farthest}{last}"
                )
            refuse_strange_checkpoints(row, checkpoints.get(row.id, ()))
            worth[row.id] = declared_trial(row)
        except StorageError as error:
            hopeless = update(trial).where(trial.c.id == row.id)
            hopeless = hopeless.values(state=State.FAILED.value, reason=str(error), finished=DatabaseTime(), **NOBODY)
            connection.execute(hopeless)
    return worth


def _take(connection: Connection, steps: dict[int, int], terms: Terms) -> dict[int, tuple[int, int]]:
    """Write us into the rows, and return their new (fence, attempt) by trial id."""
    ours = {"b_worker": terms.worker, "b_lease": terms.lease_seconds}
    taken: dict[int, tuple[int, int]] = {}
    for trial_id, step in steps.items():
        row = connection.execute(_TAKE, {**ours, "b_id": trial_id, "b_step": step}).one()
        taken[trial_id] = (row.fence, row.attempt)
    return taken


def _update_ours(connection: Connection, keys: Sequence[tuple[int, int]], values: Mapping[str, Any]) -> set[int]:
    """Update those of some trials (id, fence) that are still RUNNING under that fence, by few statements; their ids.

    The rows of several are locked first, in the one order of locking for everybody.
    """
    ordered, updated = sorted(keys), set[int]()
    for begin in range(0, len(ordered), AT_ONCE):
        some = ordered[begin : begin + AT_ONCE]
        ours = and_(*_under_fence(some), trial.c.state == State.RUNNING.value)
        if len(some) > 1:
            locked = select(trial.c.id).where(ours).order_by(trial.c.id).with_for_update().cte("locked")
            ours = trial.c.id.in_(select(locked.c.id))
        updated |= set(connection.scalars(update(trial).where(ours).values(**values).returning(trial.c.id)))
    return updated


def _under_fence(keys: Sequence[tuple[int, int]]) -> tuple[ColumnElement[bool], ...]:
    """That a trial is one of these (id, fence), in words that find it by its id; see `recording.owned`."""
    if len(keys) == 1:  # a fifth of the server's time for this one, and most workers hold one trial
        return trial.c.id == keys[0][0], trial.c.fence == keys[0][1]
    return trial.c.id.in_([trial_id for trial_id, _ in keys]), tuple_(trial.c.id, trial.c.fence).in_(keys)


def _keys(claims: Iterable[Claim]) -> list[tuple[int, int]]:
    return [(claim.trial_id, claim.fence) for claim in claims]


def work_left(connection: Connection, study_id: int) -> Left:
    """What is left of a study, by one statement."""
    running, free = connection.execute(_LEFT, {"b_study": study_id}).one()
    return Left(bool(free), running)


def workers_here(connection: Connection, study_id: int) -> set[str]:
    """The workers with trials of a study of which it can be known here whether they live."""
    names = names_here()
    if names is None:
        return set()
    beginning, scope = names
    ours = trial.c.worker.startswith(beginning, autoescape=True), trial.c.worker.contains(scope, autoescape=True)
    query = select(trial.c.worker).distinct().where(_OF_STUDY_RUNNING, trial.c.lease_until > 0.0, *ours)
    return set(connection.scalars(query, {"b_study": study_id}))


def hold_off_claims(connection: Connection) -> None:
    """Let nobody claim a trial, or commit one, before this transaction ends; SQLite has one writer anyway."""
    if is_postgresql(connection):
        connection.execute(text("LOCK TABLE trial IN SHARE ROW EXCLUSIVE MODE"))


_AGAIN = {"state": State.WAITING.value, "reason": "", "attempt": 0, "finished": None, **NOBODY}
_AFRESH = {"farthest": 0, "numerics": None, "inherited_steps": 0, "inherited_from": None, "started": None}


def expire_dead_workers(connection: Connection, study_id: int) -> int:
    """End the leases of workers that are known here to be dead; of any other worker the lease decides."""
    dead = dead_workers(workers_here(connection, study_id))
    if not dead:
        return 0
    theirs = select(trial.c.id, trial.c.fence).where(_OF_STUDY_RUNNING, trial.c.worker.in_(dead))
    rows = connection.execute(theirs.where(trial.c.lease_until > 0.0), {"b_study": study_id}).all()
    return len(_update_ours(connection, [(row.id, row.fence) for row in rows], {"lease_until": 0.0}))


def retry_failed(connection: Connection, study_id: int, numbers: Collection[int] | None, *, afresh: bool) -> list[int]:
    """Make FAILED trials WAITING, with all their attempts; returns their numbers.

    They are resumed from their last saved state, or trained from step 0 (`afresh`). A trial whose row cannot be
    read stays FAILED.
    """
    chosen = and_(trial.c.study_id == study_id, trial.c.state == State.FAILED.value)
    if numbers is not None:
        chosen = and_(chosen, trial.c.number.in_(list(numbers)))
    failed = connection.execute(select(trial).where(chosen).order_by(trial.c.number).with_for_update()).all()
    rows = [row for row in failed if _is_readable(row)]
    ids = [row.id for row in rows]
    if afresh:
        drop_checkpoints(connection, ids)
    _wait_again(connection, ids, {one: resume_step(kept) for one, kept in checkpoints_of(connection, ids).items()})
    return [row.number for row in rows]


def _wait_again(connection: Connection, ids: Sequence[int], steps: dict[int, int]) -> None:
    """Make trials WAITING. steps: the last saved step of each trial that has one; the others restart at step 0."""
    cut_back(connection, {one: steps.get(one, -1) for one in ids})
    restarted = [one for one in ids if steps.get(one, -1) < 0]
    connection.execute(update(trial).where(trial.c.id.in_(ids)).values(**_AGAIN))
    connection.execute(update(trial).where(trial.c.id.in_(restarted)).values(**_AFRESH))
    if ids:
        stands = update(trial).where(trial.c.id == bindparam("b_id")).values(step=bindparam("b_step"))
        connection.execute(stands, [{"b_id": one, "b_step": max(0, steps.get(one, 0))} for one in ids])


def _is_readable(row: Row[Any]) -> bool:
    try:
        declared_trial(row)
    except StorageError:
        return False
    return True


def refuse_begun_again(connection: Connection, row: StudyRow) -> None:
    """Raise StudyChanged where a study has begun with other code since `row` was read: a claim would train by older."""
    created = connection.scalar(select(study.c.created).where(study.c.id == row.study_id))
    if created != row.created:
        raise StudyChanged(
            f"{row.study.name} of {row.campaign!r} has begun with other code since this process read it, and trials of "
            "two codes could not be compared: nothing was trained by this process; run its command again"
        )


def begin_again(connection: Connection, row: StudyRow, start: Start) -> StudyRow:
    """Let a study of which nothing is kept begin with another identity; the study as it stands then.

    All its trials wait then, and the launches that trained nothing are forgotten. Nothing is written where the identity
    is not that of `row` any more, where somebody trains a trial, or where anything was measured, saved or finished.
    """
    connection.execute(select(study.c.id).where(study.c.id == row.study_id).with_for_update())
    now = study_row(connection, row.campaign, row.study.name)
    expire_dead_workers(connection, row.study_id)
    # Every trial is locked before it is looked at, so whoever claims one meanwhile sees the other identity or is seen.
    rows = connection.execute(
        select(trial).where(trial.c.study_id == row.study_id).order_by(trial.c.id).with_for_update()
    ).all()
    same = (now.created, now.fingerprint, now.identity) == (row.created, row.fingerprint, row.identity)
    if not same or _is_begun(connection, row.study_id):
        return now
    ids = [one.id for one in rows if one.state == State.WAITING or _is_readable(one)]
    _wait_again(connection, ids, {})
    connection.execute(delete(launch).where(launch.c.study_id == row.study_id))
    connection.execute(update(study).where(study.c.id == row.study_id).values(**restarted(now, start)))
    for concluded in start.concluded:
        insert_conclusion(connection, row.campaign, concluded, row.study_id)
    return study_row(connection, row.campaign, row.study.name)


def begin_under(connection: Connection, row: StudyRow, mine: StudyNumerics) -> StudyNumerics:
    """The Numerics under which a study was begun; `mine` from now on, where nobody has begun to train it.

    Where they are not `mine`, nobody claims a trial until this is decided.
    """
    stands = newest_conclusion(connection, row.campaign, StudyNumerics, row.study_id)
    if stands == mine:
        return mine
    connection.execute(select(study.c.id).where(study.c.id == row.study_id).with_for_update())  # as `begin_again` does
    hold_off_claims(connection)
    stands = newest_conclusion(connection, row.campaign, StudyNumerics, row.study_id)
    ours = select(trial.c.numerics).where(trial.c.study_id == row.study_id)
    known = ours.where(trial.c.numerics.is_not(None)).order_by(trial.c.started, trial.c.number)
    first = connection.scalar(known.limit(1))
    if stands is not None and (first or connection.execute(ours.where(trial.c.state == State.RUNNING.value)).first()):
        return stands
    chosen = mine if first is None else StudyNumerics(Numerics.from_text(first).canonical)
    insert_conclusion(connection, row.campaign, chosen, row.study_id)
    return chosen


def _is_begun(connection: Connection, study_id: int) -> bool:
    """Whether anything of a study is kept or being trained, by the code that it began with."""
    measured = exists().where(measurement.c.trial_id == trial.c.id)
    saved = exists().where(checkpoint.c.trial_id == trial.c.id)
    ended = trial.c.state.in_([one.value for one in State if one.finished and one is not State.FAILED])
    held = and_(trial.c.state == State.RUNNING.value, trial.c.lease_until >= DatabaseTime())
    begun = or_(ended, held, trial.c.inherited_steps > 0, measured, saved)
    return connection.scalar(select(trial.c.id).where(trial.c.study_id == study_id, begun).limit(1)) is not None
