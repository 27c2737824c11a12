from dataclasses import replace

import pandas as pd
import pytest
from analysis.handmade import frames_of_curves, frames_of_values, planned, record, study

from tuner.analysis.checklist import no_curves_finding
from tuner.analysis.finding import QUESTIONS
from tuner.analysis.frames import frames_of
from tuner.analysis.good_trials import good_defined
from tuner.analysis.questions.failed_trials import failed_findings
from tuner.analysis.questions.infeasible import infeasible_finding, infeasible_frame, spoiled_by_data
from tuner.design.hyperparameters import choice, log_uniform, uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace
from tuner.records import State

SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1.0), dropout=uniform(0.0, 0.5))
RATES = SearchSpace(learning_rate=log_uniform(1e-3, 1e3))
SIZES = SearchSpace(learning_rate=log_uniform(1e-3, 1e3), batch_size=choice(8, 32))


def frames_with_threshold(threshold: float, count: int = 40):
    points = quasi_random_points(SPACE, seed=0, start=0, count=count)
    values = [None if point["learning_rate"] > threshold else 0.5 for point in points]
    return frames_of_values(study(SPACE), [dict(point.values_by_name) for point in points], values)


def test_a_planted_divergence_threshold_is_found():
    """B22: everything above a learning rate of 0.1 diverges, a quarter of the range."""
    finding = infeasible_finding(frames_with_threshold(0.1))
    assert finding.verdict == "ok"
    assert "10 of 40 finished trials are infeasible (25%)" in finding.summary
    assert "learning_rate above about 0.1" in finding.summary
    assert "dropout" not in finding.summary


def test_where_infeasible_trials_lie_is_told_per_hyperparameter():
    table = infeasible_frame(frames_with_threshold(0.1)).set_index("hyperparameter")
    assert table.loc["learning_rate", "separation"] == 1.0
    assert abs(table.loc["dropout", "separation"]) < 0.5
    assert table.loc["learning_rate", "feasible_high"] < 0.1 < table.loc["learning_rate", "infeasible_low"]


def test_more_than_half_infeasible_asks_for_another_space():
    finding = infeasible_finding(frames_with_threshold(1e-3))
    assert (finding.verdict, finding.needs_action) == ("many_infeasible", True)
    assert "learning_rate above" in finding.action


@pytest.mark.parametrize("count", [2, 4])
def test_a_handful_of_trials_is_inconclusive(count):
    assert infeasible_finding(frames_with_threshold(1e-3, count)).verdict == "inconclusive"


def test_failed_trials_say_nothing_about_the_space():
    """D44: a bug or a lost worker is not the point's fault."""
    frames = frames_with_threshold(0.1)
    frames.trials.loc[frames.trials["state"] == "infeasible", "state"] = "failed"
    finding = infeasible_finding(frames)
    assert "0 of 30 finished trials are infeasible (0%)." in finding.summary


def diverged(rates, steps, *, held="", batch_sizes=None, data_seeds=None, space=RATES):
    """Trials that all diverged: at these rates, in these steps."""
    records = []
    for number, (rate, step) in enumerate(zip(rates, steps, strict=True)):
        point = {"learning_rate": rate} | ({"batch_size": batch_sizes[number]} if batch_sizes else {})
        reason = f"diverged at step {step}: the loss became nan{held}"
        made = replace(record(number, point, State.INFEASIBLE), reason=reason)
        records.append(planned(made, data_seed=data_seeds[number]) if data_seeds else made)
    nothing = pd.DataFrame({"trial": [], "step": [], "metric": [], "value": []})
    return frames_of(study(space), records, nothing)


HELD = "; its batch holds training example 100, which has nan in tensor 1"
WIDE = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]


def test_trials_that_diverge_at_one_step_whatever_the_rate_point_at_the_data():
    finding = infeasible_finding(diverged(WIDE, [24] * 6, held=HELD))
    assert finding.verdict == "many_infeasible"
    assert "6 of 6 trials diverged at step 24, whatever the learning rate (0.001 to 0.3)" in finding.summary
    assert "Training example 100 has nan in tensor 1." in finding.summary
    assert finding.action.startswith("Correct the data or the loss")
    assert "hrink" not in finding.action


