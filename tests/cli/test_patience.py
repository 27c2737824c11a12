"""A last round with early stopping on the command line: what is planned, told, kept, exported and verified."""

import inspect
import json
import sqlite3

import pytest
import safetensors
import safetensors.torch
from support import stopping
from support.shell import run_in, tuner

from tuner.storage.store import open_ledger

__all__ = ["tuner"]
FILE = (
    f"""
import torch
from torch import nn
from tuner import *

TARGET = {stopping.TARGET}

{inspect.getsource(stopping.Weight)}

{inspect.getsource(stopping.Passing)}
"""
    + """
campaign = Campaign(
    Passing(),
    rounds=[
        Round("Which rate?", trials=4, max_train_steps=60, space=SearchSpace(learning_rate=log_uniform(0.004, 0.03))),
        Round("The final model", promote=2, fresh=0, max_train_steps=60{patience}),
    ],
    optimizer="sgd",
    schedule=constant(),
    evaluate_every=5,
    keep_best=2,
)
"""
)


def write(folder, patience=10):
    path = folder / "passing.py"
    path.write_text(FILE.replace("{patience}", f", patience_steps={patience}" if patience else ""))
    return path


def ending(rate):
    """Best step, stopping step: of 0.12 - s x rate at s = 5, 10, ..., worked out past the program."""
    best = min(range(5, 61, 5), key=lambda step: abs(step * rate - 0.12))
    return best, min(60, best + 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("passing")
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(made, patched, "run", write(made), "--yes") == 0
    return made


@pytest.fixture
def here(folder, tuner, monkeypatch):
    monkeypatch.chdir(folder)
    return tuner


def trials(folder, study="round-2"):
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        return ledger.trials(ledger.study("passing", study).study_id)


def bits(folder):
    with sqlite3.connect(folder / "runs" / "tuner.sqlite") as connection:
        return sorted(
            connection.execute(
                "select study.name, number, trial.step, trial.state, trial.reason, measurement.step, hex(value) "
                "from measurement join trial on trial.id = trial_id join study on study.id = trial.study_id"
            ).fetchall()
        )


def test_each_trial_of_the_last_round_stopped_where_its_rate_says_and_the_others_did_not(folder):
    found = trials(folder)
    assert len(found) >= 2
    for record in found:
        best, stop = ending(record.point["learning_rate"])
        assert record.step == stop
        assert record.stopped_early == (stop < 60)
        assert best in [kept.step for kept in record.checkpoints if kept.kind == "best"]
    assert any(record.stopped_early for record in found)
    assert {record.step for record in trials(folder, "round-1")} == {60}


def test_a_plan_says_at_most(tuner, tmp_path):
    study = write(tmp_path)
    words = "round-2: steps and time are at most these: a trial stops early where its metric has not improved for 10"
    assert words in " ".join(tuner("run", study, "--dry-run").err.split())
    assert "at most" not in tuner("run", write(tmp_path, 0), "--dry-run").err


@pytest.mark.slow
def test_workers_stop_at_the_same_steps_with_the_same_bits(folder, tuner, tmp_path):
    assert tuner("run", write(tmp_path), "--yes", "--workers", "2").code == 0
    assert bits(tmp_path) == bits(folder)


def test_lists_and_the_best_say_it(here):
    listed = here("trials", "passing", "--round", "2", "-f", "json")
    assert all(row["reason"].startswith("stopped early at step") for row in json.loads(listed.out))
    assert "stopped early at step" in " ".join(here("trials", "passing", "--round", "2").out.split())
    assert len(json.loads(here("trials", "passing", "--round", "2", "--top", "1", "-f", "json").out)) == 1
    assert "2 stopped early" in " ".join(here("status", "passing").out.split())
    told = json.loads(here("best", "passing", "-f", "json").out)
    assert told["stopped_early"] == ending(told["point"]["learning_rate"])[1]
    assert "stopped early at step" in here("best", "passing").out
    assert json.loads(here("best", "passing", "--round", "1", "-f", "json").out)["stopped_early"] is None


def test_questions_about_steps_are_not_answered_by_it(here):
    found = json.loads(here("check", "passing", "--round", "2", "-f", "json").out)
    verdicts = {one["question"]: one["verdict"] for one in found["findings"]}
    assert verdicts["best_steps"] == verdicts["improvement"] == "no_curves"
    assert "stopped early" in here("best-steps", "passing").out + here("best-steps", "passing").err


@pytest.mark.parametrize("kind", ["best-steps", "transfer", "best-of-n", "isolation"])
def test_a_plot_of_whole_budgets_says_that_there_are_none(here, kind):
    told = here("plot", kind, "passing", "--round", "2")
    assert told.code != 0
    assert "trained its whole budget" in told.err or "trained their whole budget" in told.err


@pytest.mark.parametrize("command", ["budget-curve", "stability"])
def test_what_is_trained_around_the_best_trial_takes_it_though_it_stopped_early(here, command):
    told = json.loads(here("best", "passing", "-f", "json").out)
    assert told["stopped_early"]
    planned = here(command, "passing.py", "--dry-run")
    assert planned.code == 0, planned.err
    assert f"round-2-trial-{told['trial']}-" in planned.err + planned.out


def test_exported_weights_carry_it_in_their_header_and_the_same_tensors(here, folder):
    done = here("best", "passing", "--export", "out.safetensors")
    assert "stopped early at step" in done.err
    with safetensors.safe_open(folder / "out.safetensors", "pt") as file:
        assert file.metadata()["stopped_early"].startswith("stopped early at step")
    told = json.loads(here("best", "passing", "-f", "json").out)
    kept = safetensors.torch.load_file(next(folder.rglob(told["checkpoint"])))
    exported = safetensors.torch.load_file(folder / "out.safetensors")
    assert {name: one.tolist() for name, one in exported.items()} == {n: one.tolist() for n, one in kept.items()}
    mean = here("best", "passing.py", "--export", "mean.safetensors", "--average")
    assert mean.code == 0, mean.err
    with safetensors.safe_open(folder / "mean.safetensors", "pt") as file:
        assert {"averaged", "stopped_early"} <= set(file.metadata())
    assert here("best", "passing", "--round", "1", "--export", "first.safetensors").code == 0
    with safetensors.safe_open(folder / "first.safetensors", "pt") as file:
        assert "stopped_early" not in (file.metadata() or {})


def test_the_report_marks_it(here, folder):
    assert here("report", "passing", "-o", "page.html").code == 0
    text = (folder / "page.html").read_text()
    assert "stopped early at" in text
    assert "at most 60 steps" in text
    assert "what more steps would have given is not known" in text


def test_verify_knows_a_stop_and_finds_one_that_the_curve_does_not_show(here, folder, tmp_path):
    assert here("verify", "passing").code == 0
    copy = tmp_path / "copy.sqlite"
    with sqlite3.connect(folder / "runs" / "tuner.sqlite") as old, sqlite3.connect(copy) as new:
        old.backup(new)
        new.execute("update trial set reason = '' where reason like 'stopped early%'")
    told = here("verify", "passing", "--storage", copy, "--checkpoints", folder / "runs" / "checkpoints")
    assert told.code != 0
    assert "and the budget is 60" in told.out + told.err
    with sqlite3.connect(copy) as new:
        new.execute("update trial set step = 60, reason = 'stopped early' where step < 60")
    told = here("verify", "passing", "--storage", copy, "--checkpoints", folder / "runs" / "checkpoints")
    assert "complete at step 60, and patience_steps=10 ends its curve at step" in told.out + told.err


def test_another_patience_is_another_study(here, folder):
    write(folder, 15)
    try:
        told = here("launch", "passing.py", "--round", "2")
    finally:
        write(folder)
    assert told.code != 0
    assert "patience_steps: was 10, is now 15" in told.err


def test_a_contest_of_its_trials_trains_whole_budgets(here, folder):
    done = here("adopt", "passing.py", "--candidate", "2/0", "--baseline", "2/1", "--replicates", "2")
    assert done.code == 0, done.err
    (study,) = {name for name, *_ in bits(folder) if name.startswith("adopt")}
    assert {record.step for record in trials(folder, study)} == {60}
