"""Early stopping: the step at which a curve ends, by hand, and the rounds that refuse it."""

import math

import pytest

from tuner import Campaign, OwnLoop, Round, SearchSpace, choice, epochs, log_uniform, maximize, minimize
from tuner.design.patience import stalled, stopping_step
from tuner.errors import DeclarationError

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
LESS = minimize("validation/loss")
FIRST = Round("search", trials=4, space=SPACE, max_train_steps=100)


@pytest.mark.parametrize(
    ("values", "patience", "stop"),
    [
        ([5, 4, 3, 4, 5, 6], 20, 50),  # best at 30; 40 is 10 later, 50 is 20 later
        ([5, 4, 3, 4, 5, 6], 11, 50),  # 40 is only 10 later, so the next evaluation
        ([5, 4, 3, 4, 5, 6], 10, 40),
        ([5, 4, 3, 4, 5, 6], 31, None),  # the curve ends at 60
        ([5, 5, 5, 5], 20, 30),  # an equal value is no improvement: the best is the first
        ([5, 6, 4, 6, 3, 6], 20, None),  # each time it improves in time
        ([math.nan, math.nan, math.nan, 5, 6, 6], 20, 60),  # counted from the first finite value, at 40
        ([5, math.nan, math.inf], 20, 30),  # what is not finite does not improve
        ([math.nan] * 6, 10, None),
        ([5, 6, 7, 8], 0, None),  # no patience: never
    ],
)
def test_a_trial_stops_at_the_first_evaluation_that_is_so_many_steps_after_its_best(values, patience, stop):
    curve = [(10 * place, float(value)) for place, value in enumerate(values, 1)]
    assert stopping_step(curve, LESS, patience) == stop
    assert stopping_step(reversed(curve), LESS, patience) == stop, "the order of the points does not matter"
    more = [(step, -value) for step, value in curve]
    assert stopping_step(more, maximize("validation/accuracy"), patience) == stop


def test_the_limit_itself_stops():
    assert [stalled(30, 10, patience) for patience in (19, 20, 21, 0)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"trials": 4, "space": SPACE}, "searches a space of its own"),
        ({"trials": 4, "space": SPACE, "start": "scratch"}, "searches a space of its own"),
        ({"promote": 2, "trials": 8}, "searches 8 new points"),
        ({"promote": 2, "rate_arms": (1.0, 0.5)}, "compares learning rates"),
    ],
)
def test_a_round_that_compares_trials_refuses_it_with_the_reason_and_the_way_out(declared, why):
    with pytest.raises(DeclarationError) as refused:
        Round("Which?", patience_steps=50, **declared)
    told = str(refused.value)
    assert why in told
    assert "(A11)" in told
    assert "Round('The final model', promote=2, patience_steps=500)" in told


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "50"])
def test_it_is_a_number_of_steps(steps):
    with pytest.raises(DeclarationError, match="patience_steps of round 'The best' must be a whole number"):
        Round("The best", promote=1, patience_steps=steps)


def campaign(*rounds, workload=None, **more):
    from support.tiny import Tiny

    return Campaign(workload or Tiny(), [FIRST, *rounds], name="c", **more)


def test_a_round_from_which_another_follows_refuses_it():
    last = Round("final", promote=1)
    with pytest.raises(DeclarationError, match="is not the last one: round 3 takes its points, or its steps, from it"):
        campaign(Round("second", promote=2, patience_steps=50), last)
    campaign(Round("second", promote=2), Round("final", promote=1, patience_steps=50))


def test_a_round_that_a_control_is_compared_with_refuses_it(tmp_path):
    from tuner import weights_from

    start = weights_from(tmp_path / "w.safetensors", steps=10)
    control = Round("control", trials=4, space=SPACE, start="scratch")
    final = Round("final", promote=2, patience_steps=50)
    with pytest.raises(DeclarationError, match="compared with a control of its length, round 3"):
        campaign(final, control, start_from=start)
    campaign(control, final, start_from=start)


def test_a_patience_below_the_distance_of_evaluations_is_an_error_before_anything_is_trained():
    final = Round("final", promote=2, patience_steps=9, max_train_steps=200)
    with pytest.raises(DeclarationError, match="patience_steps=9 of round 'final' is less than the 10 steps between"):
        campaign(final, evaluations=20)
    with pytest.raises(DeclarationError, match="less than the 30 steps between"):
        campaign(Round("final", promote=2, patience_steps=9), evaluate_every=30)
    with pytest.raises(DeclarationError, match="less than the 50 steps between"):
        campaign(Round("final", promote=2, patience_steps=9), evaluations=20, production_steps=1000)
    campaign(Round("final", promote=2, patience_steps=10, max_train_steps=200), evaluations=20)


def test_it_may_be_written_in_epochs():
    made = campaign(Round("final", promote=2, patience_steps=epochs(10)), evaluations=20)
    assert not made.is_in_steps
    assert made.in_steps(50).round(2).patience_steps == 60  # 50 examples in batches of 8: 6 steps each


@pytest.mark.parametrize("name", ["patience", "patience_steps", "early_stopping", "early_stopping_patience"])
def test_a_search_space_refuses_it_by_name(name):
    with pytest.raises(DeclarationError, match=rf"{name} would stop some trials .*patience_steps=500.*says so"):
        SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **{name: choice(5, 10)})
    with pytest.raises(DeclarationError, match="would stop some trials"):
        SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **{name: 5})
    SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), plateau_patience=choice(5, 10))


def test_a_loop_of_the_users_own_refuses_it():
    class Loop(OwnLoop):
        select_by = LESS

        def train(self, trial):
            """Never called."""

    final = Round("final", promote=2, patience_steps=50)
    with pytest.raises(DeclarationError, match=r"patience_steps = 50 would change nothing, because Loop.train trains"):
        campaign(final, workload=Loop())
    asked = OwnLoop(select_by=LESS)
    with pytest.raises(
        DeclarationError, match="patience_steps = 50 would change nothing, because your own code trains"
    ):
        campaign(final, workload=asked)
