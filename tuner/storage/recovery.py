"""Trials that somebody left behind: leases of dead workers, and FAILED trials that shall be tried again."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, select, update

from tuner.errors import StorageError
from tuner.records import State
from tuner.storage.claims import NOBODY, resume_step
from tuner.storage.living import dead_workers
from tuner.storage.reading import checkpoints_of, declared_trial
from tuner.storage.recording import cut_back, drop_checkpoints, owned
from tuner.storage.schema import trial

_AGAIN = {"state": State.WAITING.value, "reason": "", "attempt": 0, "finished": None, **NOBODY}
_AFRESH = {"farthest": 0, "numerics": None, "inherited_steps": 0, "inherited_from": None, "started": None}


def expire_dead_workers(connection: Connection, study_id: int) -> int:
    """End the leases of workers that are known here to be dead; of any other worker the lease decides."""
    running = and_(trial.c.study_id == study_id, trial.c.state == State.RUNNING.value, trial.c.lease_until > 0.0)
    rows = connection.execute(select(trial.c.id, trial.c.fence, trial.c.worker).where(running)).all()
    dead = dead_workers({row.worker for row in rows if row.worker})
    keys = [{"b_id": row.id, "b_fence": row.fence} for row in rows if row.worker in dead]
    expire = update(trial).where(*owned()).values(lease_until=0.0)
    return sum(connection.execute(expire, key).rowcount for key in keys)


def retry_failed(connection: Connection, study_id: int, numbers: Collection[int] | None, *, afresh: bool) -> list[int]:
    """Make FAILED trials WAITING, with all their attempts; returns their numbers.

    They go on from their last saved state, or `afresh` as if they had never been claimed. A trial whose row cannot be
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
    """steps: the last saved step of those trials that have one; the others begin anew."""
    cut_back(connection, {one: steps.get(one, -1) for one in ids})
    anew = [one for one in ids if steps.get(one, -1) < 0]
    connection.execute(update(trial).where(trial.c.id.in_(ids)).values(**_AGAIN))
    connection.execute(update(trial).where(trial.c.id.in_(anew)).values(**_AFRESH))
    if ids:
        stands = update(trial).where(trial.c.id == bindparam("b_id")).values(step=bindparam("b_step"))
        connection.execute(stands, [{"b_id": one, "b_step": max(0, steps.get(one, 0))} for one in ids])


def _is_readable(row: Row[Any]) -> bool:
    try:
        declared_trial(row)
    except StorageError:
        return False
    return True
