"""Rounds for a total of steps: within it, growing, ending at the production length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner import Campaign, Round, SearchSpace, Workload, log_uniform, minimize
from tuner.errors import DeclarationError
from tuner.rounds.round_lengths import declaration_words, planned_rounds, rounds_for


class Toy(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")


SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))


def campaign(*later, production=8000, trials=24):
    rounds = [Round("first", trials=trials, space=SPACE), *later]
    return Campaign(Toy(), rounds, production_steps=production)


FINAL = Round("final", promote=2, rate_arms=(1.0, 0.5))


def test_the_declared_rounds_with_their_cost_and_relevance():
    """24 x 800 = 19,200; 2 promoted, 2 again, 1 at half the rate: 5 x 8,000 = 40,000."""
    first, final = planned_rounds(campaign(FINAL))
    assert (first.trials, first.max_train_steps, first.relevance, first.steps) == (24, 800, 0.1, 19_200)
    assert (final.promoted, final.fresh, final.arms, final.relevance, final.steps) == (2, 2, 1, 1.0, 40_000)


def test_a_total_is_shared_between_a_few_long_trials_and_a_search():
    """Of 100,000: 5 long trials are the most half of it buys 6 of; 60,000 are left: 75 of 800."""
    first, final = rounds_for(campaign(FINAL), 100_000)
    assert (first.trials, final.trials) == (75, 5)
    assert declaration_words(first) == "trials=75, max_train_steps=800"
    assert declaration_words(final) == "promote=3, fresh=2, max_train_steps=8000"


def test_more_rounds_spend_alike_and_fewer_points_go_on():
    """Lengths 800, 2,530, 8,000; 100,000 - 40,000 shared by two: 37 of 800, 11 of 2,530; 2,570 left: 3 more."""
    first, middle, final = rounds_for(campaign(FINAL), 100_000, 3)
    assert [one.max_train_steps for one in (first, middle, final)] == [800, 2530, 8000]
    assert [one.trials for one in (first, middle, final)] == [40, 11, 5]
    assert (middle.promoted, middle.fresh) == (9, 2)


@given(
    total=st.integers(1000, 10**7),
    production=st.integers(100, 10**5),
    count=st.integers(1, 5),
    promote=st.integers(1, 5),
)
def test_a_plan_never_costs_more_than_the_total_and_ends_at_the_production_length(total, production, count, promote):
    declared = campaign(Round("final", promote=promote), production=production)
    try:
        planned = rounds_for(declared, total, count)
    except DeclarationError:
        return  # said what it takes: the test below
    assert sum(one.steps for one in planned) <= total
    assert planned[-1].max_train_steps == production
    assert len(planned) == count
    trials = [one.trials for one in planned]
    assert trials == sorted(trials, reverse=True) or trials[-1] <= promote + 2
    assert all(one.trials >= 1 for one in planned)
    assert planned[0].searched >= 10


def test_too_small_a_total_says_what_it_takes():
    """10 x 800 and one run of 8,000."""
    with pytest.raises(DeclarationError, match=r"10,000 steps buy no search of 10 points .* that takes 16,000"):
        rounds_for(campaign(FINAL), 10_000)
    assert sum(one.steps for one in rounds_for(campaign(FINAL), 16_000)) == 16_000
