"""Promises of a loop are measured, kept and passed on; each one that is missing alone is named with its reason."""

import json
from dataclasses import replace

import pytest
import torch
from support.loop_promises import (
    COUNTS_BY_ITSELF,
    GENERATOR_NOT_KEPT,
    LOOP,
    OWN_RATES,
    PEEKS_AT_EVALUATIONS,
    PEEKS_AT_RATES,
    READS_THE_LENGTH,
    SEEDED_BY_NUMBER,
    SEEDLESS,
    TWO_BATCHES,
    UNSEEDED,
    Looked,
    write_loop,
)
from support.records import rows
from support.study_files import write_study

from tuner.delegated import promised
from tuner.records import MeasuredPromises, Promises
from tuner.records.promises import measured_from
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger

ALL = {"exact_resume", "prefixes", "follows_schedule", "deterministic"}
BROKEN = [
    ((), set(), ""),
    ((UNSEEDED,), {"exact_resume", "prefixes", "deterministic"}, "the same seeds gave another curve"),
    ((GENERATOR_NOT_KEPT,), {"exact_resume", "prefixes"}, "stopped and resumed it gave another curve"),
    ((OWN_RATES,), {"follows_schedule", "prefixes"}, "it never asks for the learning rate of the study"),
    ((READS_THE_LENGTH,), {"prefixes"}, "it reads trial.max_train_steps"),
    ((SEEDED_BY_NUMBER,), {"prefixes"}, "a longer trial of another number began with another curve"),
    ((PEEKS_AT_EVALUATIONS,), {"prefixes"}, "asks trial.evaluates of a later step"),
    ((PEEKS_AT_RATES,), {"prefixes"}, "trial.rate of later steps"),
    (TWO_BATCHES, {"exact_resume", "prefixes"}, "stopped and resumed it gave another curve"),
    (COUNTS_BY_ITSELF, {"exact_resume", "prefixes"}, "stopped and resumed it gave another curve"),
]


NOT_RESUMED = "a resumed trial may differ from one that ran through and trials share no first steps"


@pytest.mark.parametrize(("replaced", "missing", "why"), BROKEN)
def test_what_a_loop_does_again_is_promised_and_nothing_else(tmp_path, caplog, replaced, missing, why):
    looked = Looked(write_loop(tmp_path, *replaced))
    looked.inspect()
    given = {name for name, value in looked.loaded.promises(looked.study).to_data().items() if value}
    assert given == ALL - missing
    assert set(looked.loaded.measured(looked.study).why) == missing
    told = [line for line in caplog.messages if "promises less" in line]
    assert len(told) == bool(missing), "said once, and only where something is missing"
    assert not why or why in told[0]
    looked.inspect()
    assert len([line for line in caplog.messages if "promises less" in line]) == len(told)


def test_an_evaluation_that_draws_is_seen_in_the_curve_alone(tmp_path):
    noisy = ('"validation/loss": validation', '"validation/loss": float(validation) + torch.seed() / 2**64')
    restored = ("if trial.evaluates(step):", "before = torch.get_rng_state()\n            if trial.evaluates(step):")
    put_back = (
        '"training/error_rate": wrong})',
        '"training/error_rate": wrong})\n                torch.set_rng_state(before)',
    )
    looked = Looked(write_loop(tmp_path, noisy, restored, put_back))
    looked.inspect()
    assert "gave another curve (validation/loss after 2 updates" in looked.loaded.measured(looked.study).weaker
    assert not looked.loaded.promises(looked.study).deterministic


def test_seeds_without_an_effect_are_told(tmp_path, caplog):
    looked = Looked(write_loop(tmp_path, SEEDLESS))
    looked.inspect()
    assert looked.loaded.promises(looked.study).deterministic
    assert "Loop promises less: fresh seeds change nothing: other seeds gave the same curve" in caplog.text


