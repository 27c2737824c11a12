"""Trials that somebody left behind: leases of dead workers, and finished trials that shall be trained again."""

import os
import socket
from collections.abc import Collection

from sqlalchemy import Connection, and_, select, update

from tuner.errors import StorageError
from tuner.records import State
from tuner.storage.claims import NOBODY
from tuner.storage.recording import cut_back, drop_checkpoints, owned
from tuner.storage.schema import trial


def expire_dead_workers(connection: Connection, study_id: int) -> int:
    """End the leases of workers on this host whose process is gone."""
    running = and_(trial.c.study_id == study_id, trial.c.state == State.RUNNING.value, trial.c.lease_until > 0.0)
    rows = connection.execute(select(trial.c.id, trial.c.fence, trial.c.worker).where(running))
    dead = [{"b_id": row.id, "b_fence": row.fence} for row in rows if _is_dead_here(row.worker)]
    expire = update(trial).where(*owned()).values(lease_until=0.0)
    return sum(connection.execute(expire, key).rowcount for key in dead)


def reset_trials(
    connection: Connection, study_id: int, states: Collection[State], numbers: Collection[int] | None
) -> int:
    """Make finished trials WAITING as if they had never been claimed; only their fence goes on growing."""
    unfinished = sorted(state.value for state in states if not state.finished)
    if unfinished:
        raise StorageError(f"only finished trials can be reset, got {', '.join(unfinished)}; release them instead")
    chosen = and_(trial.c.study_id == study_id, trial.c.state.in_([state.value for state in states]))
    if numbers is not None:
        chosen = and_(chosen, trial.c.number.in_(list(numbers)))
    found = connection.scalars(select(trial.c.id).where(chosen).with_for_update()).all()
    drop_checkpoints(connection, found)
    cut_back(connection, dict.fromkeys(found, -1))
    fresh = (
        update(trial)
        .where(trial.c.id.in_(found))
        .values(
            state=State.WAITING.value,
            reason="",
            attempt=0,
            step=0,
            numerics=None,
            inherited_steps=0,
            inherited_from=None,
            started=None,
            finished=None,
            **NOBODY,
        )
    )
    connection.execute(fresh)
    return len(found)


def _is_dead_here(worker: str | None) -> bool:
    """Whether a worker of this host has no process any more; of other hosts nothing is known."""
    host, _, rest = (worker or "").rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
