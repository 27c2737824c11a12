"""The evaluation noise of curves, against noise of a known size."""

import math

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.levels import gains_after, material_gain, noise_model, running_mean
from tuner.analysis.noise import granularity, noise_of, rounding_noise, shares_of_noise, without_spikes
from tuner.analysis.pooled_gains import PooledGain, judged, pooled_gain, too_little_evidence

FRACTIONS = np.arange(1, 101) / 100


def white(trials, columns=100, sd=1.0, seed=0):
    return sd * np.random.default_rng(seed).standard_normal((trials, columns))


@pytest.mark.parametrize("sd", [1e-6, 0.02, 3.0])
def test_white_noise_has_its_own_standard_deviation(sd):
    assert float(np.median(noise_of(white(200, sd=sd)))) == pytest.approx(sd, rel=0.05)


def test_a_trend_is_not_noise():
    trend = 5.0 * np.exp(-3.0 * FRACTIONS)
    assert noise_of(trend + white(200, sd=0.1)).mean() == pytest.approx(0.1, rel=0.08)
    assert noise_of(trend[None, :])[0] < 0.003


def test_the_noise_does_not_depend_on_where_evaluations_lie():
    steps = np.sort(np.random.default_rng(1).random(200)) * 1000
    line = 0.5 - steps / 2000
    assert noise_of(line[None, :], steps)[0] == pytest.approx(0.0, abs=1e-12)
    noisy = line + 0.05 * np.random.default_rng(2).standard_normal((50, 200))
    assert float(np.median(noise_of(noisy, steps))) == pytest.approx(0.05, rel=0.1)


def test_one_spike_is_not_noise():
    curves = white(100, sd=0.1)
    spiked = curves.copy()
    spiked[:, 60] += 20.0
    assert noise_of(spiked) == pytest.approx(noise_of(curves), rel=0.2)


def test_spikes_are_replaced_and_everything_else_stays():
    curves = white(20, sd=0.1)
    spiked = curves.copy()
    spiked[:, 70] += 5.0
    calm = without_spikes(spiked, np.full(20, 0.1))
    others = np.arange(100) != 70
    assert (calm[:, others] == spiked[:, others]).all()
    assert np.abs(calm[:, 70]).max() < 0.5


def test_curves_that_are_missing_have_no_noise():
    assert np.isnan(noise_of(np.full((2, 50), np.nan))).all()
    assert np.isnan(noise_of(np.zeros((1, 2)))).all()


def test_noise_that_doubles_late_is_seen_late():
    growing = np.where(FRACTIONS > 0.5, 2.0, 1.0)
    curves = white(300) * growing
    early, late = FRACTIONS <= 0.5, FRACTIONS > 0.5
    first, second = shares_of_noise(curves, [early, late], noise_of(curves))
    assert second / first == pytest.approx(2.0, rel=0.15)


def test_noise_of_one_size_has_shares_of_one():
    assert shares_of_noise(white(50), [FRACTIONS <= 0.5, FRACTIONS > 0.5], noise_of(white(50))) == pytest.approx(
        [1.0, 1.0], abs=0.05
    )


# The granularity of a metric


@pytest.mark.parametrize("examples", [50, 200, 1000])
def test_an_accuracy_has_the_step_of_its_examples(examples):
    rng = np.random.default_rng(examples)
    values = rng.binomial(examples, 0.8, 60) / examples
    assert granularity(values) == pytest.approx(1.0 / examples)
    assert granularity(100.0 * values) == pytest.approx(100.0 / examples)


def test_a_loss_has_no_step():
    assert granularity(np.random.default_rng(0).random(60)) == 0.0


def test_an_auc_has_the_step_of_its_pairs_and_other_metrics_of_a_split_have_none():
    """Scores of 8 positive and 12 negative examples: each pair is in order or not. F1 and R2 have no common step."""
    rng = np.random.default_rng(0)
    shifts = np.linspace(0.3, 1.2, 80)
    pairs = [(rng.normal(shift, 1, 8)[:, None] > rng.normal(0, 1, 12)[None, :]).mean() for shift in shifts]
    assert granularity(np.array(pairs)) == pytest.approx(1 / 96)
    hits, wrong = rng.binomial(30, 0.7, 80), rng.binomial(30, 0.3, 80)
    assert granularity(2 * hits / (2 * hits + wrong + 30 - hits)) == 0.0
    assert granularity(1.0 - rng.gamma(2.0, 0.5, 80)) == 0.0


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5], [0.25, 0.5], [0.1, 0.2, 0.3, 0.4], [5.0, 6.0, 5.0, 7.0, 900.0]])
def test_few_levels_are_not_enough_for_a_step(values):
    assert granularity(np.array(values)) == 0.0


def test_rounding_hides_a_uniform_error():
    values = np.random.default_rng(3).binomial(100, 0.5, 80) / 100
    assert rounding_noise(values) == pytest.approx(0.01 / math.sqrt(12.0))
    assert rounding_noise(np.append(values, np.nan)) == rounding_noise(values)
    assert rounding_noise(np.array([np.nan])) == 0.0


