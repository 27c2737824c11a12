"""Wrong input: one clear error with the value, the rule and the way out; exit code 2, no traceback, nothing written."""

import json
import os
import sqlite3

import pytest
from support.study_files import write_study

LEARNING_RATE = "learning_rate=log_uniform(0.001, 0.1)"
METRICS = '"error_rate": wrong'
CASES = {
    "empty range": ([(LEARNING_RATE, "learning_rate=uniform(0.1, 0.1)")], "low < high, got 0.1 and 0.1"),
    "reversed range": ([(LEARNING_RATE, "learning_rate=log_uniform(0.1, 0.001)")], "got 0.1 and 0.001"),
    "log scale from zero": ([(LEARNING_RATE, "learning_rate=log_uniform(0.0, 0.1)")], "positive lower bound, got 0"),
    "no learning rate": ([(LEARNING_RATE + ", ", "")], ": learning_rate=log_uniform(1e-05, 0.1) to begin with adamw"),
    "misspelt direction": ([('minimize("validation/loss")', "1")], "select_by"),
    "a searched budget": ([("dropout=uniform", "max_train_steps=integers(10, 20), dropout=uniform")], "step budget"),
    "a searched seed": ([("dropout=uniform", "seed=integers(10, 20), dropout=uniform")], "never tuned"),
    "a metric that is not returned": ([(METRICS, '"accuracy": ~wrong')], "error_rate"),
    "a loss that is no scalar": ([("batch[1])\n\n    def m", "batch[1], reduction='none')\n\n    def m")], "scalar"),
    "a metric that is a mean": ([(', reduction="none"', "")], "one value per example"),
    "an unknown optimizer": ([("evaluations=20,", 'optimizer="adamm",')], "sgd, got 'adamm'; did you mean 'adam'?"),
    "an import that fails": ([("import torch\n", "import torch\nimport no_such_package\n")], "no_such_package"),
    "data not there": ([("generator = torch", "open(0.5)\n        generator = torch")], "Tiny.data failed with"),
    "a graph in the data": ([("x[:50], y[:50]", "x[:50].requires_grad_() * 2, y[:50]")], "update 2 failed"),
    "a syntax error": ([("class Tiny(Workload):", "class Tiny(Workload)")], "does not run: SyntaxError"),
    "no campaign": ([("campaign = Campaign(", "dict(")], "0 campaigns"),
    "a point's name misspelt": ([('point["dropout"]', 'point["dropuot"]')], "dropuot"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_broken_study_file_is_one_clear_error_before_anything_is_trained(case, tuner, tmp_path):
    changes, message = CASES[case]
    if case == "no campaign":
        changes = [*changes, ("    Tiny(),\n", ""), ("evaluations=20,", "evaluations=20")]
    run = tuner("launch", write_study(tmp_path, replace=changes))
    assert run.code == 2, run.err
    assert message in run.err
    assert "Traceback" not in run.err
    assert run.err.startswith("error: ")
    assert not (tmp_path / "runs" / "checkpoints").exists()
    storage = tmp_path / "runs" / "tuner.sqlite"
    if storage.exists():
        with sqlite3.connect(storage) as connection:
            assert connection.execute("select count(*) from study").fetchone() == (0,)
        connection.close()


def test_an_example_that_cannot_be_had_is_named(tuner, tmp_path):
    dataset = """class Items(torch.utils.data.TensorDataset):
    def __getitem__(self, index):
        return super().__getitem__(index) if index != 17 else {}["nothing"]


class Tiny(Workload):"""
    given = ("training=(x[:50], y[:50])", "training=Items(x[:50], y[:50])")
    run = tuner("launch", write_study(tmp_path, replace=[("class Tiny(Workload):", dataset), given]))
    assert run.code == 2
    assert "error: example 17 of the training split failed with KeyError: 'nothing' (" in run.err


def test_a_missing_study_file(tuner):
    run = tuner("launch", "nothing.py")
    assert (run.code, run.err) == (
        2,
        "error: there is no study file nothing.py; a study file is Python and declares a Campaign\n",
    )


def test_an_unknown_round(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), "--round", 7)
    assert run.code == 2
    assert "there is no round 7; this campaign declares 1..2" in run.err


def test_a_promoting_round_before_its_time(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), "--round", 2)
    assert run.code == 2
    assert "round-1" in run.err or "round 1" in run.err


def test_a_storage_that_is_not_there(tuner):
    run = tuner("trials", "digits")
    assert run.code == 2
    assert "there is no storage" in run.err


def test_an_unknown_campaign_names_those_that_exist(tuner, tmp_path):
    tuner("launch", write_study(tmp_path, trials=1, steps=20))
    run = tuner("trials", "tinny")
    assert run.code == 2
    assert "tinny" in run.err
    assert "tiny" in run.err


def test_a_database_of_a_newer_version(tuner, tmp_path):
    study = write_study(tmp_path, trials=1, steps=20)
    tuner("launch", study)
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.execute("update schema_version set version = 99")
    connection.close()
    run = tuner("launch", study)
    assert run.code == 2
    assert "99" in run.err


def test_a_file_that_is_no_database(tuner, tmp_path):
    (tmp_path / "notes.sqlite").write_text("these are notes, not a database" * 50)
    run = tuner("launch", write_study(tmp_path), "--storage", tmp_path / "notes.sqlite")
    assert run.code == 2
    assert "notes.sqlite" in run.err


@pytest.mark.skipif(os.geteuid() != 0 and not hasattr(os, "geteuid"), reason="needs users")
def test_a_folder_that_cannot_be_written(tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path), "--storage", "/proc/tuner/runs.sqlite")
    assert run.code == 2, run.err
    assert "/proc/tuner" in run.err
    assert "Traceback" not in run.err


def test_a_mistyped_command_is_a_usage_error(tuner):
    run = tuner("lanch")
    assert run.code == 2
    assert "launch" in run.err


def test_an_unexpected_fault_is_short_and_debug_shows_where(tuner, tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.cli.launch.prepared_round", lambda *given: 1 / 0)
    run = tuner("launch", write_study(tmp_path))
    assert run.code == 1
    assert run.err == "unexpected ZeroDivisionError: division by zero (--debug shows where)\n"
    with pytest.raises(ZeroDivisionError):
        tuner("--debug", "launch", write_study(tmp_path))


def test_a_full_disk_pauses_the_launch_and_loses_nothing(tuner, tmp_path, monkeypatch):
    import errno
    from pathlib import Path

    study = write_study(tmp_path)
    real, calls = Path.replace, []

    def full(self, target):
        calls.append(target)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    run = tuner("launch", study)
    assert run.code == 75, run.err
    assert "No space left on device" in run.err
    assert "run the same command again" in run.err
    states = [row["state"] for row in json.loads(tuner("trials", "tiny", "-f", "json").out)]
    assert "failed" not in states
    assert "running" not in states
    monkeypatch.setattr(Path, "replace", real)
    assert tuner("launch", study).code == 0
    table = json.loads(tuner("trials", "tiny", "-f", "json").out)
    assert [row["state"] for row in table] == ["complete"] * 4
    assert not list((tmp_path / "runs").rglob("*.tmp"))
