"""A study that tuner 0.1 started: readable, marked, goes on while its file is the same, and nothing is inherited."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from support.records import rows

STORED = Path(__file__).parents[1] / "storage" / "databases" / "version_2"


@pytest.fixture
def old(tmp_path):
    """The study file in a folder with its storage; returns the file."""
    shutil.copytree(STORED / "checkpoints", tmp_path / "runs" / "checkpoints")
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.executescript((STORED / "version_2.sql").read_text(encoding="utf-8"))
    connection.close()
    return Path(shutil.copy(STORED / "old_study.py", tmp_path / "old_study.py"))


def changed(file, *pairs, name=None):
    text = file.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    file.with_name(name or file.name).write_text(text)
    return file.with_name(name or file.name)


def test_it_is_read_and_marked_and_goes_on(tuner, old, caplog):
    assert len(json.loads(tuner("trials", "old_study", "-f", "json").out)) == 2
    (row,) = json.loads(tuner("status", "-f", "json").out)
    assert row["identity"] == "weaker (tuner 0.1)"
    assert "weaker" in tuner("status").out
    assert tuner("replay", old, "--trial", 0).code == 0
    assert tuner("launch", changed(old, ("trials=2", "trials=3"))).code == 0
    assert "round-1 was started by tuner 0.1" in caplog.text
    assert [one["exact"] for one in json.loads(tuner("trials", "old_study", "-f", "json").out)] == [True] * 3


def test_a_changed_study_file_is_still_refused(tuner, old, tmp_path):
    refused = tuner(
        "launch", changed(old, ("nn.Linear(3, 1)", "nn.Linear(3, 1, bias=False)"), ("trials=2", "trials=3"))
    )
    assert refused.code == 2
    assert "changed since round-1 of 'old_study' was started (architecture changed)" in refused.err
    assert rows(tmp_path, "select count(*) from trial") == [(2,)]


def test_nothing_is_inherited_and_what_it_left_unfinished_is_marked(tuner, old, tmp_path):
    assert tuner("launch", changed(old, name="another.py")).code == 0
    assert [one["inherited"] for one in json.loads(tuner("trials", "another", "-f", "json").out)] == [0, 0]
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.execute("update trial set state = 'waiting', step = 16 where id = 1")
        connection.execute("delete from checkpoint where trial_id = 1 and kind = 'latest'")
        connection.execute("delete from measurement where trial_id = 1 and step > 16")
    connection.close()
    assert tuner("launch", old).code == 0
    told = json.loads(tuner("trials", "old_study", "-f", "json").out)
    assert [one["exact"] for one in told] == [False, True]
    assert [one["state"] for one in told] == ["complete"] * 2


def test_a_later_round_does_not_call_what_was_not_known_then_a_change(tuner, old):
    more = ('space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))]', 'space=SearchSpace(learning_rate='
            'log_uniform(1e-3, 1e-1))), Round("r", promote=1, max_train_steps=40)]')  # fmt: skip
    second = tuner("launch", changed(old, more), "--round", 2)
    assert second.code == 0, second.err
    assert "stale budget" not in second.err
