"""The fit over a search space: a function whose minimum, slope and ridge are known by construction."""

import numpy as np
import pytest

from tuner.analysis.response import TAIL, fitted_response, followed, ridges, scores_of
from tuner.analysis.robust_response import robust_response

GRID = np.stack(np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 1, 6)), axis=-1).reshape(-1, 2)


def bowl(units, center=(0.3, 0.7)):
    return ((units - np.array(center)) ** 2).sum(axis=1)


def scattered(count, dims=2, seed=0):
    return np.random.default_rng(seed).random((count, dims))


# Scores


@pytest.mark.parametrize(
    "values", [np.linspace(1.0, 2.0, 20), np.geomspace(1.0, 100.0, 20), -np.geomspace(1.0, 3.0, 9)]
)
def test_a_score_and_its_value_are_inverse_to_each_other(values):
    scale = scores_of(values)
    near = values[(values - scale.best) / scale.reach < TAIL]
    assert [scale.value(score) for score in scale.of(near)] == pytest.approx(near.tolist())


def test_scores_have_mean_0_and_deviation_1_and_keep_the_order():
    values = np.linspace(0.2, 0.8, 30)
    scores = scores_of(values).of(values)
    assert scores.mean() == pytest.approx(0.0, abs=1e-12)
    assert scores.std() == pytest.approx(1.0)
    assert (np.diff(scores) > 0).all()


def test_a_long_tail_of_bad_values_is_pulled_in():
    values = np.concatenate([np.linspace(1.0, 2.0, 30), [1e6]])
    scale = scores_of(values)
    scores = scale.of(values)
    assert scores[-1] == scale.of(np.array([scale.best + TAIL * scale.reach]))[0]
    assert scores[-1] - scores[-2] < 4.0


def test_the_slope_of_the_scale_is_its_derivative():
    scale = scores_of(np.geomspace(1.0, 50.0, 25))
    for score in (-1.0, 0.0, 1.0):
        numeric = (scale.value(score + 1e-6) - scale.value(score - 1e-6)) / 2e-6
        assert scale.slope(score) == pytest.approx(numeric, rel=1e-5)


def test_values_that_do_not_differ_have_one_score():
    scale = scores_of(np.full(8, 0.5))
    assert scale.of(np.array([0.5, 0.5])).tolist() == [0.0, 0.0]
    assert scale.value(0.0) == 0.5


# The response


def test_the_minimum_of_a_bowl_is_found():
    response = fitted_response(GRID, bowl(GRID))
    assert response.minimizer() == pytest.approx([0.3, 0.7], abs=0.04)


def test_the_difference_of_two_places_has_the_sign_of_the_function():
    response = fitted_response(GRID, bowl(GRID))
    gain, error = response.difference(np.array([1.0, 0.0]), np.array([0.3, 0.7]))
    assert gain > 10 * error > 0.0
    back, same = response.difference(np.array([0.3, 0.7]), np.array([1.0, 0.0]))
    assert (back, same) == pytest.approx((-gain, error))
    assert response.difference(np.array([0.5, 0.5]), np.array([0.5, 0.5]))[0] == 0.0


def test_a_dimension_that_does_not_matter_changes_nothing():
    units = scattered(40, 3)
    response = fitted_response(units, (units[:, 0] - 0.5) ** 2)
    for column, least, most in ((0, 0.5, np.inf), (1, 0.0, 0.2), (2, 0.0, 0.2)):
        one, other = np.full(3, 0.5), np.full(3, 0.5)
        one[column] = 1.0
        assert least <= abs(response.difference(one, other)[0]) <= most


def test_the_uncertainty_grows_away_from_the_trials():
    units = 0.2 * scattered(30)
    response = fitted_response(units, bowl(units, (0.1, 0.1)))
    near, far = response.deviation(np.array([[0.1, 0.1], [1.0, 1.0]]))
    assert far > 2.0 * near


