"""One trunk and a decay for each length: what it costs, that it is the same as separate runs, what it refuses."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.shell import run_in
from support.study_files import write_study

from tuner import constant
from tuner.analysis.questions.budget_curve import BudgetCurve, budget_curve_finding, predictions
from tuner.design.objective import maximize, minimize
from tuner.design.study_file import load_campaign
from tuner.execution.replay import replayed
from tuner.rounds.curve_stages import curve_stages, even_lengths
from tuner.storage.store import open_ledger

COMPUTE_BOUND = [
    ("max_train_steps=60, ", ""),
    ("sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),", ""),
    ('Round("the best", promote=2),', ""),
]
MORE = "production_steps=100, regime='compute_bound', warmup_steps=5,"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which round 1 was launched; not to be written to."""
    folder = tmp_path_factory.mktemp("launched")
    write_study(folder, trials=3, more=MORE, replace=COMPUTE_BOUND)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", "tiny.py", "--round", "1") == 0
    return folder


@pytest.fixture
def launched(trained, tmp_path):
    """A study whose round 1 was launched, in a folder of its own."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.py"


def curves(folder, name="tiny"):
    with open_ledger(str(folder / "runs" / "tuner.sqlite"), create=False) as ledger:
        rows = [row for row in ledger.studies(name) if row.study.kind == "budget_curve"]
        return {
            row.study.budget.max_train_steps: (ledger.trials(row.study_id), ledger.measurements(row.study_id).curves)
            for row in rows
        }


def test_five_lengths_cost_at_most_half_of_five_runs_and_each_equals_a_run_of_its_own(tuner, launched, tmp_path):
    dry = tuner("budget-curve", launched, "--lengths", "40,80,120,160,200", "--dry-run")
    assert dry.code == 0, dry.err
    drawn = tuner("budget-curve", launched, "--lengths", "40,80,120,160,200")
    assert drawn.code in (0, 3), drawn.err
    found = curves(tmp_path)
    assert list(found) == [200, 160, 120, 80, 40]
    trained = {length: trials[0].step - trials[0].inherited.steps for length, (trials, _) in found.items()}
    assert {length: steps for length, steps in trained.items() if length < 200} == {160: 32, 120: 24, 80: 16, 40: 8}
    assert sum(trained.values()) <= 0.5 * sum(trained)
    assert f"{sum(trained.values()):,} steps trained; separate runs would have trained {sum(trained):,}" in drawn.err
    assert f"saved: {sum(trained) - sum(trained.values()):,} steps" in dry.err
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite"), create=False) as ledger:
        workload = load_campaign(launched)[1].workload
        for row in ledger.studies("tiny"):
            again = replayed(ledger, row, 0, workload)
            assert again.values > 0
            assert again.different == 0, f"{row.study.name}: {again.first_difference}"


def test_without_a_word_five_lengths_reach_the_production_length_and_are_drawn(tuner, launched, tmp_path):
    drawn = tuner("budget-curve", launched, "--seeds", "2", "-f", "json")
    assert drawn.code in (0, 3), drawn.err
    assert list(curves(tmp_path)) == [100, 80, 60, 40, 20]
    (finding,) = json.loads(drawn.out)["findings"]
    assert (finding["question"], len(finding["evidence"])) == ("budget_curve", 10)
    again = tuner("budget-curve", launched, "--seeds", "2", "-f", "json")
    assert again.out == drawn.out, "the same command again trains nothing"
    picture = tmp_path / "curve.svg"
    assert tuner("plot", "budget-curve", "tiny", "-o", picture).code == 0
    table = pd.read_csv(picture.with_suffix(".csv"))
    assert table["what"].value_counts().to_dict() == {"predicted": 60, "trained": 10}
    assert table["length"].max() == pytest.approx(200)


def test_three_lengths_are_trained_with_three_seeds_and_get_a_prediction(tuner, launched, tmp_path):
    drawn = tuner("budget-curve", launched, "--lengths", "40,60,80", "-f", "json")
    assert drawn.code in (0, 3), drawn.err
    assert {length: len(trials) for length, (trials, _) in curves(tmp_path).items()} == {80: 3, 60: 3, 40: 3}
    assert "Twice as many are predicted to give" in json.loads(drawn.out)["findings"][0]["summary"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "40,80"], r"at least 3 different lengths in steps, got \[40, 80\]"),
        (["--lengths", "40,40,80"], "at least 3 different lengths"),
        (["--lengths", "4,40,80"], "a length of 4 steps ends in the warmup of 5 steps"),
        (["--lengths", "6,40,80"], "leaves nothing before its decay of 1 steps but the warmup of 5"),
        (["--lengths", "many"], "--lengths takes steps with commas between, like 200,400,800, got 'many'"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--lengths", "40,60,80", "--seeds", "1"], "3 lengths of one seed each are described by a curve exactly"),
        (["--round", "2"], "round 2 of 'tiny' was not launched"),
        (["--trial", "77"], "there is no trial 77"),
    ],
)
def test_what_no_curve_can_be_made_of_is_said_before_anything_is_trained(options, message, tuner, launched, tmp_path):
    wrong = tuner("budget-curve", launched, *options)
    assert wrong.code == 2, wrong.err
    assert re.search(message, wrong.err), wrong.err
    assert curves(tmp_path) == {}


def test_an_optimizer_that_trains_under_no_decay_gets_none(launched, tmp_path):
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study("tiny", "round-1")
        study = replace(row.study, optimizer="schedule_free_adamw", schedule=constant())
        stages = curve_stages(replace(row, study=study), ledger.trial(row.study_id, 0), (40, 60, 80), 2)
    assert {stage.study.schedule for stage in stages} == {constant()}
    assert {trial.schedule.decay_start for stage in stages for trial in stage.trials} == {None}
    assert {trial.schedule.warmup_steps for stage in stages for trial in stage.trials} == {5}


def test_a_plot_of_a_curve_that_was_not_trained_says_which_command_trains_it(tuner, launched, tmp_path):
    told = tuner("plot", "budget-curve", "tiny", "-o", tmp_path / "curve.png")
    assert told.code == 2
    assert "tuner budget-curve" in told.err


def test_even_lengths_are_five_equal_parts():
    assert even_lengths(1000) == (200, 400, 600, 800, 1000)
    assert even_lengths(3) == (1, 2, 3)


def table_of(lengths, values):
    rows = [
        {"seed": 0, "length": length, "value": float(value), "trained": length, "inherited": 0}
        for length, value in zip(lengths, values, strict=True)
    ]
    return pd.DataFrame(rows)


LENGTHS = np.array([200, 400, 600, 800, 1000])


@pytest.mark.parametrize("shape", [0.25, 0.5, 1.0, 2.0])
def test_a_power_law_without_noise_is_continued_exactly(shape):
    (told,) = predictions(table_of(LENGTHS, 1.0 + 30.0 * LENGTHS**-shape), np.array([2000.0]))
    assert told.value == pytest.approx(1.0 + 30.0 * 2000.0**-shape, rel=1e-6)
    assert told.low == pytest.approx(told.high, rel=1e-6)


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.0])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(shape):
    generator = np.random.default_rng(0)
    truth, held = lambda n: 1.0 + 3.0 * (n / 100.0) ** -shape, 0
    for _ in range(400):
        values = truth(LENGTHS) + 0.02 * generator.standard_normal(5)
        (told,) = predictions(table_of(LENGTHS, values), np.array([2000.0]))
        change = truth(2000.0) - truth(1000.0)
        held += told.low - values[-1] <= change <= told.high - values[-1]
    assert held / 400 >= 0.75


@pytest.mark.parametrize(
    ("values", "direction", "verdict"),
    [
        (1.0 + 3.0 * (LENGTHS / 100.0) ** -0.5, minimize, "longer_pays"),
        (-1.0 - 3.0 * (LENGTHS / 100.0) ** -0.5, maximize, "longer_pays"),
        ([1.0001, 1.0, 1.0001, 1.0, 1.0001], minimize, "flat"),
        ([1.0, 1.1, 1.2, 1.28, 1.35], minimize, "longer_hurts"),
        ([1.0, 0.7, 1.1, 0.8, 0.9], minimize, "inconclusive"),
    ],
)
def test_verdicts(values, direction, verdict):
    curve = BudgetCurve(direction("validation/loss"), "round-1 trial 0", table_of(LENGTHS, values))
    finding = budget_curve_finding(curve)
    assert finding.verdict == verdict, finding.summary
    assert finding.needs_action == (verdict == "longer_hurts")
    assert any("Only one seed" in caveat for caveat in finding.caveats)


def test_two_lengths_that_came_to_an_end_are_no_curve():
    curve = BudgetCurve(minimize("validation/loss"), "round-1 trial 0", table_of([100, 200], [1.0, 0.5]))
    finding = budget_curve_finding(curve)
    assert finding.verdict == "inconclusive"
    assert "2 trainings were completed (1 after 100 steps, 0.5 after 200 steps)" in finding.summary
    nothing = BudgetCurve(minimize("validation/loss"), "round-1 trial 0", table_of([100], [1.0]).head(0))
    assert budget_curve_finding(nothing).summary.startswith("0 trainings were completed;")
