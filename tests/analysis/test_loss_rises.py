"""Signs of instability in a training loss, against curves whose course is known (B36, B38, D45)."""

import numpy as np
import pytest

from tuner.analysis.loss_rises import RISE, LossCurve, signs_of, yardstick
from tuner.analysis.stability_records import clip_norm_for

STEPS = np.arange(1.0, 501.0)


def quadratic(rate, curvature=1.0, place=1.0, steps=500):
    """The loss before each update of gradient descent on curvature/2 x^2; None of what is not finite any more."""
    places = place * (1.0 - rate * curvature) ** np.arange(float(steps))
    with np.errstate(over="ignore"):
        losses = 0.5 * curvature * places**2
    return losses


def curve(losses, diverged_at=None):
    losses = np.asarray(losses, dtype=np.float64)
    return LossCurve(np.arange(1.0, len(losses) + 1), losses, diverged_at)


BEST = yardstick([curve(quadratic(0.5))])


@pytest.mark.parametrize("curvature", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("share", "unstable"), [(0.5, False), (0.9, False), (0.99, False), (1.01, True), (1.5, True)])
def test_a_quadratic_is_unstable_above_two_over_its_curvature(curvature, share, unstable):
    best = yardstick([curve(quadratic(0.5 / curvature, curvature))])
    found = signs_of(curve(quadratic(share * 2.0 / curvature, curvature)), best)
    assert bool(found.sign) is unstable
    if unstable:
        assert (found.sign, found.onset is not None and found.onset <= 50) == ("early", True)


def falling(generator, *, noise=0.02, bump=0.0, at=250, width=40):
    """From 1 to 0.1, with noise; a bump of the height `bump` (of the gain, 0.9) that lasts `width` steps."""
    losses = 0.1 + 0.9 * np.exp(-STEPS / 60.0) + noise * generator.standard_normal(len(STEPS))
    losses[at : at + width] += 0.9 * bump
    return curve(losses)


@pytest.fixture
def known():
    generator = np.random.default_rng(0)
    return generator, yardstick([falling(generator) for _ in range(3)])


def test_noise_alone_is_no_sign(known):
    generator, best = known
    assert sum(bool(signs_of(falling(generator), best).sign) for _ in range(300)) == 0


@pytest.mark.parametrize(("bump", "shown"), [(0.5 * RISE, False), (1.5 * RISE, True), (0.9, True)])
def test_a_rise_counts_from_a_quarter_of_the_gain(known, bump, shown):
    generator, best = known
    found = [signs_of(falling(generator, bump=bump), best) for _ in range(50)]
    assert [each.sign for each in found] == ["sudden" if shown else ""] * 50
    if shown:
        assert {each.onset for each in found} == {251}, "the block in which it rises begins there"
        assert np.mean([each.height for each in found]) == pytest.approx(bump, abs=0.1)


def test_a_spike_of_a_few_steps_is_no_stretch_unless_it_undoes_the_whole_gain(known):
    generator, best = known
    assert signs_of(falling(generator, bump=0.9, width=8), best).sign == ""
    assert signs_of(falling(generator, bump=3.0, width=8), best).sign == "sudden"


def test_an_explosion_in_the_first_steps_is_seen_though_all_blocks_after_it_fall(known):
    """A catapult: the block of the first ten steps has the highest mean, so only the first loss is below it."""
    generator, best = known
    losses = falling(generator).losses.copy()
    losses[1:10] += 30.0
    losses[10:200] += np.linspace(3.0, 0.0, 190)
    found = signs_of(curve(losses), best)
    assert (found.sign, found.onset) == ("early", 1)


def test_what_diverges_has_risen_before_and_what_stays_where_it_was_is_stuck(known):
    generator, best = known
    losses = falling(generator).losses[:230].copy()
    losses[200:] = np.geomspace(0.2, 1e30, 30)
    found = signs_of(curve(losses, diverged_at=231), best)
    assert (found.sign, found.onset, found.height) == ("diverged", 201, np.inf)
    assert signs_of(curve([1.0], diverged_at=2), best).sign == "diverged"
    assert signs_of(curve([], diverged_at=1), best).onset == 1
    flat = curve(1.0 + 0.02 * generator.standard_normal(500))
    assert signs_of(flat, best).sign == "stuck"


