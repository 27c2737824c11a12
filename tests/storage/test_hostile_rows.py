"""Rows that nobody of us wrote, names that want to be more than names, a lock that is held, a clock that jumps."""

import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Text, text

from tuner.budget.families import constant_then_decay
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import choice, log_uniform
from tuner.design.objective import minimize
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import StorageError, TunerError
from tuner.records import Checkpoint, Claim, Measurement, State, TrialUpdate
from tuner.records.conclusions import BudgetRecord, RegimeVerdict
from tuner.storage.engine import parsed_url
from tuner.storage.schema import metadata
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.verify import study_problems

Claiming = Callable[..., list[Claim]]

# One column of trial 1, and what somebody else wrote there.
CORRUPT = {
    "point": "{",
    "point that is a list": "[1, 2]",
    "point with NaN": '{"learning_rate": NaN}',
    "schedule": '{"name": "evil"}',
    "schedule too deep": "[" * 100_000,
    "pins": '["x"]',
}


@pytest.mark.parametrize("what", CORRUPT)
def test_one_corrupt_row_is_named_and_the_others_load(what: str, ledger: Ledger, study_id: int) -> None:
    column = what.split()[0]
    with ledger._database.writing() as connection:
        connection.execute(text(f"UPDATE trial SET {column} = :value WHERE number = 1"), {"value": CORRUPT[what]})
    records = ledger.trials(study_id)
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert [record.state for record in records] == [State.WAITING, State.FAILED, State.WAITING, State.WAITING]
    assert "trial 1 is unreadable in the Ledger" in records[1].reason
    with pytest.raises(StorageError, match="trial 1 is unreadable"):
        ledger.trial(study_id, 1)
    claimed = ledger.claim(study_id, worker="host:1:a", lease_seconds=60.0, max_trials=4)
    assert [claim.trial.number for claim in claimed] == [0, 2, 3]


def test_a_measurement_nobody_wrote_wins_nothing_and_is_named(ledger: Ledger, study_id: int, claim: Claiming) -> None:
    (claimed,) = claim()
    measured = [Measurement(step, "validation/loss", step / 10) for step in (10, 20, 30)]
    ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 30, measured)])
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE measurement SET value_kind = '-1e999' WHERE step = 10"))
        connection.execute(text("UPDATE measurement SET value = NULL WHERE step = 20"))
    values = ledger.measurements(study_id).values
    assert math.isnan(values[0])
    assert math.isnan(values[1])
    assert values[2] == 3.0
    assert ledger.unreadable_values(study_id) == [(0, "validation/loss", 10), (0, "validation/loss", 20)]


def test_text_among_numbers_makes_one_trial_unreadable(tmp_path: Path, study: Study, make_trial) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        row = ledger.start_study("digits", study, "f")
        ledger.plan_trials(row.study_id, [make_trial(number) for number in range(2)])
        (claimed,) = ledger.claim(row.study_id, worker="host:1:a", lease_seconds=60.0)
        ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 1, [Measurement(1, "validation/loss", 0.5)])])
        with ledger._database.writing() as connection:
            connection.execute(text("UPDATE measurement SET value = 'best'"))
            connection.execute(text("UPDATE trial SET seed = 'x' WHERE number = 1"))
        assert math.isnan(ledger.measurements(row.study_id).values[0])
        assert ledger.unreadable_values(row.study_id) == [(0, "validation/loss", 1)]
        assert "seed: a whole number was stored, got 'x'" in ledger.trials(row.study_id)[1].reason