def test_a_slow_loop_is_looked_at_once_and_promises_no_more_than_that_shows(tmp_path):
    looked = Looked(write_loop(tmp_path))
    looked.loaded.looks.slow_seconds = -1.0
    looked.inspect()
    assert looked.loaded.promises(looked.study) == Promises(follows_schedule=True)
    assert "were not trained once more to see" in looked.loaded.measured(looked.study).weaker


def test_what_was_measured_crosses_to_other_processes_as_json():
    measured = MeasuredPromises(Promises(exact_resume=True, deterministic=True), {"prefixes": "it reads the length"})
    assert measured_from(json.loads(json.dumps(measured.to_data()))) == measured
    assert measured.weaker == (
        "trials share no first steps: it reads the length; the engine, not the study, decides the "
        "learning rate of each step"
    )


def launches(folder):
    return [json.loads(text) for (text,) in rows(folder, "select environment from launch order by id")]


@pytest.mark.slow
def test_a_launch_records_what_was_measured_and_a_second_one_measures_nothing(tuner, tmp_path, monkeypatch, caplog):
    write_loop(tmp_path, GENERATOR_NOT_KEPT)
    assert tuner("launch", "loop.py").code == 0
    assert caplog.text.count(f"Loop promises less: {NOT_RESUMED}: ") == 1
    monkeypatch.setattr(promised, "measured_promises", None)  # a call would fail
    second = tuner("launch", "loop.py", "--trials", 6)
    assert second.code == 0, second.err
    assert caplog.text.count(f"Loop promises less: {NOT_RESUMED}: ") == 2, "once a launch"
    mine = [launch["promises"] for launch in launches(tmp_path)]
    assert mine[0] == mine[1] == {
        "exact_resume": False, "prefixes": False, "fusing": False, "follows_schedule": True, "deterministic": True
    }  # fmt: skip


def test_under_other_numerics_it_is_measured_again(tuner, tmp_path, monkeypatch):
    write_loop(tmp_path)
    assert tuner("launch", "loop.py").code == 0
    measured = []
    real = promised.measured_promises
    monkeypatch.setattr(promised, "measured_promises", lambda setup, look: measured.append(setup) or real(setup, look))
    assert tuner("launch", "loop.py", "--trials", 5).code == 0
    assert not measured
    assert tuner("launch", "loop.py", "--trials", 6, "--threads", 2).code == 0
    assert [json.loads(setup.numerics.text)["threads"] for setup in measured] == [2]


@pytest.mark.slow
def test_a_worker_of_another_command_measures_nothing_either(tuner, tmp_path):
    write_loop(tmp_path, GENERATOR_NOT_KEPT)
    assert tuner("launch", "loop.py").code == 0
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        row = ledger.study("loop", "round-1")
        planned = planned_trials(replace(row.study, num_trials=6), 4)
        ledger.start_study("loop", replace(row.study, num_trials=6), row.fingerprint, trials=planned)
    worked = tuner("worker", "loop.py", "--until", "study")
    assert worked.code == 0, worked.err
    assert rows(tmp_path, "select count(*) from trial where state = 'complete'") == [(6,)]
    recorded = launches(tmp_path)
    assert len(recorded) == 2
    assert recorded[0]["promises"] == recorded[1]["promises"]
    assert recorded[0]["not_promised"] == recorded[1]["not_promised"] != ""


def test_other_code_is_measured_again(tuner, tmp_path):
    write_loop(tmp_path, GENERATOR_NOT_KEPT)
    assert tuner("launch", "loop.py").code == 0
    write_loop(tmp_path)
    assert tuner("launch", "loop.py", "--trials", 5, "--allow-changed-code").code == 0
    assert [one["promises"]["exact_resume"] for one in launches(tmp_path)] == [False, True]