def hard_batches(seed, excess=0.0, *, steps=500, share=0.1, height=3.0, own=0.02):
    """From 2.3 to 0.3; one batch in ten is harder by more than the whole gain, the same ones for the same seed."""
    generator = np.random.default_rng(seed)
    hard = height * (generator.random(steps) < share)
    trend = 0.3 + 2.0 * np.exp(-np.arange(steps) * 5.0 / steps)
    return curve(trend + hard + own * generator.standard_normal(steps) + excess)


@pytest.mark.parametrize("steps", [60, 500, 2000])
def test_a_few_batches_that_are_much_harder_are_no_instability(steps):
    shown = 0
    for seed in range(20):
        best = [hard_batches((seed, one), steps=steps) for one in range(3)]
        against = yardstick(best)
        above = [hard_batches((seed, one), steps=steps, own=0.05) for one in range(3)]
        signs = [signs_of(one, against, beside).sign for one, beside in zip(above, best, strict=True)]
        shown += sum(map(bool, signs)) > 1
        shown += against.falls and sum(bool(signs_of(one, against).sign) for one in best) > 1
    assert shown == 0


def test_a_rise_among_hard_batches_is_seen_all_the_same():
    late = 2.0 * (np.arange(500) >= 300)
    best = [hard_batches(seed) for seed in range(20)]
    against = yardstick(best)
    found = [signs_of(hard_batches(seed, late), against, best[seed]) for seed in range(20)]
    assert [one.sign for one in found] == ["sudden"] * 20
    assert {one.onset for one in found} == {301}


def test_a_loss_that_rises_where_the_trial_beside_it_does_shows_the_data_and_not_the_rate(known):
    generator, best = known
    beside = falling(generator, bump=0.6)
    assert signs_of(falling(generator, bump=0.6), best, beside).sign == ""
    assert signs_of(falling(generator, bump=1.2), best, beside).sign == "sudden"


def test_what_a_large_weight_decay_undoes_slowly_is_no_sudden_rise(known):
    generator, best = known
    for height in (0.3, 0.6):
        losses = falling(generator).losses + height * STEPS / STEPS[-1]
        assert signs_of(curve(losses), best).sign == ""


def test_a_noisier_loss_at_a_higher_rate_is_no_rise():
    """In a short study the blocks are single losses, and the noise grows with the rate."""
    generator, trend = np.random.default_rng(3), 0.3 + 2.0 * np.exp(-np.arange(60) / 12.0)
    best = yardstick([curve(trend + 0.02 * generator.standard_normal(60)) for _ in range(3)])
    noisy = [signs_of(curve(trend + 0.2 * generator.standard_normal(60)), best).sign for _ in range(40)]
    assert sum(map(bool, noisy)) <= 1


def test_unit_and_level_of_the_loss_do_not_matter(known):
    generator, _ = known
    best, risen = [falling(generator) for _ in range(3)], falling(generator, bump=0.4)
    for scale, level in ((1e-3, 0.0), (50.0, -1000.0)):
        moved = yardstick([curve(scale * one.losses + level) for one in best])
        found = signs_of(curve(scale * risen.losses + level), moved)
        assert (found.sign, found.onset) == ("sudden", 251)


def test_a_yardstick_that_does_not_fall_says_so(known):
    generator, best = known
    assert best.falls
    assert not yardstick([curve(generator.standard_normal(500))]).falls
    with pytest.raises(ValueError, match="no trial at the best learning rate"):
        yardstick([curve([1.0, np.nan])])


def test_the_limit_clips_a_tenth_of_lognormal_norms():
    """The 90th percentile of exp(sigma Z) is exp(1.2816 sigma)."""
    generator = np.random.default_rng(1)
    norms = np.exp(0.8 * generator.standard_normal(200_000))
    limit = clip_norm_for(norms)
    assert limit == pytest.approx(np.exp(0.8 * 1.2815515655), rel=0.02)
    assert (norms > limit).mean() == pytest.approx(0.1, abs=1e-5)
    assert clip_norm_for(norms[:19]) is None
