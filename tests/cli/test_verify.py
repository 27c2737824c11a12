"""`tuner verify` finds every broken promise, and repairs what is safe; `tuner backup` copies the records."""

import json
import os
import re
import shlex
import sqlite3
import subprocess

import pytest
from support.study_files import write_study

from tuner.storage.store import open_ledger


@pytest.fixture
def launched(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=2)).code == 0
    return tmp_path / "runs"


def change(folder, statement):
    with sqlite3.connect(folder / "tuner.sqlite") as connection:
        connection.execute(statement)
    connection.close()


def truncate(folder):
    path = next(folder.rglob("latest-*.pt"))
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder):
    path = next(folder.rglob("best-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


BREAKS = {
    "truncated": (truncate, "were recorded"),
    "flipped": (flip, "is damaged: its sha256 is not the recorded one"),
    "missing": (lambda folder: next(folder.rglob("latest-*.pt")).unlink(), "is missing"),
    "outside": (
        lambda folder: change(folder, "update checkpoint_file set path = '../' || path where id = 1"),
        "lies outside the checkpoint folder",
    ),
    "gap": (
        lambda folder: change(folder, "delete from measurement where trial_id = 1 and step = 30 and metric_id = 1"),
        "is missing at step 30",
    ),
    "extra": (
        lambda folder: change(folder, "update measurement set step = 31 where trial_id = 1 and step = 30"),
        "was measured at step 31, where none is due",
    ),
    "short": (lambda folder: change(folder, "update trial set step = 50 where id = 1"), "complete at step 50"),
    "unreadable": (lambda folder: change(folder, "update trial set point = '{' where id = 1"), "unreadable"),
    "no last": (
        lambda folder: change(folder, "delete from checkpoint where kind = 'latest' and trial_id = 1"),
        "complete without its last checkpoint",
    ),
    "no reason": (
        lambda folder: change(folder, "update trial set state = 'failed', reason = '' where id = 1"),
        "is failed and does not say why",
    ),
    "another best": (
        lambda folder: change(folder, "update checkpoint set value = 0.0001 where kind = 'best' and trial_id = 1"),
        "and the best checkpoints are 0.0001 at step",
    ),
    "no best": (
        lambda folder: change(folder, "delete from checkpoint where kind = 'best' and trial_id = 1"),
        "and the best checkpoints are none",
    ),
    "a value of strangers": (
        lambda folder: change(folder, "update measurement set value_kind = 'x' where trial_id = 1 and step = 30"),
        "at step 30 is no value that was ever written",
    ),
    "a lost trial": (lambda folder: forget(folder), "2 trials were planned and 1 are there"),
    "a lost reference": (
        lambda folder: change(folder, "delete from checkpoint_file where id = 1"),
        "a row of checkpoint points to a row of checkpoint_file that is not there",
    ),
}


def forget(folder):
    for table, column in (("measurement", "trial_id"), ("checkpoint", "trial_id"), ("trial", "id")):
        change(folder, f"delete from {table} where {column} = 2")


def test_a_whole_study_is_said_to_be_whole(tuner, launched):
    run = tuner("verify", "tiny")
    assert run.code == 0, run.out
    assert "every file, digest, curve and state is as recorded" in run.err


@pytest.mark.parametrize("name", BREAKS)
def test_every_broken_promise_is_found(name, tuner, launched):
    broken, expected = BREAKS[name]
    broken(launched)
    run = tuner("verify", "tiny", "-f", "json")
    assert run.code == 3, run.err
    assert any(expected in row["problem"] for row in json.loads(run.out)), run.out
    assert tuner("verify", "tiny", "--repair").code == 3, "nothing of this is safe to repair"


def test_a_trial_that_diverged_where_an_evaluation_was_due_keeps_its_promises(tuner, tmp_path):
    # 20 evaluations: one after each step. Steps of 1e18 in 146 weights: their squares soon add up to more than 3e38.
    assert tuner("launch", write_study(tmp_path, trials=1, steps=20, low=0.9e18, high=1e18)).code == 0
    (row,) = json.loads(tuner("trials", "tiny", "-f", "json").out)
    assert row["reason"].startswith(f"diverged at step {row['steps']}: the norm of the weights")
    assert row["best_step"] >= 1, "it was evaluated before"
    run = tuner("verify", "tiny")
    assert run.code == 0, run.out


def test_clipped_updates_that_an_older_version_did_not_count_are_no_problem_but_a_gap_is(tuner, tmp_path):
    space = ("dropout=uniform", "clip_norm=0.5, dropout=uniform")
    assert tuner("launch", write_study(tmp_path, trials=1, replace=[space])).code == 0
    counts = "metric_id in (select id from metric where name in ('batch/clipped_share', 'batch/largest_gradient_norm'))"
    change(tmp_path / "runs", f"delete from measurement where {counts} and step <= 30")
    run = tuner("verify", "tiny")
    assert run.code == 0, run.out
    change(tmp_path / "runs", f"delete from measurement where {counts} and step = 45")
    run = tuner("verify", "tiny", "-f", "json")
    assert run.code == 3
    assert "batch/clipped_share is missing at step 45" in run.out


def conclude(folder, kind, data):
    change(
        folder,
        "insert into conclusion (campaign_id, study_id, kind, data, created) "
        f"select campaign_id, id, '{kind}', '{data}', 0.0 from study",
    )


def test_a_damaged_record_of_retention_is_named_and_the_rest_is_still_checked(tuner, launched):
    """Checkpoints were deleted to save room, and what says so cannot be read: that alone is told, and no checkpoint."""
    change(launched, "delete from checkpoint where kind = 'latest' and trial_id = 1")
    change(launched, "delete from checkpoint_file where id not in (select file_id from checkpoint)")
    conclude(launched, "retention", "{")
    run = tuner("verify", "tiny", "-f", "json")
    assert run.code == 3, run.err
    told = [row["problem"] for row in json.loads(run.out)]
    assert any("('retention') is unreadable in the Ledger: no JSON" in one for one in told), told
    assert not any("without its last checkpoint" in one for one in told)
    flip(launched)
    assert "is damaged: its sha256 is not the recorded one" in tuner("verify", "tiny", "-f", "json").out


def test_a_damaged_record_that_only_saves_time_stops_no_launch(tuner, tmp_path, caplog):
    study = write_study(tmp_path, trials=2)
    assert tuner("launch", study, "--fuse", "2").code == 0
    folder = tmp_path / "runs"
    for kind in ("fusion", "finite validation"):
        change(folder, f"update conclusion set data = '{{' where kind = '{kind}'")
    run = tuner("launch", write_study(tmp_path, trials=4), "--fuse", "2")
    assert run.code == 0, run.err
    for kind in ("fusion", "finite validation"):
        assert f"({kind}) is unreadable in the Ledger" in caplog.text
    assert "found out again when it is needed" in caplog.text
    caplog.clear()
    assert tuner("launch", write_study(tmp_path, trials=6), "--fuse", "2").code == 0
    assert "unreadable" not in caplog.text, "both were made again"
    assert tuner("report", "tiny").code == 0


def test_a_stray_file_is_found_and_moved_to_the_trash_on_request(tuner, launched):
    folder = next(launched.rglob("trial-00001"))
    (folder / "step-999.pt").write_bytes(b"x")
    run = tuner("verify", "tiny", "-f", "json")
    assert run.code == 3
    (row,) = json.loads(run.out)
    assert (row["kind"], row["trial"]) == ("stray", None)
    repaired = tuner("verify", "tiny", "--repair")
    assert repaired.code == 0, repaired.out
    assert not (folder / "step-999.pt").exists()
    listed, moved = repaired.err.index(str(folder / "step-999.pt")), repaired.err.index("1 file moved to")
    assert listed < moved
    (back,) = re.findall(r"to get them back: +(.*)", repaired.err)
    subprocess.run(shlex.split(back), check=True)
    assert (folder / "step-999.pt").read_bytes() == b"x"
    assert tuner("verify", "tiny", "--repair").code == 0
    assert tuner("verify", "tiny").code == 0, "the trash is no stray"


def test_a_backup_holds_the_records_and_is_private(tuner, launched, tmp_path):
    assert tuner("backup", "copy.sqlite").code == 0
    assert os.stat(tmp_path / "copy.sqlite").st_mode & 0o077 == 0
    with open_ledger(str(tmp_path / "copy.sqlite"), create=False) as copy:
        assert copy.campaigns() == ["tiny"]
    again = tuner("backup", "copy.sqlite")
    assert again.code == 2
    assert "exists; give the backup a name of its own" in again.err


def test_a_full_disk_pauses_and_the_same_command_goes_on(tuner, tmp_path, monkeypatch):
    from tuner import failpoints

    study = write_study(tmp_path, trials=2)
    for fault in ("ck-written@2=enospc", "ck-synced@1=eio"):
        failpoints.arm(fault)
        run = tuner("launch", study)
        failpoints.disarm()
        assert run.code == 75, run.err
        assert "no trial is to blame" in run.err
        assert "run the same command again" in run.err
        states = {row["state"] for row in json.loads(tuner("trials", "tiny", "-f", "json").out)}
        assert "failed" not in states
    assert tuner("launch", study).code == 0
    assert tuner("verify", "tiny").code == 0
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        assert connection.execute("select max(attempt) from trial").fetchone() == (1,)
    connection.close()
    assert [row["state"] for row in json.loads(tuner("trials", "tiny", "-f", "json").out)] == ["complete"] * 2


def test_names_of_people_cannot_leave_the_checkpoint_folder(tuner, tmp_path):
    name = "../../up & <script>alert(1)</script>"
    study = write_study(tmp_path, trials=1, more=f"name={name!r},")
    before = set(tmp_path.parent.iterdir())
    assert tuner("launch", study).code == 0
    assert set(tmp_path.parent.iterdir()) == before
    assert all(path.is_relative_to(tmp_path / "runs") for path in tmp_path.rglob("*.pt"))


def test_a_damaged_file_of_a_group_is_told_for_each_of_its_trials_and_a_stray_one_is_deleted(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=3), "--fuse", "3").code == 0
    path = next((tmp_path / "runs").rglob("group-of-trial-00000/latest-*.pt"))
    stray = path.with_name("latest-000000099-1.pt")
    stray.write_bytes(path.read_bytes())
    assert stray.name in tuner("verify", "tiny", "-f", "json").out
    assert tuner("verify", "tiny", "--repair").code == 0
    assert not stray.exists()
    assert tuner("verify", "tiny").code == 0
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    run = tuner("verify", "tiny", "-f", "json")
    assert run.code == 3
    told = [problem for problem in json.loads(run.out) if "sha256" in json.dumps(problem)]
    assert sorted(problem["trial"] for problem in told) == [0, 1, 2]


STRANGE_POINTS = {
    "text for a number": ('\'{"learning_rate": "fast", "dropout": 0.1}\'', "'learning_rate' is 'fast', no number"),
    "outside the range": (
        '\'{"learning_rate": -7, "dropout": 0.1}\'',
        "'learning_rate' is -7, outside 0.001 to 0.1",
    ),
    "an empty point": ("'{}'", "its point has no 'learning_rate', and nothing else"),
    "a name less": ("'{\"learning_rate\": 0.01}'", "its point has no 'dropout'"),
    "a name more": (
        '\'{"learning_rate": 0.01, "dropout": 0.1, "x": 1}\'',
        "its point has 'x', which the study does not declare",
    ),
    "a truth for a number": ('\'{"learning_rate": true, "dropout": 0.1}\'', "'learning_rate' is True, no number"),
}


def test_points_and_budgets_are_held_against_the_declaration_and_stop_nobody(tuner, launched):
    before = sqlite3.connect(launched / "tuner.sqlite").execute("select declaration from study").fetchone()[0]
    (point,) = sqlite3.connect(launched / "tuner.sqlite").execute("select point from trial where id = 1").fetchone()
    for name, (value, expected) in STRANGE_POINTS.items():
        change(launched, f"update trial set point = {value} where id = 1")
        run = tuner("verify", "tiny", "-f", "json")
        assert run.code == 3, run.err
        assert any(expected in row["problem"] and row["trial"] == 0 for row in json.loads(run.out)), (name, run.out)
    change(launched, f"update trial set point = '{point}' where id = 1")
    declared = json.loads(before)
    declared["budget"]["max_train_steps"] = 10**15
    declared["budget"]["evaluate_every"] = 10**13
    with sqlite3.connect(launched / "tuner.sqlite") as connection:
        connection.execute("update study set declaration = ?", [json.dumps(declared)])
    connection.close()
    run = tuner("verify", "tiny", "-f", "json")
    told = "its schedule has 60 steps, and the budget of the study is 1,000,000,000,000,000"
    assert any(told in row["problem"] for row in json.loads(run.out)), run.out


def test_an_unreadable_trial_is_named_once_and_the_others_are_judged(tuner, launched):
    change(launched, "update trial set point = '{\"learning_rate\": [1]}' where id = 1")
    for verb in ("trials", "check", "report", "best", "status"):
        run = tuner(*([verb] if verb == "status" else [verb, "tiny"]))
        assert run.code in (0, 3), run.err
    assert tuner("plot", "axes", "tiny").code == 0
    assert "trial 0 is unreadable in the Ledger: point: learning_rate" in tuner("check", "tiny").out
    (problem,) = [row for row in json.loads(tuner("verify", "tiny", "-f", "json").out) if row["kind"] == "unreadable"]
    assert problem["trial"] == 0
    assert "point: learning_rate" in problem["problem"]
