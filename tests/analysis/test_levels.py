import numpy as np
import pytest

from tuner.analysis.levels import earliest_within_noise, gains_after, noise_model, running_mean, slow_noise
from tuner.analysis.noise import noise_of, without_spikes

FRACTIONS = np.arange(1, 51) / 50


def test_the_noise_of_an_evaluation_is_recovered_under_a_trend():
    rng = np.random.default_rng(0)
    curves = 3.0 - FRACTIONS + 0.02 * rng.standard_normal((40, 50))
    assert np.median(noise_of(curves)) == pytest.approx(0.02, rel=0.1)


def correlated(trials: int, carried: float) -> np.ndarray:
    """Noise of which each evaluation carries a share over to the next."""
    noise = np.random.default_rng(5).standard_normal((trials, 50))
    for place in range(1, 50):
        noise[:, place] = carried * noise[:, place - 1] + np.sqrt(1 - carried**2) * noise[:, place]
    return noise


def test_noise_that_neighbouring_evaluations_share_makes_gains_less_sure():
    independent, shared = slow_noise(correlated(300, 0.0)), slow_noise(correlated(300, 0.7))
    assert independent == pytest.approx(1.0, abs=0.1)
    assert shared > 1.5
    unit = {carried: noise_model(correlated(40, carried), FRACTIONS) for carried in (0.0, 0.7)}
    single = {carried: float(np.median(each.level)) for carried, each in unit.items()}
    assert single[0.7] < 0.6 * single[0.0], "neighbours that share noise hide it from each other"
    assert np.median(unit[0.7].late()) > single[0.0], "what they share is found again"


def test_a_kink_is_no_slow_noise():
    kink = np.maximum(0.0, 1.0 - FRACTIONS / 0.6)
    found = [slow_noise(kink + 0.01 * np.random.default_rng(seed).standard_normal((20, 50))) for seed in range(20)]
    assert np.mean(found) < 1.3


def test_a_straight_line_has_no_noise():
    assert noise_of((1.0 - FRACTIONS)[None, :]) == pytest.approx(0.0, abs=1e-12)


def test_a_running_mean_shrinks_at_the_ends_and_passes_over_what_is_missing():
    curve = np.array([[1.0, 2.0, np.nan, 4.0, 10.0]])
    # A share of 0.6 of 5 evaluations is 3: itself and both neighbours.
    assert running_mean(curve, 0.6)[0].tolist() == [1.5, 1.5, 3.0, 7.0, 7.0]


def test_a_huge_first_evaluation_does_not_drown_the_later_ones():
    curve = np.array([[1e20, 0.3, 0.2, 0.1, 0.1]])
    assert running_mean(curve, 0.4)[0, 1:].tolist() == pytest.approx([0.25, 0.15, 0.1, 0.1])


def test_pure_noise_gains_nothing():
    curves = np.random.default_rng(1).standard_normal((4000, 50))
    for split in (0.1, 0.75):
        assert gains_after(curves, FRACTIONS, split).gain.mean() < 0.1


def test_a_drop_after_the_split_is_gained_in_noises():
    noise = np.random.default_rng(2).standard_normal((500, 50))
    dropped = np.where(FRACTIONS > 0.8, -3.0, 0.0)
    gains = gains_after(noise + dropped, FRACTIONS, 0.75)
    assert (gains.gain * gains.scale).mean() == pytest.approx(3.0, abs=0.55)
    assert np.median(gains.scale) == pytest.approx(1.0, abs=0.2)


def test_a_constant_curve_without_noise_gains_nothing():
    assert gains_after(np.full((2, 50), 0.5), FRACTIONS, 0.1).gain.tolist() == [0.0, 0.0]


def test_a_noiseless_gain_below_a_thousandth_of_the_value_is_not_material():
    # Value about 1, descent 1, gain after 10 % of 0.0002: a fifth of what is material.
    falling = np.where(FRACTIONS > 0.1, 1.0, 1.0002)
    falling[0] = 2.0
    assert gains_after(falling[None, :], FRACTIONS, 0.1).gain[0] < 0.5


def test_the_earliest_step_within_noise_is_the_first_at_the_level_and_never_after_the_argmin():
    # From 1 straight down to 0 at the tenth evaluation, then flat: without noise the tenth is the first at level.
    curve = np.maximum(0.0, 1.0 - np.arange(1, 51) / 10)[None, :]
    assert earliest_within_noise(curve)[0] == 9
    rng = np.random.default_rng(4)
    noisy = 0.3 * rng.standard_normal((200, 50))
    assert (earliest_within_noise(noisy) <= noisy.argmin(axis=1)).all()


@pytest.mark.parametrize("spikes", [1, 2, 3])
def test_a_few_spikes_are_no_noise(spikes):
    """Second differences of the plain kind would make it 5 times as large with one spike of 20 noises in 50."""
    rng = np.random.default_rng(7)
    plain = 0.02 * rng.standard_normal((40, 50))
    spiked = plain.copy()
    for row in spiked:
        row[rng.choice(np.arange(6, 50), spikes, replace=False)] += 0.4
    assert np.median(noise_of(spiked)) == pytest.approx(np.median(noise_of(plain)), rel=0.15)
    calm = without_spikes(spiked, noise_of(spiked))
    left = (np.abs(calm - plain) > 0.15).sum()
    assert left <= 0.1 * 40 * spikes, "spikes of 0.4 are gone, but for those that lie side by side"


def test_without_outliers_nothing_is_taken_for_a_spike():
    rng = np.random.default_rng(8)
    for shape in (1.0 - FRACTIONS, np.abs(FRACTIONS - 0.4), (1 + FRACTIONS / 0.02) ** -0.5, FRACTIONS > 0.8):
        curves = shape + 0.01 * rng.standard_normal((40, 50))
        assert (without_spikes(curves, noise_of(curves)) == curves).mean() >= 0.998


def test_noise_that_grows_is_judged_by_what_it_is_late():
    """From 0.3 to 2.3: its root mean square over the last 45 % is 1.86 by hand, over all after a tenth 1.52."""
    curves = (0.3 + 2.0 * FRACTIONS) * np.random.default_rng(9).standard_normal((60, 50))
    assert np.median(noise_model(curves, FRACTIONS).late()) == pytest.approx(1.86, rel=0.15)
    gains = gains_after(curves, FRACTIONS, 0.75)
    assert abs(gains.gain.mean()) < 0.25, "the best of the noisiest levels is no gain"
