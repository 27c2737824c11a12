"""Trials of equal points, and what their spread is, against numbers computed by hand."""

import math

import pytest
from analysis.handmade import frames_of_values, study

from tuner.analysis.replicates import replicate_groups, replicate_spread
from tuner.design.hyperparameters import choice, log_uniform
from tuner.design.space import SearchSpace

SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), width=choice(1, 2, 4))


def point(rate, width=1):
    return {"learning_rate": rate, "width": width}


def test_equal_points_are_one_group_whatever_became_of_the_trials():
    points = [point(0.01), point(0.02), point(0.01), point(0.01, 2), point(0.01), point(0.02)]
    frames = frames_of_values(study(SPACE), points, [1.0, 5.0, 3.0, 9.0, None, 7.0])
    assert replicate_groups(frames) == [(0, 2, 4), (1, 5)]
    assert replicate_groups(frames, minimum=3) == [(0, 2, 4)]


def test_the_spread_is_pooled_over_the_points_that_have_replicates():
    """(1, 3, 5): sum of squares 8, freedom 2; (2, 4): 2, freedom 1; together sqrt(10 / 3)."""
    points = [point(0.01)] * 3 + [point(0.02)] * 2 + [point(0.03)]
    spread = replicate_spread(frames_of_values(study(SPACE), points, [1.0, 3.0, 5.0, 2.0, 4.0, 100.0]))
    assert spread is not None
    assert (spread.sd, spread.freedom, spread.points) == (pytest.approx(math.sqrt(10 / 3)), 3, 2)
    assert spread.trials == 5


def test_copies_of_one_run_show_no_luck():
    points = [point(0.01)] * 3 + [point(0.02)] * 2
    frames = frames_of_values(study(SPACE), points, [1.0, 1.0, 1.0, 2.0, 4.0])
    spread = replicate_spread(frames)
    assert spread is not None
    assert (spread.sd, spread.freedom) == (pytest.approx(math.sqrt(2)), 1)
    assert replicate_spread(frames_of_values(study(SPACE), points[:3], [1.0] * 3)) is None


def test_values_of_other_types_are_other_points():
    space = SearchSpace(mixed=choice(1, 1.0, True, "1", None))
    points = [{"mixed": value} for value in (1, 1.0, True, "1", None, 1, None)]
    frames = frames_of_values(study(space), points, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert replicate_groups(frames) == [(0, 5), (4, 6)]
