"""The space around a winner: exactly what A36 says of each family."""

import math

import pytest

from tuner import SearchSpace, branches, choice, fixed, integers, log_uniform, uniform
from tuner.design.hyperparameters import Constant, Range
from tuner.design.narrowing import narrowed_range, narrowed_space
from tuner.errors import DeclarationError

SPACE = SearchSpace(
    warmup_steps=integers(10, 1000, log=True),
    scale=uniform(0.1, 2.0, family="initialization"),
    activation=choice("relu", "tanh", family="architecture"),
    optimizer=branches(
        sgd={"learning_rate": log_uniform(1e-3, 10.0), "momentum": uniform(0.0, 0.99)},
        adamw={"learning_rate": log_uniform(1e-4, 1e-1)},
    ),
    noise=uniform(0.0, 0.3, family="augmentation", off=0.0, limits="low"),
    dropout=uniform(0.0, 0.6, limits="low"),
    decay_fraction=uniform(0.1, 0.9),
    width=64,
)
WINNER = {
    "warmup_steps": 100, "scale": 0.7, "activation": "tanh", "optimizer": "adamw", "adamw.learning_rate": 1e-2,
    "noise": 0.15, "dropout": 0.02, "decay_fraction": 0.2, "width": 64,
}  # fmt: skip


def test_each_family_is_carried_over_as_likely_as_it_transfers():
    space = narrowed_space(SPACE, WINNER)
    values = {name: constant.value for name, constant in space.fixed}
    assert values == {
        "width": 64,
        "warmup_steps": 100,  # very likely: its absolute value
        "scale": 0.7,
        "activation": "tanh",  # likely: fixed, and confirmed by a control
        "optimizer": "adamw",  # a choice cannot be narrowed
    }
    assert [h.name for h in space] == ["adamw.learning_rate", "noise", "dropout", "decay_fraction"]
    rate = space["adamw.learning_rate"].domain  # a third of three decades around 1e-2
    assert (rate.low, rate.high) == pytest.approx((10**-2.5, 10**-1.5))
    assert (space["noise"].domain.low, space["noise"].domain.high) == pytest.approx((0.1, 0.2))
    assert space["noise"].domain.limits == "none", "0.1 is no physical edge"
    assert space["decay_fraction"] == SPACE["decay_fraction"], "unlikely: tuned again over its whole range"


def test_a_winner_near_an_edge_keeps_a_whole_third_inside_the_range():
    dropout = narrowed_space(SPACE, WINNER)["dropout"].domain
    assert (dropout.low, dropout.high) == pytest.approx((0.0, 0.2))
    assert dropout.limits == "low"
    assert dropout.off == 0.0


def test_points_of_the_narrowed_space_have_all_that_the_winner_has():
    space = narrowed_space(SPACE, WINNER)
    assert set(space.values_at((0.5,) * len(space))) == set(WINNER)


@pytest.mark.parametrize("value", [1, 2, 3, 4])
def test_whole_numbers_keep_the_value_and_a_neighbour(value):
    narrow = narrowed_range(Range(1, 4, integer=True), value)
    assert narrow.integer
    assert 1 <= narrow.low < narrow.high <= 4
    assert narrow.low <= value <= narrow.high


def test_twice_narrowed_is_a_ninth():
    wide = Range(1e-4, 1e-1, log=True)
    twice = narrowed_range(narrowed_range(wide, 1e-2), 1e-2)
    assert math.log(twice.high / twice.low) == pytest.approx(math.log(1e3) / 9)


def test_a_space_whose_values_all_carry_over_leaves_nothing_to_search():
    space = SearchSpace(warmup_steps=integers(10, 100), activation=choice("relu", "tanh", family="architecture"))
    with pytest.raises(DeclarationError, match=r"nothing is left to search .* leave trials out"):
        narrowed_space(space, {"warmup_steps": 20, "activation": "relu"})


def test_a_fixed_value_of_another_branch_is_left_behind():
    space = SearchSpace(optimizer=branches(sgd={"momentum": fixed(0.9)}, adamw={}), learning_rate=log_uniform(1e-4, 1))
    narrow = narrowed_space(space, {"optimizer": "adamw", "learning_rate": 1e-2})
    assert dict(narrow.fixed) == {"optimizer": Constant("adamw", "optimizer")}
