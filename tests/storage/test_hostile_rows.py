"""Rows that nobody of us wrote, names that want to be more than names, a lock that is held, a clock that jumps."""

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.records import Checkpoint, Claim, Measurement, State, TrialUpdate
from tuner.storage.engine import parsed_url
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


def test_text_among_numbers_makes_one_trial_unreadable(tmp_path: Path, study: Study, make_trial) -> None:  # type: ignore[no-untyped-def]
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
                ledger.conclude("digits", "regime", {"number": count, "text": "x" * 20_000})
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
    now = time.time()
    for shift in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda shift=shift: now + shift)
        (claimed,) = claim(worker=f"host:1:{shift}")
        with ledger._database.reading() as connection:
            query = text("SELECT lease_until FROM trial WHERE id = :id")
            until = connection.scalar(query, {"id": claimed.trial_id})
        assert abs(until - now - 60.0) < 30.0
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
    pytest.importorskip("psycopg")
    parsed = parsed_url(url)
    assert parsed.password == "pa{ss:w@rd"
    with pytest.raises(StorageError) as raised:
        open_ledger(url)
    told = str(raised.value) + repr(parsed) + caplog.text
    assert "pa{ss" not in told
    assert "w@rd" not in told
    assert "***" in told