@pytest.mark.slow
def test_worker_processes_know_what_the_launch_measured(tuner, tmp_path):
    write_loop(tmp_path)
    assert tuner("launch", "loop.py", "--workers", 2).code == 0
    assert tuner("launch", "loop.py", "--round", 2, "--workers", 2).code == 0
    inherited = json.loads(tuner("trials", "loop", "--round", 2, "-f", "json").out)
    assert max(row["inherited"] for row in inherited) == 48, "of 60 steps, the decay takes the last 20 %"
    texts = rows(tmp_path, "select distinct numerics from trial")
    assert not any('"exact": false' in text for (text,) in texts)


def test_without_the_promise_no_trial_starts_from_another(tuner, tmp_path):
    write_loop(tmp_path, READS_THE_LENGTH)
    assert tuner("launch", "loop.py").code == 0
    assert tuner("launch", "loop.py", "--round", 2).code == 0
    inherited = json.loads(tuner("trials", "loop", "--round", 2, "-f", "json").out)
    assert {row["inherited"] for row in inherited} == {0}


def test_status_check_and_report_say_once_what_is_not_promised_and_why(tuner, tmp_path):
    write_loop(tmp_path, UNSEEDED)
    assert tuner("launch", "loop.py").code == 0
    why = (
        "a resumed trial may differ from one that ran through, trials share no first steps and the same seeds may give "
        "other curves: the same seeds gave another curve"
    )
    status = tuner("status", "loop")
    assert status.err.count(why) == 1
    assert "the training of loop (round-1)" in status.err
    assert tuner("check", "loop").err.count(why) == 1
    assert tuner("report", "loop", "-o", "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("the same seeds gave another curve") == 1
    assert why not in tuner("status", "loop", "-f", "json").out


def test_nothing_is_said_of_our_own_trainer(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=2, steps=20, more='regime="not_compute_bound",')).code == 0
    for verb in ("status", "check"):
        said = tuner(verb, "tiny")
        assert "promise" not in said.out + said.err


# The identity of a loop: the code that ran, and what its first steps showed.

READS_A_FILE = ("x = torch.randn(80, 6, generator=generator)", 'x = torch.load("data.pt", weights_only=True)')


def saved_data(folder, seed):
    torch.save(torch.randn(80, 6, generator=torch.Generator().manual_seed(seed)), folder / "data.pt")


def test_a_changed_file_that_only_the_loop_reads_is_refused(tuner, tmp_path):
    saved_data(tmp_path, 0)
    write_loop(tmp_path, READS_A_FILE)
    assert tuner("launch", "loop.py").code == 0
    assert tuner("launch", "loop.py", "--trials", 5).code == 0
    before = rows(tmp_path, "select * from trial order by id")
    saved_data(tmp_path, 1)
    refused = tuner("launch", "loop.py", "--trials", 6)
    assert refused.code == 2
    assert "its first steps give another curve" in refused.err
    assert "--allow-changed-code" in refused.err
    assert rows(tmp_path, "select * from trial order by id") == before


def test_a_changed_helper_module_is_refused_by_name(tuner, tmp_path):
    module = LOOP[LOOP.index("def examples") : LOOP.index("class Loop")]
    helper = tmp_path / "examples_of_mine.py"
    helper.write_text(f"import torch\n\n\n{module}")
    late = (
        "x, y = examples()",
        'import importlib\n        x, y = importlib.import_module("examples_of_" + "mine").examples()',
    )
    write_loop(tmp_path, late)
    assert tuner("launch", "loop.py").code == 0
    helper.write_text(helper.read_text().replace("0.5 * x", "0.4 * x"))
    refused = tuner("launch", "loop.py", "--trials", 5)
    assert refused.code == 2
    assert "examples_of_mine.py: function examples changed" in refused.err


def test_a_loop_that_is_not_deterministic_is_not_refused_because_its_curve_differs(tuner, tmp_path):
    write_loop(tmp_path, UNSEEDED)
    assert tuner("launch", "loop.py").code == 0
    assert tuner("launch", "loop.py", "--trials", 5).code == 0
    replay = tuner("replay", "loop.py", "--trial", 0)
    assert "not promised: a resumed trial may differ from one that ran through; the same seeds may give" in replay.err