# Levels


def test_a_running_mean_of_a_line_is_the_line():
    line = np.linspace(0.0, 1.0, 101)[None, :]
    assert running_mean(line, 0.05)[0, 3:-3] == pytest.approx(line[0, 3:-3])


def test_a_running_mean_reduces_noise_by_the_root_of_its_width():
    smooth = running_mean(white(400), 0.25)[:, 30:70]
    assert smooth.std() == pytest.approx(1.0 / 5.0, rel=0.08)


def test_a_gain_is_measured_in_units_of_the_noise():
    step = np.where(FRACTIONS <= 0.65, 1.0, 0.5)
    gains = gains_after(step + white(200, sd=0.05), FRACTIONS, 0.5)
    assert gains.gain.mean() * gains.scale.mean() == pytest.approx(0.5, abs=0.04)
    assert gains.gain.mean() == pytest.approx(10.0, rel=0.15)


def test_a_loss_is_a_negative_gain():
    step = np.where(FRACTIONS <= 0.5, 0.5, 1.0)
    assert (gains_after(step + white(50, sd=0.05), FRACTIONS, 0.5).gain < 0.0).all()


def test_a_gain_of_less_than_a_thousandth_does_not_count():
    curve = np.linspace(2.0, 1.0, 100)[None, :]
    assert material_gain(curve)[0] == pytest.approx(0.001)
    assert material_gain(np.full((1, 10), 3.0))[0] == pytest.approx(0.003)


def test_independent_noise_is_not_slow():
    assert noise_model(white(60), FRACTIONS).slow == pytest.approx(1.0, abs=0.25)


# Pooled gains


def gains(numbers, spread=0.3):
    step = np.zeros((len(numbers), 2))
    found = gains_after(step, np.array([0.5, 1.0]), 0.5)
    return type(found)(np.array(numbers, dtype=float), np.ones(len(numbers)), np.full(len(numbers), spread))


def test_what_all_trials_gain_is_real():
    pooled = pooled_gain(gains([4.0, 5.0, 6.0, 5.0]), 1.0)
    assert (pooled.real, pooled.absent, pooled.worse) == (True, False, False)
    assert pooled.mean == 5.0
    assert pooled.positive == 1.0


def test_what_no_trial_gains_is_absent():
    pooled = pooled_gain(gains([0.1, -0.1, 0.0, 0.05, -0.05], 0.1), 1.0)
    assert (pooled.real, pooled.absent, pooled.worse) == (False, True, False)


def test_what_all_trials_lose_is_worse():
    pooled = pooled_gain(gains([-4.0, -5.0, -6.0, -5.0]), 1.0)
    assert (pooled.real, pooled.worse) == (False, True)


def test_trials_that_differ_by_more_than_noise_are_not_alike():
    assert not pooled_gain(gains([0.0, 0.0, 8.0, 8.0]), 1.0).alike
    assert pooled_gain(gains([0.1, -0.2, 0.3, 0.0]), 1.0).alike


def test_two_trials_are_too_few_to_pool():
    pooled = pooled_gain(gains([5.0, 5.0]), 1.0)
    assert (pooled.real, pooled.absent, pooled.worse) == (False, False, False)
    assert math.isnan(pooled.mean)


@pytest.mark.parametrize(
    ("good", "evaluations", "words"),
    [(2, 50, "Only 2 good completed trials"), (5, 19, "19 evaluations per trial"), (3, 20, None)],
)
def test_too_little_evidence_is_named(good, evaluations, words):
    found = too_little_evidence(good, evaluations)
    assert found is None if words is None else found.startswith(words)


def steps_table(earliest, in_warmup=False):
    return pd.DataFrame({"earliest_fraction": earliest, "in_warmup": in_warmup})


REAL = PooledGain(real=True, positive=1.0, sure=1.0, mean=5.0, margin=1.0)
ABSENT = PooledGain(absent=True, sure_absent=1.0, mean=0.0, margin=0.2)
UNCLEAR = PooledGain(mean=0.8, margin=1.0)
LATE, EARLY = steps_table([0.8] * 5), steps_table([0.05] * 5)


@pytest.mark.parametrize(
    ("table", "after_early", "in_late", "verdict"),
    [
        (LATE, REAL, REAL, "maybe_too_short"),
        (LATE, REAL, ABSENT, "ok"),
        (EARLY, ABSENT, ABSENT, "too_long"),
        (LATE, ABSENT, ABSENT, "inconclusive"),
        (LATE, REAL, UNCLEAR, "inconclusive"),
        (steps_table([0.05] * 5, in_warmup=True), ABSENT, ABSENT, "inconclusive"),
        (LATE, REAL, PooledGain(alike=False, sure=0.5, sure_absent=0.5, mean=2.0, margin=9.0), "mixed"),
        (LATE, REAL, PooledGain(real=True, positive=0.5, mean=2.0, margin=1.0), "inconclusive"),
    ],
)
def test_gains_decide_about_the_budget(table, after_early, in_late, verdict):
    assert judged(table, after_early, in_late)[0] == verdict