DAMAGE = {
    "text": "x\x1b\n",
    "bytes": b"\xff\xfe",
    "negative": -7,
    "huge": 2**63 - 1,
    "deep": "[" * 100_000,
    "no UTF-8": None,
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A database with a row in each table."""
    file = tmp_path_factory.mktemp("filled") / "tuner.sqlite"
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), act=choice("a", "b"))
    declared = Study(
        "round-1", "round", "?", space.hyperparameters, space.fixed, StepBudget(20, 10), 2, minimize("validation/loss"),
        None, "sgd", constant_then_decay(), 0, 8, 1, round=1,
    )  # fmt: skip
    schedule = declared.schedule.schedule(20)
    with open_ledger(str(file)) as ledger:
        point = Point.of({"learning_rate": 0.01, "act": "a"})
        trials = [Trial(number, point, 1, 2, schedule, "quasi-random 0") for number in range(2)]
        row = ledger.start_study("digits", declared, "f", identity={}, trials=trials)
        ledger.add_launch(row.study_id, command="c", revision={}, environment={}, worker="w")
        ledger.conclude("digits", BudgetRecord(), row.study_id)
        (claimed,) = ledger.claim(row.study_id, worker="h:1:a", lease_seconds=60.0)
        kept = Checkpoint("latest", 10, "digits/a.pt", "0" * 64, 1)
        measured = [Measurement(10, "validation/loss", 0.5)]
        ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 10, measured, [kept])])
    return file


_ALWAYS = ("trial", "checkpoint", "measurement")
_TABLES = [
    pytest.param(table.name, marks=() if table.name in _ALWAYS else pytest.mark.slow)
    for table in metadata.sorted_tables
]


@pytest.mark.parametrize("table", _TABLES)
def test_no_cell_of_any_table_is_more_than_an_error_of_ours(table: str, filled: Path, tmp_path: Path) -> None:
    """What a command reads answers, or raises an error that is told; the other trial is read all the same."""
    for column in metadata.tables[table].columns:
        is_text = isinstance(column.type, Text)
        for name in ("bytes", "deep", "no UTF-8") if is_text else ("text", "negative", "huge"):
            value = DAMAGE[name]
            file = tmp_path / f"{column.name}-{name}.sqlite"
            shutil.copy(filled, file)
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("PRAGMA ignore_check_constraints = 1")
                cell = "CAST(x'ff41' AS TEXT)" if value is None else "?"
                try:
                    first = f"rowid IN (SELECT rowid FROM {table} LIMIT 1)" if table != "measurement" else "1"
                    connection.execute(
                        f"UPDATE {table} SET {column.name} = {cell} WHERE {first}", [value] * cell.count("?")
                    )
                except sqlite3.Error:
                    continue  # SQLite itself refuses it
            told = _error_of(file, table)
            assert len(told) < 1000, (column.name, name)
            one_row_alone = table in ("trial", "measurement", "metric", "launch", "checkpoint")
            assert not one_row_alone or not told, (column.name, name)


def _error_of(file: Path, table: str) -> str:
    """What is told of a database that cannot be read; "" where all of it can."""
    try:
        _read_everything(file, table)
    except TunerError as error:
        return str(error)
    return ""


def _read_everything(file: Path, table: str) -> None:
    with open_ledger(str(file), create=False) as ledger:
        for campaign in ledger.campaigns():
            for row in ledger.studies(campaign):
                records = ledger.trials(row.study_id)
                if table in ("trial", "checkpoint", "checkpoint_file"):
                    assert [one.number for one in records if one.schedule is not None][-1:] == [1]
                ledger.measurements(row.study_id)
                ledger.state_counts(row.study_id)
                ledger.launches(row.study_id)
                ledger.conclusion(campaign, BudgetRecord, row.study_id)
                study_problems(ledger, row, file.parent, "digits/round-1")
                ledger.fences_by_folder()
                ledger.claim(row.study_id, worker="h:1:b", lease_seconds=60.0, max_trials=2)


@pytest.mark.parametrize("path", ["../../up.pt", "/etc/hostname", "a/../../../up.pt", "link/up.pt"])
def test_a_checkpoint_outside_its_folder_is_named_and_left_alone(
    path: str, ledger: Ledger, study_id: int, claim: Claiming, tmp_path: Path
) -> None:
    root = tmp_path / "root" / "checkpoints"
    root.mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "up.pt").write_bytes(b"x")
    (claimed,) = claim()
    kept = Checkpoint("latest", 1, path, "0" * 64, 1)
    ledger.record([TrialUpdate(claimed.trial_id, claimed.fence, 1, checkpoints=[kept])])
    row = ledger.study("digits", "round-1")
    assert any("lies outside" in problem.text for problem in study_problems(ledger, row, root, "digits/round-1"))
    assert (tmp_path / "up.pt").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["x" * 100_000, "a\0b", "'; DROP TABLE trial; --", "NA", "../../up", "\u202egnp.exe"])
def test_a_name_is_kept_to_the_letter_or_refused(name: str, ledger: Ledger, study: Study) -> None:
    if len(name) > 200 or "\0" in name:
        with pytest.raises(StorageError, match="1 to 200 characters without NUL"):
            ledger.start_study(name, study, "f")
    else:
        ledger.start_study(name, study, "f")
        assert name in ledger.campaigns()
        assert ledger.study(name, study.name).study == study


def test_others_wait_while_somebody_holds_the_lock(
    tmp_path: Path, study: Study, make_trial: Callable[..., object]
) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        row = ledger.start_study("digits", study, "f")
        ledger.plan_trials(row.study_id, [make_trial(number) for number in range(4)])  # type: ignore[misc]
        holder = sqlite3.connect(tmp_path / "tuner.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        found = []

        def take(worker: int) -> None:
            found.extend(ledger.claim(row.study_id, worker=f"host:{worker}:a", lease_seconds=60.0))

        workers = [threading.Thread(target=take, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        assert len(ledger.trials(row.study_id)) == 4, "who reads does not wait"
        workers[0].join(1.0)  # time enough to give up; it may wait for a minute
        assert [worker.is_alive() for worker in workers] == [True] * 4
        assert found == []
        holder.execute("COMMIT")
        for worker in workers:
            worker.join()
        holder.close()
        assert sorted(claimed.trial.number for claimed in found) == [0, 1, 2, 3]


def test_a_backup_in_the_midst_of_writing_is_whole(tmp_path: Path, study: Study) -> None:
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        ledger.start_study("digits", study, "f")
        through = threading.Event()
        count = 0

        def write() -> None:
            nonlocal count
            while not through.is_set():
                ledger.conclude("digits", RegimeVerdict(str(count), "x" * 20_000))
                count += 1

        writer = threading.Thread(target=write)
        writer.start()
        for turn in range(5):
            before = count
            ledger.backup(tmp_path / f"copy-{turn}.sqlite")
            with sqlite3.connect(tmp_path / f"copy-{turn}.sqlite") as copy:
                assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                ((kept,),) = copy.execute("SELECT count(*) FROM conclusion").fetchall()
            copy.close()
            assert kept >= before, "what was written before the backup began is in it"
        through.set()
        writer.join()


def test_leases_are_in_the_time_of_the_database_alone(
    ledger: Ledger, study_id: int, claim: Claiming, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time
    now = clock()
    for shift in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda shift=shift: now + shift)
        (claimed,) = claim(worker=f"host:1:{shift}")
        with ledger._database.reading() as connection:
            query = text("SELECT lease_until FROM trial WHERE id = :id")
            until = connection.scalar(query, {"id": claimed.trial_id})
        assert now - 1.0 < until - 60.0 < clock() + 1.0
        assert ledger.renew([claimed]) == [claimed]
    assert [one.trial.number for one in claim(4)] == [2, 3], "the trials of the others are not taken"


SECRET = "pa{ss:w%40rd"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/tuner?connect_timeout=1",
        f"postgresql://127.0.0.1:1/tuner?user=u&password={SECRET}&connect_timeout=1",
        f"postgresql://:{SECRET}@127.0.0.1:1/tuner?connect_timeout=1",
    ],
)
def test_a_secret_in_a_url_is_shown_nowhere(url: str, caplog: pytest.LogCaptureFixture) -> None:
    parsed = parsed_url(url)
    assert parsed.password == "pa{ss:w@rd"
    with pytest.raises(StorageError) as raised:
        open_ledger(url)
    told = str(raised.value) + repr(parsed) + caplog.text
    assert "pa{ss" not in told
    assert "w@rd" not in told
    assert "***" in told
