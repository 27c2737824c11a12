"""What a dry run says about time, by hand: 2 trials of 100 steps of 1 ms, 50 evaluations each."""

import json
import sqlite3
from contextlib import closing

import pytest
from support.study_files import write_study
from support.tiny import tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.cli.launch import print_plan
from tuner.records import Price
from tuner.records.hourly_price import parsed_price
from tuner.rounds.launch import Plan
from tuner.rounds.plan import planned_trials


@pytest.mark.parametrize(
    ("evaluation_ms", "remark"),
    [(10.0, "evaluations take 83% of the time of round-1"), (1.0, ""), (1.1, "evaluations take 35% of the time")],
)
def test_expensive_evaluations_are_named_with_the_way_out(capsys, evaluation_ms, remark):
    study = tiny_study(num_trials=2, budget=StepBudget(100, 2))
    plan = Plan(study, planned_trials(study), Price(1.0, evaluation_ms, 1, 1))
    assert plan.evaluation_seconds == pytest.approx(2 * 50 * evaluation_ms / 1e3)
    assert plan.seconds == pytest.approx(0.2 + 2 * 50 * evaluation_ms / 1e3)
    print_plan(plan)
    said = capsys.readouterr().err
    assert remark in said
    assert ("training_evaluation_examples" in said) == bool(remark)


def test_a_declared_precision_is_priced_in_multiples_of_float32(capsys):
    study = tiny_study(num_trials=2, budget=StepBudget(100, 2))
    trials = planned_trials(study)
    print_plan(Plan(study, trials, Price(1.0, 1.0, 1, 1, precisions=(("bf16", 0.364), ("fp16", 1.6)))))
    said = " ".join(capsys.readouterr().err.split())
    assert "bf16 is 0.36x of float32 on this processor, in steps a second: it saves no time here" in said
    assert "fp16 is 1.6x of float32 on this processor, in steps a second" in said
    assert "fp16 is 1.6x of float32 on this processor, in steps a second:" not in said
    print_plan(Plan(study, trials, Price(1.0, 1.0, 1, 1)))
    assert "float32" not in capsys.readouterr().err


def test_a_price_of_an_hour_is_a_column_and_a_sum(capsys):
    study = tiny_study(num_trials=2, budget=StepBudget(100, 2))
    # 2 trials of 100 steps of 36 ms and 50 evaluations of 72 ms are 14.4 s, which is 0.004 hours.
    plan = Plan(study, planned_trials(study), Price(36.0, 72.0, 1, 1))
    print_plan(plan, plan, price=parsed_price("2.50"))
    told = capsys.readouterr()
    assert told.out.split("\n")[0].split()[-2:] == ["cost", "disk"]
    assert [line.split()[-3] for line in told.out.splitlines()[1:]] == ["0.01", "0.01"]
    assert "about 0.02 (at 2.50 an hour of a worker)" in " ".join(told.err.split())
    print_plan(plan)
    told = capsys.readouterr()
    assert "cost" not in told.out + told.err


def test_status_and_report_say_what_was_spent_by_hand(tuner, tmp_path):
    write_study(tmp_path, steps=20, trials=2)
    assert tuner("launch", "tiny.py", "-q").code == 0
    file = tmp_path / "runs" / "tuner.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        recorded = connection.execute("select trained_seconds from trial").fetchall()
        assert all(seconds > 0.0 for (seconds,) in recorded)
        connection.execute("update trial set trained_seconds = 1800.0 * (number + 1)")  # half an hour, and one
    told = tuner("status", "--price-per-hour", "2.50")
    assert "about 3.75 (at 2.50 an hour of a worker) spent on 1.5 hours of training so far" in told.err
    (row,) = json.loads(tuner("status", "--price-per-hour", "2.50", "-f", "json").out)
    assert (row["hours"], row["cost"]) == (1.5, 3.75)
    assert tuner("report", "tiny", "-o", "priced.html", "--price-per-hour", "2.50").code == 0
    page = (tmp_path / "priced.html").read_text()
    assert "At 2.50 an hour of a worker the trials cost about 3.75 so far, for 1.5 hours" in page
    assert "1.88" in page, "a trial, on average"
    assert tuner("report", "tiny", "-o", "plain.html").code == 0
    assert "an hour of a worker" not in (tmp_path / "plain.html").read_text()
    assert "cost" not in json.loads(tuner("status", "-f", "json").out)[0]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update trial set trained_seconds = null")  # as an older version left it
    (row,) = json.loads(tuner("status", "--price-per-hour", "2.50", "-f", "json").out)
    assert (row["hours"], row["cost"]) == (None, None), "nobody knows, which is not nothing"
    assert "2 trials of unknown time not counted" in tuner("status", "--price-per-hour", "2.50").err
