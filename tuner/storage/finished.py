"""Writing down trials that were trained elsewhere: planned, measured and finished in one go."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, select, update

from tuner.errors import StorageError
from tuner.records import FinishedTrial, TrialUpdate
from tuner.storage.dialects import DatabaseTime
from tuner.storage.recording import write_measurements
from tuner.storage.schema import trial
from tuner.storage.studies import insert_trials

_END = (
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
        _END,
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