def test_the_noise_of_the_trials_is_recovered():
    units = scattered(120)
    clean = bowl(units, (0.5, 0.5)) * 4.0
    values = clean + 0.2 * np.random.default_rng(1).standard_normal(len(clean))
    response = fitted_response(units, values)
    assert response.noise * response.scores.slope(0.0) == pytest.approx(0.2, rel=0.35)
    assert fitted_response(units, clean).noise < 0.05


def test_noise_that_is_known_is_the_least_of_the_fit():
    units = scattered(40)
    response = fitted_response(units, bowl(units), least_noise=0.1)
    assert response.noise * response.scores.slope(0.0) > 0.05
    assert fitted_response(units, bowl(units)).noise < response.noise


def test_columns_that_are_held_stay_where_they_are():
    response = fitted_response(GRID, bowl(GRID))
    held = response.minimizer({0: 0.9})
    assert held[0] == 0.9
    assert held[1] == pytest.approx(0.7, abs=0.06)


def test_a_discrete_column_is_0_or_1():
    units = scattered(40)
    units[:, 1] = np.arange(40) % 2
    values = (units[:, 0] - 0.4) ** 2 + 0.5 * units[:, 1]
    best = fitted_response(units, values, discrete=(1,)).minimizer()
    assert best[1] == 0.0
    assert best[0] == pytest.approx(0.4, abs=0.05)


def test_equal_data_give_equal_fits():
    first, second = (fitted_response(GRID, bowl(GRID)) for _ in range(2))
    assert first.minimizer().tolist() == second.minimizer().tolist()
    assert first.noise == second.noise


# Ridges


def valley(units):
    """Low along x + y = 1, whatever x is."""
    return 10.0 * (units.sum(axis=1) - 1.0) ** 2


def test_two_dimensions_that_make_up_for_each_other_are_a_ridge():
    units = scattered(50)
    response = fitted_response(units, valley(units))
    assert ridges(response, response.minimizer(), [0, 1]) == [(0, 1)]
    assert response.across[0] * response.across[1] > 0.0, "both count in the direction across x + y = 1"


def test_a_bowl_has_no_ridge():
    response = fitted_response(GRID, bowl(GRID))
    assert ridges(response, response.minimizer(), [0, 1]) == []
    assert response.across.tolist() == [0.0, 0.0]


def test_the_others_follow_along_a_ridge():
    units = scattered(50)
    response = fitted_response(units, valley(units))
    moved = followed(response, np.array([0.5, 0.5]), {0: 0.8})
    assert moved[0] == 0.8
    assert moved[1] == pytest.approx(0.2, abs=0.1)


def test_without_a_ridge_the_others_stay():
    response = fitted_response(GRID, bowl(GRID))
    best = response.minimizer()
    moved = followed(response, best, {0: 0.8})
    assert moved[0] == 0.8
    assert moved[1] == pytest.approx(best[1], abs=0.05)


# Bad luck and plateaus


def test_trials_that_failed_by_luck_are_set_aside():
    units = scattered(40)
    values = bowl(units)
    unlucky = [3, 11, 25]
    values[unlucky] += 5.0
    response, kept = robust_response(units, values)
    assert np.flatnonzero(~kept).tolist() == unlucky
    assert response.minimizer() == pytest.approx([0.3, 0.7], abs=0.06)


def test_where_every_trial_fits_none_is_set_aside():
    _, kept = robust_response(GRID, bowl(GRID))
    assert kept.all()


def test_a_plateau_of_guessing_does_not_move_the_minimum():
    units = scattered(60)
    values = np.minimum(bowl(units), 0.15)
    assert (values == 0.15).mean() > 0.3
    response, _ = robust_response(units, values)
    assert response.minimizer() == pytest.approx([0.3, 0.7], abs=0.08)


def test_too_few_trials_are_taken_as_they_are():
    units = scattered(9)
    values = bowl(units)
    values[2] += 10.0
    _, kept = robust_response(units, values)
    assert kept.all()
