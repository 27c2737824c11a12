"""The lengths of a compute-bound campaign's rounds: geometric, growing, all known at once."""

from itertools import pairwise

import pytest

from tuner import Campaign, Round, SearchSpace, Workload, inverse_sqrt, log_uniform, minimize
from tuner.errors import DeclarationError, TransferError
from tuner.rounds.round_lengths import check_transfer, compute_bound_lengths, geometric_lengths, many_rounds_note


class Toy(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")


SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))


def campaign(*steps, **more):
    """Rounds of these lengths; the first searches, the others promote."""
    rounds = [Round("first", trials=8, space=SPACE, max_train_steps=steps[0])]
    rounds += [Round(f"round {n}", promote=2, max_train_steps=length) for n, length in enumerate(steps[1:], 2)]
    return Campaign(Toy(), rounds, **more)


@pytest.mark.parametrize(
    ("declared", "production", "lengths"),
    [
        ((None, None), 8000, (800, 8000)),  # 10 % first (A30)
        ((None, None, None), 10_000, (1000, 3163, 10_000)),  # the ratio is the square root of 10
        ((None,), 500, (500,)),
        ((1000, None, None, None), 8000, (1000, 2000, 4000, 8000)),  # from what is declared on
        ((None, 500, None), 8000, None),  # 800, 500: does not grow
        ((100, None, 900), None, (100, 300, 900)),  # nothing else needs to be known
    ],
)
def test_rounds_grow_geometrically_to_the_production_length(declared, production, lengths):
    declared = campaign(*declared, production_steps=production)
    if lengths is None:
        with pytest.raises(DeclarationError, match=r"round 2 would train 500 steps, no more than round 1 with 800"):
            compute_bound_lengths(declared)
    else:
        assert compute_bound_lengths(declared) == lengths


def test_the_ratio_is_constant():
    lengths = geometric_lengths(100, 100_000, 4)
    assert [after / before for before, after in pairwise(lengths)] == pytest.approx([10, 10, 10])


def test_equal_lengths_are_refused():
    """(10 %, 10 %) of A31."""
    with pytest.raises(DeclarationError, match="must grow"):
        compute_bound_lengths(campaign(100, 100, production_steps=1000))


def test_a_length_nobody_says_is_asked_for():
    with pytest.raises(DeclarationError, match="declare production_steps"):
        compute_bound_lengths(campaign(None, None))


def test_only_more_than_three_rounds_are_remarked_on():
    assert many_rounds_note(3) is None
    assert "very mature" in many_rounds_note(4)


def test_a_schedule_without_a_rule_is_asked_about_before_anything_is_trained():
    silent = campaign(None, None, production_steps=1000, schedule=inverse_sqrt(20))
    with pytest.raises(TransferError, match=r"round 2: no rule carries .*transfer='hold_then_decay'"):
        check_transfer(silent)
    rounds = [silent.rounds[0], Round("final", promote=2, transfer="retune")]
    check_transfer(Campaign(Toy(), rounds, schedule=inverse_sqrt(20), production_steps=1000))
