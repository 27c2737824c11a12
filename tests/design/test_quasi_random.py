"""Points are made up front as a function of (space, seed, index), and are more even than random ones (B17, D36)."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace, branches

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-1),
    dropout=uniform(0.0, 0.5),
    depth=integers(1, 6),
    activation=choice("relu", "gelu", "tanh"),
    width=64,
)
SQUARE = SearchSpace(x=uniform(0, 1), y=uniform(0, 1))


def points(space=SPACE, *, seed=0, start=0, count=20):
    return quasi_random_points(space, seed=seed, start=start, count=count)


def test_the_same_space_and_seed_give_the_same_points_in_another_process():
    program = (
        "from tuner.design.quasi_random import quasi_random_points as q; from tuner import *;"
        "s = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5));"
        "print([tuple(p.values()) for p in q(s, seed=3, start=0, count=4)])"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5))
    assert other.strip() == str([tuple(point.values()) for point in points(space, seed=3, count=4)])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**40), start=st.integers(0, 50), count=st.integers(0, 30), more=st.integers(0, 30))
def test_points_are_extended_by_going_on_with_the_index(seed, start, count, more):
    together = points(seed=seed, start=start, count=count + more)
    first = points(seed=seed, start=start, count=count)
    rest = points(seed=seed, start=start + count, count=more)
    assert first + rest == together


def test_the_first_ten_of_twenty_are_the_ten():
    assert points(count=20)[:10] == points(count=10)


def test_other_seeds_give_other_points():
    everything = {point for seed in range(20) for point in points(seed=seed, count=10)}
    assert len(everything) == 200


def test_no_point_is_a_corner_of_the_space():
    """An unscrambled sequence starts at the exact lower corner, and fires the boundary check (D35)."""
    for seed in range(50):
        first = points(seed=seed, count=1)[0]
        assert first["learning_rate"] > 1e-4
        assert first["dropout"] > 0.0


@settings(max_examples=30)
@given(seed=st.integers(0, 2**40))
def test_no_point_lies_outside_its_ranges(seed):
    for point in points(seed=seed, count=50):
        assert list(point) == ["learning_rate", "dropout", "depth", "activation", "width"]
        assert 1e-4 <= point["learning_rate"] <= 1e-1
        assert 0.0 <= point["dropout"] <= 0.5
        assert point["depth"] in range(1, 7)
        assert point["activation"] in ("relu", "gelu", "tanh")
        assert point["width"] == 64


@pytest.mark.parametrize("count", [20, 50, 100])
def test_points_are_more_even_than_uniform_random_ones(count):
    """Centred discrepancy (F10): below the median of random points by half, and below nearly all of them."""

    def discrepancy(sample):
        return qmc.discrepancy(np.asarray(sample, dtype=float), method="CD")

    ours = [discrepancy([tuple(p.values()) for p in points(SQUARE, seed=seed, count=count)]) for seed in range(20)]
    rng = np.random.default_rng(0)
    uniform_random = [discrepancy(rng.random((count, 2))) for _ in range(200)]
    assert np.median(ours) < 0.5 * np.median(uniform_random)
    assert max(ours) < np.quantile(uniform_random, 0.25)


@pytest.mark.parametrize(("count", "published"), [(20, 2.4e-3), (100, 1.5e-4)])
def test_the_discrepancy_is_that_of_a_scrambled_halton_sequence(count, published):
    ours = [
        qmc.discrepancy(np.array([tuple(p.values()) for p in points(SQUARE, seed=seed, count=count)]), method="CD")
        for seed in range(30)
    ]
    assert np.median(ours) == pytest.approx(published, rel=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_choices_and_whole_numbers_are_counted_nearly_evenly(seed):
    drawn = points(seed=seed, count=90)
    activations = Counter(point["activation"] for point in drawn)
    depths = Counter(point["depth"] for point in drawn)
    assert all(abs(activations[name] - 30) <= 3 for name in ("relu", "gelu", "tanh"))
    assert all(abs(depths[depth] - 15) <= 3 for depth in range(1, 7))


def test_a_log_range_is_sampled_evenly_by_decade():
    decades = Counter(int(np.floor(np.log10(point["learning_rate"]))) for point in points(count=90))
    assert all(abs(decades[decade] - 30) <= 3 for decade in (-4, -3, -2))


def test_each_branch_is_sampled_evenly_within_itself():
    space = SearchSpace(
        optimizer=branches(
            sgd={"learning_rate": log_uniform(1e-2, 1)}, adamw={"learning_rate": log_uniform(1e-4, 1e-2)}
        )
    )
    drawn = points(space, count=80)
    for name, middle in (("sgd", 1e-1), ("adamw", 1e-3)):
        rates = [point["learning_rate"] for point in drawn if point["optimizer"] == name]
        assert abs(len(rates) - 40) <= 2
        assert abs(sum(rate < middle for rate in rates) - len(rates) / 2) <= 4


def test_a_wider_range_keeps_the_positions_of_the_points():
    wider = SPACE.widened("dropout", 0.0, 1.0)
    assert [p["dropout"] for p in points(wider)] == pytest.approx([2 * p["dropout"] for p in points(SPACE)])


def test_a_space_that_varies_nothing_has_one_point_many_times():
    assert points(SearchSpace(width=64), count=2) == (Point.of({"width": 64}),) * 2
    assert points(count=0) == ()
