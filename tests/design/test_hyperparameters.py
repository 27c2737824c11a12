"""A hyperparameter is a name with a range or choices, on a scale, with a family and an off value."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.design.hyperparameters import Choice, Range, choice, fixed, integers, log_grid, log_uniform, uniform
from tuner.errors import DeclarationError

REAL = st.floats(-1e6, 1e6, allow_subnormal=False)
POSITIVE = st.floats(1e-9, 1e9)


@given(low=REAL, width=st.floats(1e-3, 1e6), unit=st.floats(0, 1))
def test_position_and_value_are_inverse_on_a_linear_scale(low, width, unit):
    domain = uniform(low, low + width)
    value = domain.value_at(unit)
    assert domain.low <= value <= domain.high
    assert value == pytest.approx(low + unit * (domain.high - low), rel=1e-9, abs=1e-6)
    assert domain.unit_of(value) == pytest.approx(unit, abs=1e-6)


@given(low=POSITIVE, decades=st.floats(0.01, 6), unit=st.floats(0, 1))
def test_position_and_value_are_inverse_on_a_log_scale(low, decades, unit):
    domain = log_uniform(low, low * 10**decades)
    value = domain.value_at(unit)
    assert domain.low <= value <= domain.high
    assert value == pytest.approx(low * 10 ** (decades * unit), rel=1e-9)
    assert domain.unit_of(value) == pytest.approx(unit, abs=1e-6)


def test_the_middle_of_a_log_range_is_the_geometric_mean():
    assert log_uniform(1e-4, 1e-2).value_at(0.5) == pytest.approx(1e-3)


def test_a_range_reaches_from_end_to_end():
    for domain in (uniform(0.1, 0.7), log_uniform(1e-4, 0.3), integers(3, 9), integers(3, 900, log=True)):
        assert (domain.value_at(0.0), domain.value_at(1.0)) == pytest.approx((domain.low, domain.high), rel=1e-14)
        assert (domain.unit_of(domain.low), domain.unit_of(domain.high)) == (0.0, 1.0)


def test_values_beyond_a_range_lie_outside_the_unit_interval():
    assert uniform(0, 10).unit_of(15) == 1.5
    assert log_uniform(1e-3, 1e-1).unit_of(1e-5) == pytest.approx(-1.0)
    assert log_uniform(1e-3, 1e-1).unit_of(0.0) == -math.inf  # an off value


@given(low=st.integers(-50, 50), count=st.integers(2, 40))
def test_whole_numbers_get_equal_shares_the_ends_too(low, count):
    domain = integers(low, low + count - 1)
    middles = [(i + 0.5) / count for i in range(count)]
    assert [domain.value_at(unit) for unit in middles] == list(range(low, low + count))
    edges = [domain.value_at((i + shift) / count) for i in range(count) for shift in (1e-6, 1 - 1e-6)]
    assert edges == [low + i for i in range(count) for _ in range(2)]
    assert all(type(value) is int for value in edges)


@given(low=st.integers(1, 100), high=st.integers(101, 10_000), data=st.data())
def test_every_whole_number_of_a_log_range_can_be_drawn_and_is_found_again(low, high, data):
    domain = integers(low, high, log=True)
    value = data.draw(st.integers(low, high))
    assert 0 <= domain.unit_of(value) <= 1
    edge = (math.log(value) - math.log(low - 0.5)) / (math.log(high + 0.5) - math.log(low - 0.5))
    assert domain.value_at(edge) == value


@given(
    values=st.lists(st.one_of(st.text(), st.integers(), st.none()), min_size=2, max_size=8, unique_by=repr),
    data=st.data(),
)
def test_choices_get_equal_shares(values, data):
    index = data.draw(st.integers(0, len(values) - 1))
    domain = choice(*values)
    assert domain.value_at((index + 0.01) / len(values)) == values[index]
    assert domain.value_at((index + 0.99) / len(values)) == values[index]
    assert domain.value_at(1.0) == values[-1]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: uniform(1, 1), "low < high, got 1.0 and 1.0; a value that does not vary is written as a plain number"),
        (lambda: uniform(2, 1), "low < high, got 2.0 and 1.0"),
        (lambda: log_uniform(1e-1, 1e-4), "low < high, got 0.1 and 0.0001"),
        (lambda: integers(9, 3), "low < high, got 9 and 3"),
        (lambda: uniform(0, math.inf), "finite bounds .* got 0.0 and inf"),
        (lambda: integers(1, math.inf), "finite bounds .* got 1 and inf"),
        (lambda: uniform(math.nan, 1), "finite bounds .* got nan and 1.0"),
        (lambda: log_uniform(0, 1), "a log scale needs a positive lower bound, got 0.0; .* linear scale"),
        (lambda: log_uniform(-1, 1), "a log scale needs a positive lower bound, got -1.0"),
        (lambda: integers(0, 8, log=True), "a log scale needs a positive lower bound, got 0"),
        (lambda: integers(1.5, 8), "integers needs whole bounds, got 1.5 and 8; use uniform"),
        (lambda: integers(1, 8.5), "integers needs whole bounds, got 1 and 8.5"),
        (lambda: Range(0.5, 8, integer=True), "integers needs whole bounds, got 0.5 and 8"),
        (lambda: uniform("0", 1), r"bounded by numbers, got '0'; choice\(...\) takes other values"),
        (lambda: log_uniform(1e-3, None), "bounded by numbers, got None"),
        (lambda: integers("1", 8), "bounded by numbers, got '1'"),
        (lambda: uniform(False, True), "bounded by numbers, got False"),
        (lambda: uniform(0, 1, family="regularisation"), "family is one of .*regularization.*, got 'regularisation'"),
        (lambda: choice(1, 2, family="optim"), "family is one of .*, got 'optim'"),
        (lambda: fixed(1, family="regularisation"), "family is one of .*, got 'regularisation'"),
        (lambda: uniform(0, 1, limits="left"), "limits is one of none, low, high, both, got 'left'"),
        (lambda: choice("relu"), r"at least two different values, got \['relu'\]"),
        (lambda: choice("relu", "relu"), r"at least two different values, got \['relu', 'relu'\]"),
        (lambda: choice([1, 2, 3]), r"got \[1, 2, 3\]; write choice\(1, 2, 3\), not choice\(\[1, 2, 3\]\)"),
        (lambda: choice((1, 2), (3, 4)), r"got \(1, 2\); .* name structures by a string"),
        (lambda: choice(math.sin, math.cos), "got <built-in function sin>; name it by a string"),
        (lambda: choice(0.1, math.nan), "a choice must be finite, got nan"),
        (lambda: choice("a", "b", off="c"), r"off='c' is not among the choices \['a', 'b'\]"),
        (lambda: fixed(math.inf), "a fixed value must be finite, got inf"),
        (lambda: fixed([1, 2]), r"a fixed value holds None, booleans, numbers and strings, got \[1, 2\]"),
        (lambda: log_grid(1.0, 1e-4), "low < high, got 1.0 and 0.0001"),
        (lambda: log_grid(0, 1), "a log scale needs a positive lower bound, got 0"),
        (lambda: log_grid(1e-4, 1, per_decade=0), "per_decade must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_a_domain_is_refused_with_its_value(declare, message):
    with pytest.raises(DeclarationError, match=message):
        declare()


def test_numbers_of_numpy_and_whole_floats_are_numbers():
    assert integers(np.int64(1), 8.0) == integers(1, 8)
    assert uniform(np.float32(0.5), np.int64(2)) == uniform(0.5, 2.0)


def test_a_choice_can_be_switched_off_by_none():
    assert choice("mixup", None, off=None) == Choice(("mixup", None), None, None, True)
    assert choice("mixup", None) == Choice(("mixup", None), None, None, False)


def test_a_grid_of_four_decades_has_thirteen_rates():
    grid = log_grid(1e-4, 1.0)
    assert len(grid) == 13
    assert grid[::3] == (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    assert grid[1] == pytest.approx(2.15443e-4, rel=1e-5)


@given(low=POSITIVE, decades=st.floats(0.01, 8), per_decade=st.integers(1, 10))
def test_a_grid_includes_its_ends_and_is_at_least_as_dense_as_asked(low, decades, per_decade):
    high = low * 10**decades
    grid = log_grid(low, high, per_decade)
    assert (grid[0], grid[-1]) == (low, high)
    ratios = [later / earlier for earlier, later in pairwise(grid)]
    assert max(ratios) <= 10 ** (1 / per_decade) * (1 + 1e-4)
    assert min(ratios) > 1
