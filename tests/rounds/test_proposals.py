"""Model-based proposals: functions of records, seed and number, so that no restart and no parallelism shows."""

import math
from functools import cache

import numpy as np
import optuna
import pytest
from cmaes import CMA

from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.seeds import derived_seed
from tuner.design.space import SearchSpace, branches
from tuner.errors import DeclarationError
from tuner.rounds.proposals import Known, Search, proposed_batch, quiet

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1.0), dropout=uniform(0.0, 0.5), width=integers(8, 64), momentum=0.9
)
SAMPLERS = ("tpe", "gp", "cmaes")


def value(point):
    """Least at learning rate 0.01, dropout 0.2, width 40."""
    width = (point["width"] - 40) / 56
    return math.log10(point["learning_rate"] / 0.01) ** 2 + 4 * (point["dropout"] - 0.2) ** 2 + width**2


def measured(point):
    """Diverged above a learning rate of 0.3, where there is no value."""
    return Known(point, None, False) if point["learning_rate"] > 0.3 else Known(point, value(point))


def explored(count=20):
    return [measured(point) for point in quasi_random_points(SPACE, seed=3, start=0, count=count)]


def search_by(sampler):
    return Search(SPACE, "minimize", sampler, 2 if sampler == "gp" else 4, 11)


@cache  # a Gaussian process takes a second for a proposal
def searched(sampler):
    search, done = search_by(sampler), []
    for _ in range(2 if sampler == "gp" else 3):
        done.append(tuple(measured(point) for point in proposed_batch(search, explored(), done)))
    return done


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_comes_nearer_to_the_optimum_than_the_exploration(sampler):
    found = [known for batch in searched(sampler) for known in batch]
    assert len({known.point for known in found}) == len(found), "points of a batch differ"
    assert all(known.point["momentum"] == 0.9 for known in found)
    best = min(known.value for known in found if known.feasible)
    assert best < min(known.value for known in explored() if known.feasible)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_knows_all_earlier_ones_and_nothing_of_itself(sampler):
    """Proposed again from the records of the earlier batch: the same points, whatever became of them."""
    first, second = searched(sampler)[:2]
    search = search_by(sampler)
    again = proposed_batch(search, explored(), [first])
    assert again == tuple(known.point for known in second)
    other = [Known(known.point, 9.0 - value(known.point)) for known in first]
    assert proposed_batch(search, explored(), [other]) != again


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_infeasible_trials_are_kept_away_from(sampler):
    """A seventh of the space diverges."""
    assert sum(not known.feasible for known in explored()) >= 2
    assert sum(not known.feasible for batch in searched(sampler) for known in batch) <= 1


def test_tpe_one_by_one_is_what_optuna_itself_proposes():
    """Against one Optuna study that lives through the whole search, told as Optuna's users tell it."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 0.3), dropout=uniform(0.0, 0.5), width=integers(8, 64))
    points = quasi_random_points(space, seed=3, start=0, count=8)
    with quiet():
        live = optuna.create_study()
        for point in points:
            live.enqueue_trial(dict(point))
        asked = []
        for number in range(-8, 5):
            seed = derived_seed("proposal", 11, number) % 2**32
            live.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5)
            trial = live.ask()
            point = {
                "learning_rate": trial.suggest_float("learning_rate", 1e-4, 0.3, log=True),
                "dropout": trial.suggest_float("dropout", 0.0, 0.5),
                "width": trial.suggest_int("width", 8, 64),
            }
            live.tell(trial, value(point))
            asked.append(point)
    search, done = Search(space, "minimize", "tpe", 1, 11), []
    first = [Known(Point.of(point), value(point)) for point in asked[:8]]
    for _ in range(5):
        done.append([Known(point, value(point)) for point in proposed_batch(search, first, done)])
    assert [dict(batch[0].point) for batch in done] == asked[8:]


def test_cmaes_is_told_every_generation():
    """Against the optimizer kept alive: its state depends only on what it was told."""
    space = SearchSpace(a=uniform(0.0, 1.0), b=uniform(0.0, 1.0))
    search, done = Search(space, "maximize", "cmaes", 6, 5), []
    for _ in range(3):
        points = proposed_batch(search, [], done)
        done.append([Known(point, -((point["a"] - 0.7) ** 2) - (point["b"] - 0.1) ** 2) for point in points])
    live = CMA(mean=np.full(2, 0.5), sigma=1 / 6, bounds=np.array([[0, 1], [0, 1]]), population_size=6)
    for batch in done:
        live.tell([(np.array([known.point["a"], known.point["b"]]), -known.value) for known in batch])
    live._rng.seed(derived_seed("proposal", 5, 18) % 2**32)
    expected = [tuple(map(float, live.ask())) for _ in range(6)]
    assert [(point["a"], point["b"]) for point in proposed_batch(search, [], done)] == expected


def test_tpe_searches_branches_and_choices():
    space = SearchSpace(
        optimizer=branches(sgd={"learning_rate": log_uniform(1e-3, 10.0)}, adamw={"learning_rate": 0.001}),
        act=choice("relu", "tanh"),
    )  # fmt: skip
    first = [Known(p, float(p["act"] == "relu")) for p in quasi_random_points(space, seed=1, start=0, count=12)]
    points = proposed_batch(Search(space, "minimize", "tpe", 8, 1), first, [])
    assert {point["optimizer"] for point in points} <= {"sgd", "adamw"}
    for point in points:
        assert ("sgd.learning_rate" in point) == (point["optimizer"] == "sgd")
    assert sum(point["act"] == "tanh" for point in points) > 4


@pytest.mark.parametrize(
    ("space", "sampler", "batch", "told"),
    [
        (SearchSpace(act=choice("a", "b"), x=uniform(0.0, 1.0)), "cmaes", 8, "cmaes cannot search act"),
        (SearchSpace(o=branches(a={"x": uniform(0.0, 1.0)}, b={})), "gp", 8, r"gp cannot search a\.x"),
        (SPACE, "cmaes", 3, "cmaes proposes at least 4 points at a time, got 3"),
        (SPACE, "tpe", 0, "tpe proposes at least 1 points at a time, got 0"),
        (SPACE, "random", 8, "a sampler is one of tpe, gp, cmaes, got 'random'"),
    ],
)
def test_what_a_sampler_cannot_search_is_refused(space, sampler, batch, told):
    with pytest.raises(DeclarationError, match=told):
        Search(space, "minimize", sampler, batch, 0)
