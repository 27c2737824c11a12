"""Lengths in epochs and examples from the study file to the report: steps are trained and stored, both are shown."""

import json

import pytest
from support.study_files import write_study

from tuner.storage.store import open_ledger

LENGTHS = [
    ("max_train_steps=60, ", "max_train_steps=epochs(10), "),  # 50 examples in batches of 8 are 6 steps
    ("start_steps=100, max_steps=800", "start_steps=examples(800), max_steps=epochs(200)"),
    ("evaluations=20,", "evaluate_every=epochs(0.5), warmup_steps=examples(33),"),
]


def declared(folder):
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        return ledger.study("tiny", "round-1").study


def test_a_length_in_epochs_is_stored_in_steps_and_shown_in_both(tuner, tmp_path):
    study = write_study(tmp_path, trials=3, replace=LENGTHS)
    launched = tuner("launch", study, "--round", "1")
    assert launched.code == 0, launched.err
    assert "3 trials of 60 steps (10 epochs), declared in the study file" in launched.err
    stored = declared(tmp_path)
    assert (stored.budget.max_train_steps, stored.budget.evaluate_every, stored.warmup_steps) == (60, 3, 5)
    assert (stored.num_examples, stored.steps_per_epoch) == (50, 6)
    (row,) = json.loads(tuner("status", "-f", "json").out)
    assert (row["max_train_steps"], row["epochs"]) == (60, "10")


def test_the_same_number_of_steps_in_other_words_is_the_same_study(tuner, tmp_path):
    assert tuner("launch", write_study(tmp_path, trials=2, replace=LENGTHS), "--round", "1").code == 0
    in_steps = [(LENGTHS[2][0], "evaluate_every=3, warmup_steps=5,")]
    again = tuner("launch", write_study(tmp_path, trials=2, replace=in_steps), "--round", "1")
    assert again.code == 0, again.err
    other = [(LENGTHS[0][0], "max_train_steps=epochs(11), "), LENGTHS[2]]
    refused = tuner("launch", write_study(tmp_path, trials=2, replace=other), "--round", "1")
    assert refused.code == 2
    assert "budget.max_train_steps: was 60, is now 66" in refused.err


def test_a_plan_and_a_dry_run_show_epochs(tuner, tmp_path):
    study = write_study(tmp_path, trials=3, replace=LENGTHS)
    plan = tuner("run", study, "--dry-run")
    assert plan.code == 0, plan.err
    heads, *rows = (line.split() for line in plan.out.splitlines())
    assert heads[:5] == ["study", "trials", "steps", "each", "epochs"]
    assert ["round-1", "3", "60", "10", "180"] in [row[:5] for row in rows]
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_how_long_a_warmup_is_that_is_a_share(tuner, tmp_path):
    study = write_study(tmp_path, trials=3, more="warmup=0.05,", replace=[("max_train_steps=60, ", "")])
    run = tuner("run", study, "--dry-run")
    assert run.code == 0, run.err
    assert "warmup: 5% of the steps of round 1, here 20 steps; later rounds keep" in " ".join(run.err.split())


def test_the_report_shows_the_budget_in_steps_and_epochs(tuner, tmp_path):
    study = write_study(tmp_path, trials=3, replace=[*LENGTHS, ('\n        Round("the best", promote=2),', "")])
    assert tuner("launch", study, "--round", "1").code == 0
    study.unlink()  # a report needs the records alone
    assert tuner("report", "tiny", "-o", "page.html").code in (0, 3)
    page = (tmp_path / "page.html").read_text()
    assert "60 steps (10 epochs), evaluated every 3 steps" in page
    assert ">epochs<" in page.replace("\n", "")


STREAM = [
    ("class Tiny(Workload):", "DRAWN = torch.Generator().manual_seed(0)\nX = torch.randn(80, 6, generator=DRAWN)\n\n\n"
     "def at(start):\n    place = start\n    while True:\n        row = X[place % 50]\n"
     "        yield row, (row[0] + 0.5 * row[1] > 0).long()\n        place += 1\n\n\nclass Tiny(Workload):\n"
     "    training_evaluation_examples = 50"),
    ("training=(x[:50], y[:50])", "training=Stream(at)"),
    ("    fitted_when = at_most(\"training/error_rate\", 0.0)\n", ""),
    ("    sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),\n", ""),
]  # fmt: skip


def test_examples_of_a_stream_are_steps_and_its_epochs_are_refused(tuner, tmp_path):
    study = write_study(tmp_path, trials=2, replace=[*STREAM, ("max_train_steps=60", "max_train_steps=examples(161)")])
    launched = tuner("launch", study, "--round", "1")
    assert launched.code == 0, launched.err
    assert "2 trials of 21 steps, declared in the study file" in launched.err, "no epochs are shown"
    other = write_study(
        tmp_path, "o.py", trials=2, replace=[*STREAM, ("max_train_steps=60", "max_train_steps=epochs(2)")]
    )
    refused = tuner("launch", other, "--round", "1")
    assert refused.code == 2
    assert "the training split is a stream, which has no epochs; write a number of steps, or examples" in refused.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([("batch_size = 8", "batch_size = 51")], "batch_size 51 is larger than the training split of 50 examples"),
        ([("epochs(10)", "epochs(0.01)")], "epochs(0.01) is less than one step: an epoch has 6 steps"),
        ([("epochs(10)", "epochs(-1)")], "epochs takes a number above 0, got epochs(-1)"),
        (
            [("learning_rate=log_uniform(", "batch_size=choice(4, 8), learning_rate=log_uniform(")],
            "batch_size differs between trials here: one study has one number of steps (A11, B6)",
        ),
    ],
)
def test_epochs_that_have_no_steps_are_one_error_before_anything_is_trained(tuner, tmp_path, change, message):
    study = write_study(tmp_path, trials=2, replace=[*LENGTHS, *change])
    refused = tuner("launch", study, "--round", "1")
    assert refused.code == 2
    assert message in " ".join(refused.err.split())
    assert "Traceback" not in refused.err
    assert not (tmp_path / "runs" / "tuner.sqlite").exists() or "round-1" not in tuner("status").out
