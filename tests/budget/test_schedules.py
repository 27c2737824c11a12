"""A schedule's rate is a closed form of the step, with one convention at its ends (C8, D22, D23)."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.budget.families import constant, constant_then_decay, cosine, inverse_sqrt, linear
from tuner.budget.schedules import Piece, Schedule, ScheduleFamily, learning_rates
from tuner.errors import DeclarationError

FAMILIES = [
    constant(),
    linear(),
    linear(final=0.1),
    cosine(),
    cosine(final=0.05),
    constant_then_decay(0.25),
    constant_then_decay(7, shape="cosine"),
    constant_then_decay(0.5, final=0.2, shape="one_minus_sqrt"),
    inverse_sqrt(),
    inverse_sqrt(timescale=30),
]


def second_implementation(family, steps, warmup):
    """The same definitions once more, over whole arrays."""
    after = np.arange(steps - warmup)

    def decay(shape, length):
        p = np.arange(length) / length
        done = {"linear": p, "cosine": (1 - np.cos(np.pi * p)) / 2, "one_minus_sqrt": p**0.5}[shape]
        return 1 - (1 - family.final) * done

    if family.name == "constant":
        body = np.ones_like(after, dtype=float)
    elif family.name == "inverse_sqrt":
        timescale = family.timescale or warmup or 1
        body = (1 + after / timescale) ** -0.5
    elif family.name == "constant_then_decay":
        length = family.decay if isinstance(family.decay, int) else max(1, round(family.decay * steps))
        body = np.r_[np.ones(len(after) - length), decay(family.decay_shape, length)]
    else:
        body = decay(family.name, len(after))
    return np.r_[(np.arange(warmup) + 1) / max(warmup, 1), body]


def test_the_first_warmup_update_is_not_wasted_at_rate_zero():
    assert linear().schedule(100, warmup_steps=4).fractions()[:5] == (0.25, 0.5, 0.75, 1.0, 1.0)


def test_the_last_update_of_a_linear_decay_is_not_wasted_at_rate_zero():
    assert linear().schedule(4).fractions() == (1.0, 0.75, 0.5, 0.25)


def test_a_linear_decay_to_a_final_fraction_would_reach_it_after_the_last_update():
    assert linear(final=0.5).schedule(5).fractions() == pytest.approx((1.0, 0.9, 0.8, 0.7, 0.6))


def test_a_cosine_starts_flat_passes_the_middle_at_half_and_ends_above_zero():
    fractions = cosine().schedule(6).fractions()
    root = math.sqrt(3) / 2
    expected = (1.0, (1 + root) / 2, 0.75, 0.5, 0.25, (1 - root) / 2)
    assert fractions == pytest.approx(expected)


def test_a_cosine_at_step_8_of_40_is_at_nine_tenths():
    assert cosine().schedule(40).fraction(8) == pytest.approx(0.9045, abs=5e-5)


def test_constant_then_decay_holds_the_base_rate_and_decays_over_the_last_fifth():
    fractions = constant_then_decay(0.2).schedule(20).fractions()
    assert fractions == (1.0,) * 16 + (1.0, 0.75, 0.5, 0.25)


def test_a_decay_given_in_steps_keeps_its_length_in_every_budget():
    for steps in (10, 50, 1000):
        schedule = constant_then_decay(5).schedule(steps)
        assert schedule.decay_start == steps - 5
        assert schedule.fractions()[-5:] == pytest.approx((1.0, 0.8, 0.6, 0.4, 0.2))


def test_a_decay_given_as_a_fraction_grows_with_the_budget():
    assert [constant_then_decay(0.2).schedule(steps).decay_start for steps in (10, 50, 1000)] == [8, 40, 800]


def test_a_decay_so_short_that_it_rounds_to_nothing_has_one_step():
    assert constant_then_decay(0.01).schedule(10).decay_start == 9


def test_a_decay_of_the_whole_run_after_the_warmup_is_a_linear_schedule():
    assert constant_then_decay(90).schedule(100, warmup_steps=10) == linear().schedule(100, warmup_steps=10)


def test_one_minus_sqrt_falls_fast_first():
    assert constant_then_decay(4, shape="one_minus_sqrt").schedule(5).fractions() == pytest.approx(
        (1.0, 1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75))
    )


def test_inverse_sqrt_halves_the_rate_after_three_time_scales():
    schedule = inverse_sqrt(timescale=10).schedule(200)
    assert schedule.fraction(0) == 1.0
    assert schedule.fraction(30) == pytest.approx(0.5)
    assert schedule.fraction(150) == pytest.approx(0.25)


def test_inverse_sqrt_takes_the_warmup_as_its_time_scale():
    assert inverse_sqrt().schedule(200, warmup_steps=20).fraction(20 + 60) == pytest.approx(0.5)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("warmup", [0, 1, 13])
def test_the_warmup_lies_inside_the_budget(family, warmup):
    schedule = family.schedule(100, warmup_steps=warmup)
    assert len(schedule) == len(schedule.fractions()) == 100
    assert schedule.warmup_steps == warmup


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_after_the_warmup_the_rate_never_rises(family):
    fractions = family.schedule(100, warmup_steps=10).fractions()
    assert all(earlier <= later for earlier, later in pairwise(fractions[:11]))
    assert all(earlier >= later for earlier, later in pairwise(fractions[9:]))
    assert max(fractions) == 1.0
    assert min(fractions) > 0.0


@given(
    family=st.sampled_from(FAMILIES),
    warmup=st.integers(0, 40),
    rest=st.integers(60, 400),
    base=st.floats(1e-6, 10.0),
)
def test_every_rate_equals_that_of_a_second_implementation(family, warmup, rest, base):
    schedule = family.schedule(warmup + rest, warmup_steps=warmup)
    expected = base * second_implementation(family, warmup + rest, warmup)
    np.testing.assert_allclose(learning_rates(schedule, base), expected, rtol=1e-12, atol=1e-15)


@given(family=st.sampled_from(FAMILIES), data=st.data())
def test_resuming_at_any_step_gives_the_same_rate_to_the_last_bit(family, data):
    steps = data.draw(st.integers(50, 300))
    schedule = family.schedule(steps, warmup_steps=data.draw(st.integers(0, 20)))
    step = data.draw(st.integers(0, steps - 1))
    resumed = Schedule(schedule.pieces)  # nothing but the data survives
    assert resumed.fraction(step) == schedule.fractions()[step]


def test_equal_declarations_make_equal_schedules_and_others_do_not():
    assert cosine().schedule(100, 10) == cosine().schedule(100, 10)
    assert cosine().schedule(100, 10) != cosine().schedule(101, 10)
    assert len({linear().schedule(50), linear().schedule(50), cosine().schedule(50)}) == 2


def test_a_decay_starts_where_the_trunk_ends():
    assert constant().schedule(100, 10).decay_start is None
    assert linear().schedule(100, 10).decay_start == 10
    assert constant_then_decay(0.3).schedule(100, 10).decay_start == 70


def test_best_steps_are_late_by_construction_only_where_the_rate_ends_near_zero():
    late = [linear(), cosine(0.05), constant_then_decay(0.2)]
    assert [family.schedule(100, 10).ends_at_zero for family in late] == [True] * 3
    assert [family.schedule(100, 10).ends_at_zero for family in (constant(), cosine(0.5), inverse_sqrt(100))] == [
        False
    ] * 3


@pytest.mark.parametrize("step", [-1, 100, 1000])
def test_a_schedule_is_never_asked_beyond_its_own_end(step):
    with pytest.raises(DeclarationError, match=f"step {step} lies outside this schedule of 100 steps"):
        cosine().schedule(100, 5).fraction(step)


def test_a_warmup_must_leave_at_least_one_step():
    assert constant().schedule(10, warmup_steps=9).warmup_steps == 9
    with pytest.raises(DeclarationError, match=r"warmup_steps must lie in 0\.\.9 \(below max_train_steps\), got 10"):
        constant().schedule(10, warmup_steps=10)
    with pytest.raises(DeclarationError, match=r"0\.\.9 .*got -1"):
        constant().schedule(10, warmup_steps=-1)


def test_a_run_of_no_steps_has_no_schedule():
    with pytest.raises(DeclarationError, match="max_train_steps must be at least 1, got 0"):
        constant().schedule(0)


def test_a_decay_and_a_warmup_must_fit_into_the_budget_together():
    with pytest.raises(DeclarationError, match="a decay of 60 steps and a warmup of 50 do not fit in 100 steps"):
        constant_then_decay(60).schedule(100, warmup_steps=50)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: constant_then_decay(1.0), "decay as a fraction must lie between 0 and 1, got 1.0; steps are an int"),
        (lambda: constant_then_decay(0.0), "decay as a fraction must lie between 0 and 1, got 0.0"),
        (lambda: constant_then_decay(math.nan), "decay as a fraction must lie between 0 and 1, got nan"),
        (lambda: constant_then_decay(0), "decay in steps must be at least 1, got 0"),
        (lambda: constant_then_decay(0.2, shape="exponential"), "one_minus_sqrt, got 'exponential'"),
        (lambda: linear(final=1.5), r"fraction of the base rate in 0\.\.1, got 1.5"),
        (lambda: cosine(final=-0.1), r"fraction of the base rate in 0\.\.1, got -0.1"),
        (lambda: inverse_sqrt(timescale=0), "timescale must be at least 1 step, got 0"),
        (lambda: ScheduleFamily("step"), "a schedule is one of constant, linear, .*, got 'step'"),
        (lambda: ScheduleFamily("constant_then_decay"), "has a decay and needs it; constant_then_decay got None"),
        (lambda: ScheduleFamily("cosine", decay=0.2), "has a decay and needs it; cosine got 0.2"),
        (lambda: Schedule((Piece("constant", 0),)), "at least 1 step, got Piece"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_with_its_value(declare, message):
    with pytest.raises(DeclarationError, match=message):
        declare()
