"""Databases that older versions wrote, as they lay on disk, are read whole and go on (I15)."""

import math
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect

from tuner.records import Checkpoint, Claim, Inherited, Numerics, PrefixKey, State, TrialUpdate
from tuner.storage.migrations import newest
from tuner.storage.store import Ledger, open_ledger

STORED = Path(__file__).with_name("databases")


@pytest.fixture
def migrated(tmp_path: Path) -> Ledger:
    """A Ledger that version 1 wrote: two trials of 100 steps, one complete, one stopped at step 50."""
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    connection.executescript((STORED / "version_1.sql").read_text(encoding="utf-8"))
    connection.close()
    return open_ledger(str(tmp_path / "old.sqlite"))


def test_a_database_of_version_1_is_read_whole(migrated: Ledger) -> None:
    with migrated as ledger:
        row = ledger.study("digits", "round-1")
        assert (row.fingerprint, row.study.budget.evaluation_steps) == ("fingerprint of version 1", (50, 100))
        complete, stopped = ledger.trials(row.study_id)
        assert (complete.state, complete.step, complete.seed) == (State.COMPLETE, 100, 11)
        assert (stopped.state, stopped.step, stopped.seed) == (State.WAITING, 50, 12)
        assert [kept.step for kept in stopped.checkpoints] == [50, 50]
        assert complete.inherited == stopped.inherited == Inherited()
        curve = ledger.measured_until(complete.trial_id, 100)
        metrics = ("training/error_rate", "validation/loss")
        assert [(m.step, m.metric) for m in curve] == [(step, metric) for step in (50, 100) for metric in metrics]
        assert [m.value for m in curve if m.metric == "validation/loss"] == [0.5, 0.4]
        assert math.isnan(curve[2].value)
        assert ledger.prefixes(["anything"]) == {}


def test_a_study_of_version_1_goes_on(migrated: Ledger) -> None:
    with migrated as ledger:
        row = ledger.study("digits", "round-1")
        assert ledger.start_study("digits", row.study, row.fingerprint) == row
        (claim,) = ledger.claim(row.study_id, worker="host:2:b", lease_seconds=60.0)
        assert (claim.trial.number, claim.trial.pins, claim.inherited) == (1, (), Inherited())
        trunk = Checkpoint("trunk", 80, "trunk.pt", "digest", 8, None, "", PrefixKey("base", "path", Numerics.of({})))
        ledger.record([TrialUpdate(claim.trial_id, claim.fence, 80, checkpoints=[trunk])])
        assert [prefix.checkpoint for prefix in ledger.prefixes(["base", "other"])["base"]] == [trunk]


def test_what_was_migrated_is_what_is_created(migrated: Ledger, tmp_path: Path) -> None:
    with migrated as old, open_ledger(str(tmp_path / "new.sqlite")) as new:
        assert columns(old) == columns(new)
        with old._database.reading() as connection:
            version = connection.exec_driver_sql("SELECT max(version) FROM schema_version").scalar()
    assert version == newest()


KILLED = """
import os, sys
from tuner.storage import migrations
from tuner.storage.store import open_ledger

whole = migrations.MIGRATIONS[-1]

def deadly(connection):
    if sys.argv[2] == "after":
        whole(connection)
    os.kill(os.getpid(), 9)

migrations.MIGRATIONS = (*migrations.MIGRATIONS[:-1], deadly)
open_ledger(sys.argv[1])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_migration_that_is_killed_leaves_the_old_version_and_the_next_start_migrates(
    moment: str, tmp_path: Path
) -> None:
    file = tmp_path / "old.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript((STORED / "version_1.sql").read_text(encoding="utf-8"))
    connection.close()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(file), moment], check=False)
    assert ended.returncode == -signal.SIGKILL
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT max(version) FROM schema_version").fetchone() == (newest() - 1,)
    connection.close()
    with open_ledger(str(file)) as ledger, open_ledger(str(tmp_path / "new.sqlite")) as new:
        assert columns(ledger) == columns(new)
        assert len(ledger.trials(ledger.study("digits", "round-1").study_id)) == 2


def columns(ledger: Ledger) -> dict[str, object]:
    """Tables with the names, types and defaults of their columns, and with their indexes."""
    with ledger._database.reading() as connection:
        inspected = inspect(connection)
        return {
            table: (
                sorted((c["name"], str(c["type"]), c["nullable"], c["default"]) for c in inspected.get_columns(table)),
                sorted((index["name"], tuple(index["column_names"])) for index in inspected.get_indexes(table)),
            )
            for table in inspected.get_table_names()
        }


def test_pins_and_what_was_taken_over_are_kept(
    ledger: Ledger, study_id: int, claim: Callable[..., list[Claim]]
) -> None:
    (mine,) = claim()
    assert mine.trial.pins == ()
    ledger.record([TrialUpdate(mine.trial_id, mine.fence, 10, inherited=Inherited(10, 7))])
    ledger.record([TrialUpdate(mine.trial_id, mine.fence, 20)])
    assert ledger.trial(study_id, mine.trial.number).inherited == Inherited(10, 7)
    ledger.record([TrialUpdate(mine.trial_id, mine.fence, 20, inherited=Inherited())])
    assert ledger.trial(study_id, mine.trial.number).inherited == Inherited()
