"""A schedule's rate is a closed form of the step, with one convention at its ends (C8, D22, D23)."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.budget.families import (
    constant,
    constant_then_decay,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    pieces,
    polynomial,
    step_drops,
)
from tuner.budget.schedules import Piece, Schedule, ScheduleFamily, learning_rates
from tuner.budget.step_budget import epochs
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
    polynomial(),
    polynomial(0.5, final=0.2),
    exponential(),
    exponential(0.5),
    step_drops((0.5, 0.75)),
    step_drops(1 / 3, factor=0.5),
    pieces(("constant", 0.5), ("linear", 0.3, 0.1), ("constant", 0.2)),
    pieces(("polynomial", 0.21, 0.4, 3.0), ("exponential", 0.29, 0.01), ("constant", 0.1, 0.005), ("cosine", 0.4, 0.0)),
]


def parts_again(parts, steps):
    """Parts over whole steps by the largest remainder, in exact fractions."""
    exact = [Fraction(part.share).limit_denominator(10**6) * steps for part in parts]
    lengths = [int(length) for length in exact]
    while sum(lengths) < steps:
        lengths[max(range(len(exact)), key=lambda place: (exact[place] - lengths[place], -place))] += 1
    body: list[float] = []
    level = 1.0
    for part, length in zip(parts, lengths, strict=True):
        p = np.arange(length) / max(length, 1)
        done = {"constant": 0 * p + 1, "linear": p, "cosine": (1 - np.cos(np.pi * p)) / 2}
        if part.shape == "exponential":
            values = level ** (1 - p) * part.end**p
        elif part.shape == "polynomial":
            values = part.end + (level - part.end) * (1 - p) ** part.values[0]
        else:
            values = level + (part.end - level) * done[part.shape]
        body += values.tolist()
        level = part.end
    return np.array(body)


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
    elif family.name == "polynomial":
        left = (1 - np.arange(len(after)) / len(after)) ** dict(family.settings)["power"]
        body = family.final + (1 - family.final) * left
    elif family.name == "exponential":
        body = np.exp(np.log(family.final) * np.arange(len(after)) / len(after))
    elif family.parts:
        body = parts_again(family.parts, len(after))
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


def test_a_polynomial_starts_at_the_base_rate_and_ends_above_its_final_fraction():
    assert polynomial(2.0).schedule(4).fractions() == (1.0, 0.5625, 0.25, 0.0625), "(1 - s / 4) squared"
    assert polynomial(1.0, final=0.5).schedule(4).fractions() == linear(final=0.5).schedule(4).fractions()


def test_an_exponential_decay_multiplies_each_step_by_one_factor_and_reaches_its_end_after_the_last():
    fractions = exponential(1 / 16).schedule(4 + 2, warmup_steps=2).fractions()
    assert fractions == (0.5, 1.0, 1.0, 0.5, 0.25, 0.125)


def test_drops_multiply_the_rate_at_their_shares():
    assert step_drops((0.5, 0.75)).schedule(8).fractions() == pytest.approx((1.0,) * 4 + (0.1,) * 2 + (0.01,) * 2)
    assert step_drops(0.5, factor=0.25).schedule(5, 1).fractions() == (1.0, 1.0, 1.0, 0.25, 0.25)


def test_pieces_follow_each_other_over_whole_steps_by_the_largest_remainder():
    """3.5, 2.1 and 1.4 of 7 steps: one step is left over, and the constant piece has the largest remainder."""
    schedule = pieces(("constant", 0.5), ("linear", 0.3, 0.1), ("constant", 0.2)).schedule(8, warmup_steps=1)
    assert [(piece.shape, piece.steps) for piece in schedule.pieces] == [
        ("warmup", 1), ("constant", 4), ("linear", 2), ("level", 1),
    ]  # fmt: skip
    assert schedule.fractions() == pytest.approx((1.0,) * 6 + (0.55, 0.1))
    assert schedule.decay_start == 5, "the trunk ends where the rate begins to fall"


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 3000), st.sampled_from(["constant", "linear"])
)
def test_the_steps_of_pieces_sum_exactly_and_each_is_less_than_a_step_from_its_share(weights, steps, shape):
    shares = [weight / sum(weights) for weight in weights]
    family = pieces(*((shape, share, 1.0) for share in shares))
    made = family.kind.pieces(family, steps, 0)
    assert sum(piece.steps for piece in made) == steps
    assert all(abs(piece.steps - share * steps) < 1.0 + 1e-6 for piece, share in zip(made, shares, strict=True))


def test_a_piece_that_is_too_short_for_a_step_is_left_out():
    assert pieces(("constant", 0.999), ("linear", 0.001, 0.5)).schedule(10).fractions() == (1.0,) * 10


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
    late += [polynomial(), exponential(), step_drops((0.5, 0.75)), pieces(("linear", 0.5, 0.01), ("constant", 0.5))]
    assert [family.schedule(100, 10).ends_at_zero for family in late] == [True] * 7
    others = [constant(), cosine(0.5), inverse_sqrt(100), polynomial(final=0.2), step_drops(0.5, factor=0.5)]
    assert [family.schedule(100, 10).ends_at_zero for family in others] == [False] * 5


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
        (lambda: constant_then_decay(epochs(1)), r"like 0.2, or an int, its steps; got epochs\(1\)"),
        (lambda: constant_then_decay(0), "decay in steps must be at least 1, got 0"),
        (lambda: constant_then_decay(0.2, shape="exponential"), "one_minus_sqrt, got 'exponential'"),
        (lambda: linear(final=1.5), r"fraction of the base rate in 0\.\.1, got 1.5"),
        (lambda: cosine(final=-0.1), r"fraction of the base rate in 0\.\.1, got -0.1"),
        (lambda: inverse_sqrt(timescale=0), "timescale must be at least 1 step, got 0"),
        (lambda: ScheduleFamily("step"), "a schedule is one of constant, linear, .*, got 'step'"),
        (lambda: ScheduleFamily("constant_then_decay"), "has a decay and needs it; constant_then_decay got None"),
        (lambda: ScheduleFamily("cosine", decay=0.2), "has a decay and needs it; cosine got 0.2"),
        (lambda: Schedule((Piece("constant", 0),)), "at least 1 step, got Piece"),
        (lambda: linear(final="0.1"), r"fraction of the base rate in 0\.\.1, got 0.1"),
        (lambda: polynomial(0.0), "the power of a polynomial decay is a number above 0, got 0.0"),
        (lambda: polynomial(math.nan), "the power of a polynomial decay is a number above 0, got nan"),
        (lambda: polynomial("2"), "the power of a polynomial decay is a number above 0, got '2'"),
        (lambda: ScheduleFamily("polynomial"), "the power of a polynomial decay is a number above 0, got None"),
        (lambda: Piece("polynomial", 5), "the power of a polynomial decay is a number above 0, got None"),
        (lambda: exponential(0.0), "an exponential decay never reaches 0: its end must be above 0, like 0.01, got 0"),
        (lambda: Piece("exponential", 5, 1.0, 0.0), "its end must be above 0, like 0.01, got 0"),
        (lambda: step_drops(()), r"shares of training between 0 and 1, like \(0.5, 0.75\), got \(\)"),
        (lambda: step_drops((0.5, 1.0)), r"between 0 and 1, like \(0.5, 0.75\), got \(0.5, 1.0\)"),
        (lambda: step_drops((30, 60)), r"between 0 and 1, like \(0.5, 0.75\), got \(30, 60\)"),
        (lambda: step_drops((0.7, 0.5)), r"the shares of step_drops ascend, each once, got \(0.7, 0.5\)"),
        (lambda: step_drops(0.5, factor=1.5), "the factor of a drop lies between 0 and 1, got 1.5"),
        (lambda: pieces(), "pieces takes at least one piece"),
        (lambda: pieces("linear"), "piece 1 of the schedule is .*got 'linear'"),
        (lambda: pieces(("linear", "0.5", 0.1)), r"piece 1 of the schedule is \(shape, share, end\)"),
        (lambda: pieces(("constant", 0.5), ("linear", 0.5)), "piece 2 of the schedule, linear, needs the fraction"),
        (lambda: pieces(("constant", 0.5), ("linear", 0.4, 0.0)), r"sum to 1, .*; got 0.5 \+ 0.4 = 0.9"),
        (lambda: pieces(("stairs", 1.0, 0.0)), "piece 1 of the schedule, stairs: a piece has one of the shapes const"),
        (lambda: pieces(("warmup", 1.0, 1.0)), "piece 1 of the schedule, warmup: a piece has one of the shapes const"),
        (lambda: pieces(("constant", 1.5)), "its share of the steps after the warmup must be .*got 1.5"),
        (lambda: pieces(("linear", math.nan, 0.5)), "its share of the steps after the warmup must be .*got nan"),
        (lambda: pieces(("linear", 0.5, 0.1), ("linear", 0.5, 1.0)), r"piece 2 .*in 0\.\.0.1: a rate that rises again"),
        (lambda: pieces(("linear", 0.5, -0.1), ("linear", 0.5, 0.0)), r"piece 1 .*ends at -0.1 .*must end in 0\.\.1"),
        (lambda: pieces(("exponential", 1.0, 0.0)), "an exponential decay never reaches 0"),
        (lambda: pieces(("polynomial", 1.0, 0.0)), "polynomial takes its power, above 0, as fourth entry"),
        (lambda: pieces(("linear", 1.0, 0.0, 2.0)), "no other shape takes one"),
        (lambda: ScheduleFamily("pieces"), "the shares of a schedule's pieces sum to 1, .*got none"),
        (lambda: ScheduleFamily("by_share"), "a curve is ascending shares of training from 0 on"),
        (lambda: Piece("curve", 5, values=(0.0, 0.5, 1.0)), "a curve is ascending shares of training from 0 on"),
        (lambda: Piece("curve", 5, values=(0.0, 0.5, 1.0, 1.5)), "a curve is ascending shares of training from 0 on"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_with_its_value(declare, message):
    with pytest.raises(DeclarationError, match=message):
        declare()
