"""Whatever workers do in whatever order, a trial has one owner; and planted bugs are found."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import update
from storage.machine import TRIALS, Ownership

from tuner.records import State
from tuner.storage import claims, recording
from tuner.storage.reading import declared_trial
from tuner.storage.schema import trial
from tuner.storage.store import open_ledger

QUICK, PLANTED, LONG = (50, 30), (400, 40), (2000, 60)  # examples and steps; a planted bug ends the search
MEMORY = Path("/dev/shm")


def check(ledger, study, make_trial, examples, steps, phases=(Phase.generate, Phase.shrink)):
    given = {"ledger": ledger, "study": replace(study, num_trials=TRIALS), "make_trial": staticmethod(make_trial)}
    machine = type("Machine", (Ownership,), given)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_trial_has_one_owner_in_any_order_of_events(ledger, study, make_trial):
    check(ledger, study, make_trial, *QUICK)


@pytest.mark.slow
@pytest.mark.timeout(18000)
def test_a_trial_has_one_owner_in_many_long_orders_of_events(ledger, study, make_trial):
    check(ledger, study, make_trial, *LONG)


def no_fence(statement):
    """The same statement without its guard, as a batch."""
    assert "trial.fence = ?" in statement.sql
    return replace(statement, sql=statement.sql.replace("trial.fence = ?", "trial.fence >= ?"))


def no_fence_on_finish(patch):
    whole = recording._batches
    patch.setattr(recording, "_batches", lambda dialect: replace(whole(dialect), end=no_fence(whole(dialect).end)))


def no_fence_on_heartbeat(patch):
    patch.setattr(claims, "_under_fence", lambda keys: (trial.c.id.in_([trial_id for trial_id, _ in keys]),))


def no_attempt_cap(patch):
    every = lambda connection, rows, kept, most: {row.id: declared_trial(row) for row in rows}  # noqa: E731
    patch.setattr(claims, "_worth_trying", every)


def a_fence_that_does_not_grow(patch):
    patch.setattr(claims, "_TAKE", claims._TAKE.values(fence=trial.c.fence))


def no_cut_back(patch):
    patch.setattr(claims, "cut_back", lambda connection, steps: None)


def leases_that_never_end(patch):
    patch.setattr(claims, "_FREE", claims._FREE[1:])


def a_release_by_anybody(patch):
    def release(connection, held, *, count_attempt, reason=""):
        for one in held:
            waiting = update(trial).where(trial.c.id == one.trial_id).values(state=State.WAITING.value, **claims.NOBODY)
            connection.execute(waiting)
        return len(held)

    patch.setattr(claims, "release_trials", release)


BUGS = [
    no_fence_on_finish, no_fence_on_heartbeat, no_attempt_cap, a_fence_that_does_not_grow, no_cut_back,
    leases_that_never_end, a_release_by_anybody,
]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug, study, make_trial, monkeypatch):
    folder = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
    with open_ledger(f"{folder}/tuner.sqlite") as ledger:
        bug(monkeypatch)
        with pytest.raises((AssertionError, ExceptionGroup)):
            check(ledger, study, make_trial, *PLANTED, phases=(Phase.generate,))
    shutil.rmtree(folder)
