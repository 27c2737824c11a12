"""Carrying a schedule to a longer run: the rules A34-A43, and where they ask."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.budget.by_share import by_share
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
from tuner.budget.schedules import Piece, Schedule
from tuner.budget.transfer import TransferReport, lengthened, transfer_report, trunk_steps
from tuner.errors import TransferError


@given(
    warmup=st.integers(0, 30),
    constant_steps=st.integers(0, 100),
    decay=st.integers(1, 100),
    extra=st.integers(0, 1000),
    shape=st.sampled_from(["linear", "cosine", "one_minus_sqrt"]),
)
def test_a_longer_run_keeps_warmup_and_decay_and_holds_the_base_rate_between(
    warmup, constant_steps, decay, extra, shape
):
    family = linear() if constant_steps == 0 and shape == "linear" else constant_then_decay(decay, shape=shape)
    constant_steps = constant_steps or int(shape != "linear")  # a decay without a constant part is another family
    short = family.schedule(warmup + constant_steps + decay, warmup)
    long = lengthened(short, len(short) + extra)
    old, new = np.array(short.fractions()), np.array(long.fractions())
    assert len(new) == len(old) + extra
    np.testing.assert_array_equal(new[len(new) - decay :], old[len(old) - decay :])
    np.testing.assert_array_equal(new[:warmup], old[:warmup])
    np.testing.assert_array_equal(new[warmup : len(new) - decay], 1.0)


def test_a_pure_linear_decay_becomes_hold_then_linear():
    assert lengthened(linear().schedule(200), 2000).pieces == (
        Piece("constant", 1800),
        Piece("linear", 200, 1.0, 0.0),
    )


def test_the_trunk_of_constant_then_decay_is_a_prefix_of_its_longer_run():
    short = constant_then_decay(0.2).schedule(100, 10)
    long = lengthened(short, 300)
    assert long.fractions()[:80] == short.fractions()[:80]
    assert long == constant_then_decay(20).schedule(300, 10)


@pytest.mark.parametrize(
    ("family", "steps"),
    [
        (constant_then_decay(0.2), 80),
        (constant(), 100),
        (linear(), 0),  # only the warmup is shared, and that is nothing to go on from
        (cosine(), 0),
    ],
)
def test_a_longer_trial_goes_on_from_the_steps_before_the_decay_where_it_begins_with_them(family, steps):
    short = family.schedule(100, 10)
    assert trunk_steps(short, lengthened(short, 400)) == steps


def test_a_shorter_run_has_no_use_for_a_trunk_beyond_its_end():
    family = constant_then_decay(0.2)
    assert trunk_steps(family.schedule(100), family.schedule(70)) == 0
    assert trunk_steps(family.schedule(100), family.schedule(99)) == 80, "a decay's first step is at the base rate"
    assert trunk_steps(family.schedule(100), family.schedule(98)) == 0


def test_a_cosine_keeps_its_base_rate_and_is_stretched_over_the_steps_after_the_warmup():
    long = lengthened(cosine(final=0.1).schedule(110, 10), 410)
    assert long == cosine(final=0.1).schedule(410, 10)
    assert max(long.fractions()) == 1.0


@given(steps=st.integers(2, 200), factor=st.integers(1, 20), warmup=st.integers(0, 20))
def test_a_stretched_cosine_has_the_same_rate_at_the_same_relative_progress(steps, factor, warmup):
    short = cosine().schedule(warmup + steps, warmup)
    long = lengthened(short, warmup + steps * factor)
    assert long.fractions()[warmup::factor] == pytest.approx(short.fractions()[warmup:])
    assert long.fractions()[:warmup] == short.fractions()[:warmup]


def test_the_same_length_changes_nothing():
    for family in (constant(), linear(), cosine(), constant_then_decay(0.3)):
        short = family.schedule(100, 7)
        assert lengthened(short, 100) == short


def test_lengthening_twice_is_lengthening_once():
    for family in (constant(), linear(), cosine(), constant_then_decay(0.3)):
        short = family.schedule(100, 7)
        assert lengthened(lengthened(short, 250), 1000) == lengthened(short, 1000)


def test_a_constant_rate_stays_constant():
    assert lengthened(constant().schedule(100, 10), 500) == constant().schedule(500, 10)


def test_inverse_sqrt_is_refused_without_a_mode():
    with pytest.raises(
        TransferError, match=r"no rule carries the schedule inverse_sqrt .*'hold_then_decay' .*'rescale'"
    ):
        lengthened(inverse_sqrt().schedule(100, 10), 1000)


def test_steps_of_constant_rates_are_refused_without_a_mode_and_keep_their_drop_with_one():
    drop = Schedule((Piece("constant", 80), Piece("constant", 20, 0.1, 0.1)))
    with pytest.raises(TransferError, match=r"no rule carries the schedule constant \+ constant"):
        lengthened(drop, 200)
    assert lengthened(drop, 200, "hold_then_decay").fractions() == (1.0,) * 180 + (0.1,) * 20
    assert lengthened(drop, 200, "rescale").fractions() == (1.0,) * 160 + (0.1,) * 40


def test_inverse_sqrt_held_keeps_its_decay():
    short = inverse_sqrt(timescale=20).schedule(100, 10)
    long = lengthened(short, 300, "hold_then_decay").fractions()
    assert long[10:210] == (1.0,) * 200
    assert long[210:] == short.fractions()[10:]


def test_inverse_sqrt_rescaled_has_the_same_rate_at_the_same_relative_progress():
    short = inverse_sqrt(timescale=20).schedule(110, 10)
    long = lengthened(short, 10 + 500, "rescale")
    assert long.fractions()[10::5] == pytest.approx(short.fractions()[10:])


def test_a_mode_overrides_the_rule():
    short = linear().schedule(100, 10)
    assert lengthened(short, 400, "rescale") == linear().schedule(400, 10)
    assert lengthened(cosine().schedule(100), 400, "hold_then_decay").decay_start == 300


def test_rescaling_keeps_the_share_of_the_decay():
    assert lengthened(constant_then_decay(0.2).schedule(100), 1000, "rescale").decay_start == 800


@example(lengths=[1, 1, 1, 3, 1], extra=4)  # rounding each length left nothing for the last piece
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=5), extra=st.integers(0, 500))
def test_rescaling_never_loses_a_step_or_a_piece(lengths, extra):
    short = Schedule(tuple(Piece("linear", steps) for steps in lengths))
    long = lengthened(short, len(short) + extra, "rescale")
    assert len(long) == len(short) + extra
    assert len(long.pieces) == len(lengths)


def test_a_misspelt_mode_is_refused():
    with pytest.raises(TransferError, match=r"hold_then_decay, rescale .*got 'stretch'"):
        lengthened(cosine().schedule(100), 200, "stretch")


def test_a_schedule_is_never_shortened():
    with pytest.raises(
        TransferError, match="a schedule of 100 steps cannot be lengthened to 99; give at least as many"
    ):
        lengthened(linear().schedule(100), 99)


# --- what the extra steps are used for (A35, D19)


def appended(short, max_train_steps):
    """The pitfall: the extra steps at the last rate."""
    last = short.fractions()[-1]
    return Schedule((*short.pieces, Piece("constant", max_train_steps - len(short), last, last)))


def test_extra_steps_appended_at_the_last_rate_are_warned_about():
    short = linear().schedule(200)
    report = transfer_report(short, appended(short, 2000))
    assert report.extra_steps == 1800
    assert report.extra_share_at_low_rate == 1.0
    assert "100% of the extra steps run below 10% of the base rate (A35)" in report.warnings[0]


def test_the_appended_schedule_of_f2_spends_nine_tenths_of_all_steps_at_a_low_rate():
    fractions = np.array(appended(linear().schedule(200), 2000).fractions())
    assert np.mean(fractions < 0.1) == pytest.approx(1819.5 / 2000, abs=0.51 / 2000)  # step 180 is at 0.1


def test_held_extra_steps_are_not_warned_about_but_a_decay_of_a_tenth_part_or_less_is():
    short = linear().schedule(200)
    fair = transfer_report(short, lengthened(short, 2000))
    assert fair == TransferReport(extra_steps=1800, extra_share_at_low_rate=0.0, decay_share=0.1)
    assert fair.warnings == ()
    stingy = transfer_report(short, lengthened(short, 2500))
    assert stingy.decay_share == pytest.approx(0.08)
    assert stingy.warnings == (
        "the decay is 8.0% of the longer run; below 10% quality is lost (D19): 'rescale' keeps its share",
    )


def test_a_stretched_cosine_spends_its_own_share_of_the_extra_steps_at_a_low_rate():
    """cos(pi p) < -0.8 from p = 0.795 on: a fifth, and no warning."""
    short = cosine().schedule(1000)
    report = transfer_report(short, lengthened(short, 2000))
    assert report.extra_share_at_low_rate == pytest.approx(0.205, abs=2e-3)
    assert report.warnings == ()


def test_a_constant_rate_has_no_decay_to_report():
    report = transfer_report(constant().schedule(100), constant().schedule(300))
    assert report == TransferReport(extra_steps=200, extra_share_at_low_rate=0.0, decay_share=None)
    assert report.warnings == ()


def test_a_warmup_is_not_counted_as_wasted():
    short = constant_then_decay(0.2).schedule(100, 50)
    assert transfer_report(short, lengthened(short, 101)).extra_share_at_low_rate == 0.0


# --- the noisy quadratic of F2: exact, no randomness


def noisy_quadratic(learning_rates):
    """The expected loss after these updates: 50 dimensions, curvature i^-1.5, gradient noise 0.05."""
    h = np.arange(1, 51) ** -1.5
    m = np.ones(50)
    for rate in learning_rates:
        m = (1 - rate * h) ** 2 * m + rate**2 * 0.05 * h
    return 0.5 * float(np.sum(h * m))


def loss_along(schedule, base=1.5):
    return noisy_quadratic(base * np.array(schedule.fractions()))


SHORT = linear().schedule(200)


@pytest.mark.parametrize(
    ("schedule", "base", "loss"),
    [
        (SHORT, 1.5, 0.02225),
        (lengthened(SHORT, 2000), 1.5, 0.00683),
        (lengthened(SHORT, 2000, "rescale"), 1.5, 0.00220),
        (appended(SHORT, 2000), 1.5, 0.01633),
        (linear().schedule(2000), 0.76, 0.00170),
        (lengthened(SHORT, 400), 1.5, 0.00802),
        (lengthened(SHORT, 400, "rescale"), 1.5, 0.00879),
        (appended(SHORT, 400), 1.5, 0.0202),
    ],
)
def test_the_noisy_quadratic_ends_where_an_independent_computation_ended(schedule, base, loss):
    digits = 5 if loss != 0.0202 else 4
    assert round(loss_along(schedule, base), digits) == loss


@pytest.mark.parametrize("max_train_steps", [400, 2000])
def test_extending_the_high_rate_beats_appending_at_the_last_rate(max_train_steps):
    assert loss_along(lengthened(SHORT, max_train_steps)) < loss_along(appended(SHORT, max_train_steps))


def test_a_cosine_cycle_much_longer_than_the_run_is_worse_than_one_that_fits():
    """Chinchilla's direction (D21); a little too long is harmless."""
    losses = {
        factor: noisy_quadratic(1.5 * np.array(cosine().schedule(round(200 * factor)).fractions()[:200]))
        for factor in (1, 1.1, 1.25, 1.5, 2, 5)
    }
    assert {factor: round(loss, 4) for factor, loss in losses.items()} == {
        1: 0.0222, 1.1: 0.0200, 1.25: 0.0197, 1.5: 0.0237, 2: 0.0363, 5: 0.0828,
    }  # fmt: skip
    assert losses[1] < losses[1.5] < losses[2] < losses[5]


