"""What a dry run says about time, by hand: 2 trials of 100 steps of 1 ms, 50 evaluations each."""

import pytest
from support.tiny import tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.cli.launch import print_plan
from tuner.records import Price
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