@pytest.mark.parametrize(
    ("frames", "points"),
    [
        (diverged(WIDE, [24] * 6), True),
        (diverged(WIDE[:3], [24] * 3), True),  # three are enough where they agree
        (diverged(WIDE[:2], [24] * 2), False),
        (diverged([0.1, 0.2, 0.3], [1] * 3), True),  # before the first update: no rate has done anything yet
        (diverged([100.0, 200.0, 400.0], [3] * 3), False),  # all far too high
        # One example, at place 190 of the order: update 24 of batches of 8, update 6 of batches of 32.
        (diverged(WIDE, [24, 6] * 3, batch_sizes=[8, 32] * 3, space=SIZES), True),
        (diverged(WIDE, [24, 12] * 3, batch_sizes=[8, 32] * 3, space=SIZES), False),
        # Every trial has an order of its own.
        (diverged(WIDE, [5, 19, 2, 11, 7, 16], data_seeds=range(6)), True),
        (diverged(WIDE, [5, 19, 2, 11, 7, 16], data_seeds=range(6), held=HELD), True),
        (diverged(WIDE, [190, 110, 70, 30, 11, 3]), False),  # the higher the rate, the sooner: the rate's fault
    ],
)
def test_what_points_at_the_data_and_what_at_the_rate(frames, points):
    assert bool(spoiled_by_data(frames)) is points


def test_one_trial_that_got_through_clears_the_data():
    frames = diverged(WIDE, [24] * 6, held=HELD)
    frames.trials.loc[0, ["state", "reason", "best_value"]] = ["complete", "", 0.5]
    assert spoiled_by_data(frames) == ""


def test_trials_that_ran_out_of_memory_say_nothing_about_the_data():
    frames = diverged(WIDE, [24] * 6, held=HELD)
    frames.trials.loc[0, "reason"] = "OutOfMemoryError: CUDA out of memory"
    assert spoiled_by_data(frames).startswith("5 of 5 trials diverged")


@pytest.mark.parametrize("state", [State.INFEASIBLE, State.COMPLETE])
def test_a_metric_that_was_never_finite_points_at_the_metric(state):
    """Older versions called such trials complete; their records are read alike."""
    curves = [[float("nan")] * 5] * 6
    frames = frames_of_curves(study(RATES), curves, dict.fromkeys(range(6), state))
    finding = infeasible_finding(frames)
    assert (finding.verdict, finding.needs_action) == ("many_infeasible", True)
    assert "6 of 6 finished trials are infeasible (100%)" in finding.summary
    assert "6 of 6 trials measured no finite validation/loss" in finding.summary


def test_damaged_rows_are_no_error_of_the_workload_to_train_again():
    frames = frames_with_threshold(10.0)
    frames.trials.loc[3, ["state", "reason"]] = ["failed", "trial 3 is unreadable in the Ledger: point: got 'x'"]
    (finding,) = failed_findings(frames)
    assert "tuner verify" in finding.action
    assert "--retry-failed" not in finding.action
    frames.trials.loc[4, ["state", "reason"]] = ["failed", "KeyError: 'width'"]
    assert "--retry-failed" in failed_findings(frames)[0].action


def test_a_handful_of_trials_is_no_third_of_them():
    """Of 4 completed trials all are looked at: "the best third (at least 7 trials)" of them cannot be."""
    assert good_defined(frames_with_threshold(10.0, 4)).startswith(
        "4 good trials of 4 completed: a trial is good if it made at"
    )
    assert "the best third (at least 7 trials)" in good_defined(frames_with_threshold(10.0, 30))


def test_trials_that_have_not_completed_are_awaited_and_not_to_be_evaluated_more_often():
    frames = frames_with_threshold(10.0, 8)
    frames.trials["state"] = ["waiting"] * 7 + ["running"]
    told = no_curves_finding(frames, QUESTIONS.get("best_steps"))
    assert told.summary == "No trial has completed (8 of 8 are waiting or running), so this cannot be answered."
    assert told.action == "Let trials complete, then ask again."
    frames.trials["state"] = "complete"
    assert "at least 20 times" in no_curves_finding(frames, QUESTIONS.get("best_steps")).action
