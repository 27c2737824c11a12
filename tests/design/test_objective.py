"""Retrospective selection: the best measured value, the earlier step on a tie, nothing that is not finite (A12)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.design.objective import FitCriterion, Metric, Objective, at_least, at_most, maximize, metric_from, minimize
from tuner.errors import DeclarationError

VALUES = st.one_of(st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf, -math.inf]), st.floats(-10, 10))
CURVES = st.lists(st.tuples(st.integers(1, 100), VALUES), max_size=20, unique_by=lambda pair: pair[0])


def best_by_brute_force(curve, sign):
    finite = [(step, value) for step, value in curve if math.isfinite(value)]
    for step, value in finite:
        beaten = any(sign * other < sign * value for _, other in finite)
        earlier = any(other == value and at < step for at, other in finite)
        if not beaten and not earlier:
            return step, value
    return None


@given(curve=CURVES)
def test_the_best_value_is_that_of_a_search_over_all_pairs(curve):
    assert minimize("validation/loss").best(curve) == best_by_brute_force(curve, +1)
    assert maximize("validation/accuracy").best(curve) == best_by_brute_force(curve, -1)


@given(curve=CURVES, data=st.data())
def test_the_best_value_never_gets_worse_with_more_training(curve, data):
    curve = sorted(curve)
    prefix = curve[: data.draw(st.integers(0, len(curve)))]
    objective = minimize("validation/loss")
    earlier, later = objective.best(prefix), objective.best(curve)
    assert earlier is None or later[1] <= earlier[1]


@pytest.mark.parametrize(
    ("curve", "lowest", "highest"),
    [
        ([(10, 3.0), (20, 1.0), (30, 2.0)], (20, 1.0), (10, 3.0)),
        ([(30, 1.0), (20, 1.0), (10, 3.0)], (20, 1.0), (10, 3.0)),
        ([(10, math.nan), (20, 2.0), (30, math.nan)], (20, 2.0), (20, 2.0)),
        ([(10, -math.inf), (20, 2.0), (30, math.inf)], (20, 2.0), (20, 2.0)),
        ([(10, math.nan), (20, math.inf)], None, None),
        ([], None, None),
    ],
)
def test_hand_made_curves_are_selected_as_by_eye(curve, lowest, highest):
    assert minimize("validation/loss").best(curve) == lowest
    assert maximize("validation/loss").best(curve) == highest


def test_equal_is_not_better():
    assert not minimize("validation/loss").better(1.0, 1.0)
    assert not minimize("validation/loss").better(math.nan, math.nan)
    assert minimize("validation/loss").better(5.0, math.nan)


@pytest.mark.parametrize("direction", ["min", "maximise", "MINIMIZE", ""])
def test_a_misspelt_direction_is_refused(direction):
    with pytest.raises(DeclarationError, match=f"direction must be 'minimize' or 'maximize', got '{direction}'"):
        Objective("validation/loss", direction)


@pytest.mark.parametrize("metric", ["test/loss", "loss", "validation/", "/loss", "val/loss", ""])
def test_the_test_split_and_what_names_no_split_select_nothing(metric):
    with pytest.raises(DeclarationError, match=rf"got '{metric}'; the test split never selects anything \(D31\)"):
        minimize(metric)


def test_a_metric_without_a_split_is_answered_with_that_of_the_validation_split():
    with pytest.raises(DeclarationError, match=r"did you mean 'validation/accuracy'\?$"):
        maximize("accuracy")


def test_fitted_includes_the_threshold_and_excludes_what_is_not_finite():
    fitted = at_most("training/error_rate", 0.1)
    assert [fitted.met(value) for value in (0.0, 0.1, 0.2, math.nan, -math.inf)] == [True, True, False, False, False]
    fitted = at_least("training/accuracy", 0.9)
    assert [fitted.met(value) for value in (1.0, 0.9, 0.8, math.nan, math.inf)] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: at_most("validation/loss", 0.0), "metric of the training split .*got 'validation/loss' and 0.0"),
        (lambda: at_most("training/", 0.0), "got 'training/' and 0.0"),
        (lambda: at_most("training/loss", math.nan), "got 'training/loss' and nan"),
        (lambda: FitCriterion("training/loss", "below", 0.0), "side must be 'at_most' or 'at_least', got 'below'"),
    ],
)
def test_what_cannot_be_a_fit_criterion_is_refused(declare, message):
    with pytest.raises(DeclarationError, match=message):
        declare()


@pytest.mark.parametrize(
    ("text", "split", "name"),
    [
        ("validation/loss", "validation", "loss"),
        ("training/error_rate", "training", "error_rate"),
        ("batch/gradient_norm", "batch", "gradient_norm"),
        ("validation/heads/first", "validation", "heads/first"),  # a name may have a slash of its own
        ("epoch", "", "epoch"),
        ("validation/", "validation", ""),
    ],
)
def test_a_metric_is_split_and_name_and_its_text_is_as_it_was_stored(text, split, name):
    metric = metric_from(text)
    assert (metric.split, metric.name, str(metric)) == (split, name, text)


def test_the_same_metric_on_another_split():
    assert str(minimize("validation/loss").measured.on("training")) == "training/loss"
    assert at_most("training/error_rate", 0.0).measured == Metric("training", "error_rate")
