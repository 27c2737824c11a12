"""Databases that older versions wrote, as they lay on disk, are read whole and go on (I15)."""

import math
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect

from tuner.records import Checkpoint, Claim, GroupRecord, Inherited, Numerics, PrefixKey, State, TrialUpdate
from tuner.records.conclusions import (
    Adoption,
    BudgetRecord,
    CurveStudies,
    FinalScore,
    FiniteValidation,
    FusionChoices,
    RegimeVerdict,
    Retention,
    SecondTry,
    StudyProfile,
    SweepConclusion,
)
from tuner.records.sweep_outcomes import Fitted
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


def test_the_groups_of_a_trial_are_kept_until_others_come(
    ledger: Ledger, study_id: int, claim: Callable[..., list[Claim]]
) -> None:
    (mine,) = claim()
    groups = (GroupRecord("head.*", 0.1, 0.0, 12, ("head.weight", "naïve|name")), GroupRecord("rest", 1.0, 1.0, 2, ()))
    assert ledger.trial(study_id, mine.trial.number).groups == ()
    ledger.record([TrialUpdate(mine.trial_id, mine.fence, 10, groups=groups)])
    ledger.record([TrialUpdate(mine.trial_id, mine.fence, 20)])
    assert ledger.trial(study_id, mine.trial.number).groups == groups
    ledger.record([TrialUpdate(mine.trial_id, mine.fence, 20, groups=())])
    assert ledger.trial(study_id, mine.trial.number).groups == ()


@pytest.fixture
def before_records(tmp_path: Path) -> Iterator[Ledger]:
    """A Ledger that tuner 0.1 wrote when conclusions were plain JSON: a sweep, two rounds, an adoption, a score."""
    connection = sqlite3.connect(tmp_path / "old.sqlite")
    connection.executescript((STORED / "version_3.sql").read_text(encoding="utf-8"))
    connection.close()
    with open_ledger(str(tmp_path / "old.sqlite"), create=False) as ledger:
        yield ledger


def test_every_conclusion_of_before_is_read_as_a_record(before_records: Ledger) -> None:
    ledger = before_records
    studies = {row.study.name: row for row in ledger.studies("tiny")}
    first, contest = studies["round-1"].study_id, studies["adopt-round-1-0-over-round-1-1"].study_id
    assert ledger.conclusion("tiny", RegimeVerdict) == RegimeVerdict("undecided", "undecided")
    sweep = SweepConclusion("sweep-1", 2.0, Fitted(0.1, 21, 22, 100, seed_steps=(22,)))
    assert ledger.conclusion("tiny", SweepConclusion) == sweep
    score = ledger.conclusion("tiny", FinalScore)
    assert score is not None
    assert (score.study, score.trial, score.step, score.examples) == ("round-2", 0, 44, 40)
    assert score.metrics == {"test/loss": 0.09915910801271188, "test/error_rate": 0.075}
    assert ledger.conclusion("tiny", CurveStudies) == CurveStudies(("round-1", "round-2"))
    assert ledger.conclusion("tiny", SecondTry, first) == SecondTry((1,))
    assert ledger.conclusion("tiny", Retention, first) == Retention(("latest", "trunk", "best"))
    assert ledger.conclusion("tiny", StudyProfile, first) == StudyProfile("exact")
    assert ledger.conclusion("tiny", FiniteValidation, first) == FiniteValidation("cb6d696fa9da044d", "validation/loss")
    fused = ledger.conclusion("tiny", FusionChoices, first)
    assert fused is not None
    (choice,) = fused.by_group.values()
    assert (choice.trials, choice.self_check, choice.ways["relu"]) == (2, "identical", "rule")
    assert Numerics.from_text(choice.numerics).values["device"] == "cpu"
    adopted = ledger.conclusion("tiny", Adoption, contest)
    assert adopted is not None
    assert (adopted.verdict, adopted.gain, adopted.level) == ("keep", -0.3438712821694026, 0.8)
    assert [problem for row in studies.values() for problem in ledger.unreadable_rows(row)] == []


def test_budgets_of_before_keep_their_sentence_source_and_basis(before_records: Ledger) -> None:
    kept = {
        row.study.name: before_records.conclusion("tiny", BudgetRecord, row.study_id) or BudgetRecord()
        for row in before_records.studies("tiny")
    }
    assert {name: (one.origin.sentence, one.source) for name, one in kept.items()} == {
        "sweep-1-grid": ("not recorded when the study was started", None),
        "round-1": ("2 times the 22 steps to fit that the sweep found (A18)", "sweep-1-grid"),
        "round-2": ("best steps of round-1 are inconclusive: the same 44 steps", "round-1"),
        "adopt-round-1-0-over-round-1-1": ("as round-1", None),
    }
    assert kept["round-1"].basis["batch_size"] == "8"
    assert len(kept["round-1"].basis) == 10


def test_trials_and_numerics_of_before_are_read(before_records: Ledger) -> None:
    rows = {row.study.name: row.study_id for row in before_records.studies("tiny")}
    marked, whole, *others = before_records.trials(rows["round-2"])
    assert [record.exact for record in (marked, whole, *others)] == [False, True, True, True]
    assert marked.numerics is not None
    assert whole.numerics is not None
    assert marked.numerics.values == whole.numerics.values
    assert marked.numerics != whole.numerics
    planned = whole.readable_trial()
    assert (planned.number, planned.seed, planned.pins) == (1, 7745699166224519267, (35,))
    assert (whole.origin, len(planned.schedule)) == ("round-1 trial 1, fresh seeds", 44)
    assert [kept.kind for kept in whole.checkpoints if kept.prefix is not None] != []
    assert {kept.prefix.numerics for kept in whole.checkpoints if kept.prefix is not None} == {whole.numerics}
    assert {record.state for name in rows for record in before_records.trials(rows[name])} == {State.COMPLETE}
    assert {record.groups for record in before_records.trials(rows["round-1"])} == {()}, "they were not recorded then"
