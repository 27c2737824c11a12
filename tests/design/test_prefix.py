"""What decides the first steps of a trial is in its digests, and nothing else is."""

from dataclasses import replace

import pytest
from support.tiny import tiny_study

from tuner import constant, constant_then_decay, cosine, linear
from tuner.budget.step_budget import StepBudget
from tuner.design.points import Point
from tuner.design.prefix import base_digest, path_digests, rates_of
from tuner.design.trial import Trial


def trial_with(schedule, steps=100, warmup=10, **point):
    values = {"sgd.learning_rate": 0.3, "weight_decay": 0.1, **point}
    return Trial(0, Point.of(values), 1, 2, schedule.schedule(steps, warmup), "")


def shared(first, second):
    """Up to which step the digests of two trials agree."""
    one, other = (path_digests(rates_of(t), StepBudget(100, 20), range(101)) for t in (first, second))
    agreeing = [step for step in one if one[step] == other.get(step)]
    assert agreeing == list(range(len(agreeing))), "what once differs never agrees again"
    return agreeing[-1]


def test_schedules_share_the_steps_before_their_learning_rates_part():
    decaying = trial_with(constant_then_decay(20))
    assert shared(decaying, trial_with(constant_then_decay(40))) == 61, "a decay's first update is at the full rate"
    assert shared(decaying, trial_with(constant())) == 81
    assert shared(decaying, trial_with(linear())) == 11
    assert shared(decaying, trial_with(cosine(), warmup=20)) == 0
    assert shared(decaying, trial_with(constant_then_decay(20), steps=200)) == 81


def test_the_least_bit_of_a_learning_rate_counts():
    almost = trial_with(constant(), **{"sgd.learning_rate": 0.30000000000000004})
    assert shared(trial_with(constant()), almost) == 0


def test_evaluations_count_up_to_the_step():
    trial = trial_with(constant())
    fine, coarse = (path_digests(rates_of(trial), StepBudget(100, every), range(101)) for every in (10, 20))
    assert [step for step in fine if fine[step] == coarse[step]] == list(range(10))
    longer = path_digests(rates_of(trial_with(constant(), 300)), StepBudget(100, 10).lengthened(300, 3), range(101))
    assert longer == fine


def test_what_lies_beyond_the_end_has_no_digest():
    assert list(path_digests((0.1, 0.1), StepBudget(2, 1), [1, 2, 3])) == [1, 2]


def test_the_base_leaves_out_what_the_learning_rates_say():
    declared = trial_with(constant_then_decay(20))
    searched = trial_with(constant_then_decay(20), warmup_steps=10, **{"sgd.decay_fraction": 0.2})
    assert base_of(declared) == base_of(searched)
    renamed = replace(declared, number=7, origin="elsewhere", pins=(3,), schedule=constant().schedule(5))
    assert base_of(renamed) == base_of(declared)


def base_of(trial, workload="code and data", **changes):
    return base_digest(tiny_study(**changes), trial, workload)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 5},
        {"data_seed": 5},
        {"point": Point.of({"sgd.learning_rate": 0.3, "weight_decay": 0.2})},
        {"point": Point.of({"sgd.learning_rate": 0.3, "weight_decay": 0.1, "momentum": 0.0})},
    ],
)
def test_another_seed_or_point_is_another_base(changed):
    trial = trial_with(constant())
    assert base_of(replace(trial, **changed)) != base_of(trial)


@pytest.mark.parametrize("changed", [{"optimizer": "sgd"}, {"batch_size": 9}, {"augment": False}, {"keep_best": 1}])
def test_another_study_is_another_base(changed):
    trial = trial_with(constant())
    assert base_of(trial, **changed) != base_of(trial)


def test_other_code_or_data_are_another_base():
    trial = trial_with(constant())
    assert base_of(trial, "other data") != base_of(trial)
