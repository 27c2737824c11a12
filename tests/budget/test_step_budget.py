"""One number of steps for all trials, evaluated by steps and always at the last one (A11, B40, C15, F12)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.budget.step_budget import StepBudget
from tuner.errors import DeclarationError


def test_evaluations_lie_at_equal_distances_and_at_the_last_step():
    assert StepBudget(100, 25).evaluation_steps == (25, 50, 75, 100)
    assert StepBudget(110, 25).evaluation_steps == (25, 50, 75, 100, 110)


def test_a_budget_of_one_step_is_evaluated_once():
    assert StepBudget(1, 1).evaluation_steps == (1,)


@given(steps=st.integers(1, 5000), data=st.data())
def test_the_last_step_is_always_evaluated_and_none_lies_beyond_it(steps, data):
    every = data.draw(st.integers(1, steps))
    evaluated = StepBudget(steps, every).evaluation_steps
    assert evaluated[-1] == steps
    assert list(evaluated) == sorted(set(evaluated))
    assert all(step % every == 0 for step in evaluated[:-1])
    gaps = [later - earlier for earlier, later in pairwise((0, *evaluated))]
    assert 1 <= min(gaps) <= max(gaps) <= every


@given(steps=st.integers(1, 5000), wanted=st.integers(1, 300))
def test_a_trial_is_never_evaluated_less_often_than_asked(steps, wanted):
    budget = StepBudget.with_evaluations(steps, wanted)
    assert len(budget.evaluation_steps) >= min(wanted, steps)
    assert budget.max_train_steps == steps


def test_fifty_evaluations_of_a_thousand_steps_are_one_every_twenty():
    assert StepBudget.with_evaluations(1000, 50).evaluate_every == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepBudget(0, 1), "max_train_steps must be at least 1, got 0"),
        (lambda: StepBudget(100, 0), r"evaluate_every must lie in 1\.\.100 \(max_train_steps\), got 0"),
        (lambda: StepBudget(100, 101), r"evaluate_every must lie in 1\.\.100 \(max_train_steps\), got 101"),
        (lambda: StepBudget.with_evaluations(100, 0), "evaluations must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_a_budget_is_refused_with_its_value(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


def test_a_longer_budget_is_evaluated_where_the_shorter_one_is_and_then_more_rarely():
    short = StepBudget(25, 10)
    longer = short.lengthened(100, 4)
    assert short.evaluation_steps == (10, 20, 25)
    assert longer.evaluation_steps == (10, 20, 25, 50, 75, 100)
    assert longer.lengthened(210, 3).evaluation_steps == (10, 20, 25, 50, 75, 100, 140, 210)
    assert (longer.max_train_steps, longer.evaluate_every) == (100, 25)


@given(st.integers(1, 400), st.lists(st.integers(1, 900), min_size=1, max_size=4), st.integers(1, 60))
def test_lengthening_keeps_every_evaluation_up_to_the_old_end_and_adds_none_there(start, growth, wanted):
    budget = StepBudget.with_evaluations(start, wanted)
    for more in growth:
        longer = budget.lengthened(budget.max_train_steps + more, wanted)
        steps = longer.evaluation_steps
        assert tuple(step for step in steps if step <= budget.max_train_steps) == budget.evaluation_steps
        assert list(steps) == sorted(set(steps))
        assert steps[-1] == longer.max_train_steps
        budget = longer


@pytest.mark.parametrize("early", [((100, 5),), ((50, 5), (20, 5)), ((50, 0),), ((0, 1),)])
def test_early_evaluations_that_are_no_shorter_budgets_are_refused(early):
    with pytest.raises(DeclarationError, match="the shortest first, all below 100"):
        StepBudget(100, 10, early)


def test_a_budget_is_not_lengthened_to_fewer_steps():
    with pytest.raises(DeclarationError, match="lengthened to more steps, got 100"):
        StepBudget(100, 10).lengthened(100, 10)


def test_even_steps_leave_out_the_denser_evaluations_of_shorter_budgets():
    assert StepBudget(25, 10).lengthened(110, 4).even_steps == (27, 54, 81, 108, 110)
    assert StepBudget(110, 25).even_steps == StepBudget(110, 25).evaluation_steps
    longer = StepBudget(20, 5).lengthened(80, 4)
    assert longer.evaluation_steps == (5, 10, 15, 20, 40, 60, 80)
    assert longer.even_steps == (20, 40, 60, 80)
