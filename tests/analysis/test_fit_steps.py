"""When a training curve counts as fitted, and between which evaluations (A24, D5-D7; F1 and F3 of the playbook)."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, record, study

from tuner.analysis.fit_steps import FIT_COLUMNS, first_sustained, fit_interval, fit_steps_frame
from tuner.analysis.frames import frames_of
from tuner.analysis.study_frames import StudyFrames
from tuner.design.objective import FitCriterion, at_least, at_most
from tuner.errors import DeclarationError
from tuner.records import State

FITTED = at_most("training/loss", 1e-3)


def fits_of(
    curves: dict[float, tuple[list[int], list[float]]],
    criterion: FitCriterion | None = FITTED,
    states: dict[float, State] | None = None,
) -> pd.DataFrame:
    """The frame of one trial a learning rate, each with its steps and training losses."""
    return fit_steps_frame(sweep_frames(curves, criterion, states))


def sweep_frames(
    curves: dict[float, tuple[list[int], list[float]]],
    criterion: FitCriterion | None = FITTED,
    states: dict[float, State] | None = None,
) -> StudyFrames:
    where = replace(study(), kind="sweep", fitted_when=criterion)
    known = states or {}
    records = [record(n, {"learning_rate": rate}, known.get(rate, State.COMPLETE)) for n, rate in enumerate(curves)]
    metric = criterion.metric if criterion else "training/loss"
    parts = [curve(n, steps, values, metric) for n, (steps, values) in enumerate(curves.values())]
    return frames_of(where, records, pd.concat(parts, ignore_index=True))


def gradient_descent(rate: float, max_steps: int) -> tuple[list[int], list[float], bool]:
    """F1: 0.5 sum(h x^2) with h = (1, 0.1) from (1, 1); steps, losses, and whether it diverged."""
    h, x = np.array([1.0, 0.1]), np.ones(2)
    losses: list[float] = []
    for _ in range(max_steps):
        x = x - rate * h * x
        losses.append(float(0.5 * (h * x * x).sum()))
        if losses[-1] > 1e6:
            break
    return list(range(1, len(losses) + 1)), losses, losses[-1] > 1e6


def quadratic_fits(rates: tuple[float, ...], max_steps: int) -> pd.DataFrame:
    curves, states = {}, {}
    for rate in rates:
        steps, losses, diverged = gradient_descent(rate, max_steps)
        curves[rate] = steps, losses
        states[rate] = State.INFEASIBLE if diverged else State.COMPLETE
    return fits_of(curves, states=states)


def fit_steps(fits: pd.DataFrame) -> dict[float, int | None]:
    known = zip(fits["learning_rate"], fits["first_fit"], strict=True)
    return {rate: None if pd.isna(steps) else int(steps) for rate, steps in known}


def only(values: list[float], criterion: FitCriterion = FITTED, state: State = State.COMPLETE) -> pd.Series:
    """The row of one trial evaluated at 10, 20, 30, ... steps."""
    steps = [10 * (i + 1) for i in range(len(values))]
    return fits_of({0.1: (steps, values)}, criterion, {0.1: state}).iloc[0]


def test_steps_to_fit_the_quadratic_are_those_of_f1():
    fits = quadratic_fits((0.01, 0.1, 0.3, 1.0, 1.5, 1.9, 2.1), 2000)
    assert fit_steps(fits) == {0.01: 1956, 0.1: 195, 0.3: 65, 1.0: 19, 1.5: 13, 1.9: 30, 2.1: None}
    assert fits["state"].tolist() == ["complete"] * 6 + ["infeasible"]
    assert fits.loc[fits["learning_rate"] == 1.5, "last_unfit"].item() == 12


def test_the_fit_lies_after_the_last_unfit_evaluation_and_at_or_before_the_first_fit_one():
    row = only([1.0, 0.5, 0.0, 0.0])
    assert (row["last_unfit"], row["first_fit"], row["crossed_at"]) == (20, 30, 30)


def test_a_fit_at_the_first_evaluation_began_after_step_0():
    row = only([0.0, 0.0])
    assert (row["last_unfit"], row["first_fit"]) == (0, 10)


def test_one_lucky_evaluation_is_no_fit_and_is_reported_as_a_crossing():
    row = only([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    assert (row["crossed_at"], row["last_unfit"], row["first_fit"]) == (20, 30, 40)
    alone = only([1.0, 0.0, 1.0, 1.0])
    assert alone["crossed_at"] == 20
    assert pd.isna(alone["first_fit"])
    assert pd.isna(alone["last_unfit"])


def test_a_fit_at_the_last_evaluation_counts():
    row = only([1.0, 1.0, 0.0])
    assert (row["last_unfit"], row["first_fit"]) == (20, 30)


@pytest.mark.parametrize(
    ("fitted", "first"),
    [
        ([], None),
        ([False], None),
        ([True], 0),
        ([True, False], None),
        ([False, True, True, False], 1),
        ([True, True], 0),
    ],
)
def test_first_sustained(fitted, first):
    assert first_sustained(np.array(fitted, dtype=bool)) == first


def test_what_is_not_finite_never_fits():
    assert pd.isna(only([np.nan, np.nan, -np.inf])["first_fit"])
    row = only([1.0, 0.0, np.nan, 0.0, 0.0])
    assert (row["last_unfit"], row["first_fit"]) == (30, 40)


def test_a_last_value_that_is_not_finite_has_no_shortfall():
    for last in (np.nan, np.inf):
        row = only([1.0, 1.0, 1.0, last])
        assert np.isnan(row["shortfall"])
        assert np.isnan(row["late_improvement"])


def test_a_trial_that_diverged_did_not_fit_whatever_it_crossed():
    row = only([1.0, 0.0, 0.0], state=State.INFEASIBLE)
    assert row["crossed_at"] == 20
    assert pd.isna(row["first_fit"])


def test_a_trial_without_measurements_has_a_row():
    row = only([], state=State.FAILED)
    assert np.isnan(row["final_value"])
    assert pd.isna(row["crossed_at"])


def test_accuracy_fits_from_below():
    row = only([0.5, 0.9, 1.0, 1.0], at_least("training/accuracy", 1.0))
    assert (row["last_unfit"], row["first_fit"]) == (20, 30)
    short = only([0.5, 0.9], at_least("training/accuracy", 1.0))
    assert short["shortfall"] == pytest.approx(0.1)


def test_late_improvement_is_what_the_last_quarter_gained_on_the_third():
    # Quarters of two evaluations: 0.501 and 0.401 above a threshold of 0.001, so a fifth nearer.
    row = only([1.0, 1.0, 0.8, 0.8, 0.501, 0.501, 0.401, 0.401])
    assert row["late_improvement"] == pytest.approx(0.2)


def test_the_noise_of_a_late_improvement_is_that_of_two_quarter_means():
    # Second differences of 0.3, 0.5, 0.3, 0.5 are -0.4 and 0.4: one evaluation has 0.4 / sqrt(6) = 0.1633.
    # Means of two differ by 0.1633 * sqrt(2 / 2), relative to a mean distance of 0.4.
    row = only([1.0, 1.0, 1.0, 1.0, 0.3, 0.5, 0.3, 0.5], at_most("training/loss", 0.0))
    assert row["late_noise"] == pytest.approx(0.1633 / 0.4, rel=1e-3)


def test_rows_are_sorted_by_learning_rate_and_have_all_columns():
    fits = fits_of({1.0: ([1], [2.0]), 0.1: ([1], [2.0])})
    assert fits["learning_rate"].tolist() == [0.1, 1.0]
    assert tuple(fits.columns) == FIT_COLUMNS


def test_a_study_without_a_fit_criterion_is_refused():
    with pytest.raises(DeclarationError, match="declare fitted_when"):
        fits_of({0.1: ([1], [2.0])}, None)


def test_coarse_evaluation_gives_wide_intervals_that_hold_the_fine_answer():
    fine, coarse = logistic_fits(every=1), logistic_fits(every=250)
    assert (fine["first_fit"] - fine["last_unfit"] == 1).all()
    assert (coarse["first_fit"] - coarse["last_unfit"] == 250).all()
    assert (coarse["last_unfit"] < fine["first_fit"]).all()
    assert (fine["first_fit"] <= coarse["first_fit"]).all()


def test_the_higher_rate_fits_the_separable_logistic_regression_sooner():
    steps = fit_steps(logistic_fits(every=1))
    assert steps[10.0] < steps[1.0] < steps[0.3]


def logistic_fits(every: int, max_steps: int = 2000) -> pd.DataFrame:
    """F3 with full batches, where the error rate falls for good: n = 200, d = 20, separable."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20))
    y = np.where(x @ rng.standard_normal(20) > 0, 1.0, -1.0)
    curves = {}
    for rate in (0.3, 1.0, 10.0):
        w, errors = np.zeros(20), []
        for _ in range(max_steps):
            w = w + rate * (y / (1 + np.exp(np.clip(y * (x @ w), -50, 50)))) @ x / len(x)
            errors.append(float((np.sign(x @ w) != y).mean()))
        steps = list(range(every, max_steps + 1, every))
        curves[rate] = steps, [errors[step - 1] for step in steps]
    return fits_of(curves, at_most("training/error_rate", 0.0))


def test_the_interval_of_a_curve_that_does_not_fit_is_none():
    assert fit_interval(pd.DataFrame({"step": [10, 20], "value": [1.0, 1.0]}), FITTED) is None