# --- the families that have no rule of their own (A38, A43)

ASKING = [
    polynomial(),
    polynomial(0.5, final=0.1),
    exponential(),
    step_drops((0.5, 0.75)),
    pieces(("constant", 0.5), ("linear", 0.3, 0.1), ("constant", 0.2)),
    by_share(lambda share: 1.0 - share**3),
    pieces(("linear", 0.5, 0.4), ("cosine", 0.3, 0.2), ("exponential", 0.2, 0.01)),
]


@pytest.mark.parametrize("family", ASKING, ids=lambda family: family.name)
@pytest.mark.parametrize("warmup", [0, 10])
def test_a_family_without_a_rule_asks_and_is_held_or_stretched_as_it_is_told(family, warmup):
    short = family.schedule(100 + warmup, warmup)
    with pytest.raises(TransferError, match=r"no rule carries the schedule .*'hold_then_decay'"):
        lengthened(short, 400 + warmup)
    held = lengthened(short, 400 + warmup, "hold_then_decay").fractions()
    assert held[:warmup] == short.fractions()[:warmup]
    assert held[warmup : warmup + 300] == (1.0,) * 300
    assert held[warmup + 300 :] == short.fractions()[warmup:]
    stretched = lengthened(short, 400 + warmup, "rescale").fractions()
    assert stretched[:warmup] == short.fractions()[:warmup]
    assert stretched[warmup::4] == pytest.approx(short.fractions()[warmup:], rel=1e-12)
    assert stretched == pytest.approx(family.schedule(400 + warmup, warmup).fractions(), rel=1e-12)


def test_pieces_that_are_constant_then_a_decay_have_the_rule_of_that():
    written = pieces(("constant", 0.8), ("linear", 0.2, 0.0)).schedule(100)
    assert written == constant_then_decay(0.2).schedule(100)
    assert lengthened(written, 300) == lengthened(constant_then_decay(0.2).schedule(100), 300)


def test_the_trunk_of_step_drops_and_pieces_is_the_steps_before_the_first_fall():
    for family in (step_drops((0.6, 0.8)), pieces(("constant", 0.6), ("exponential", 0.4, 0.01))):
        short = family.schedule(100, 10)
        assert short.decay_start == 10 + 54
        assert trunk_steps(short, lengthened(short, 300, "hold_then_decay")) == 64
        assert trunk_steps(short, lengthened(short, 300, "rescale")) == 64
