"""Tools that questions share: rates that are left, values at a step, wider ranges, differences with intervals."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import METRIC, curve, frames_of_curves, planned, record, study
from scipy import stats

from tuner.analysis.frames import frames_of
from tuner.analysis.judged_trials import BEST, SPREAD, bests_at, judged_trials, thinned
from tuner.analysis.learning_rates import rate_died, rate_left, warmup_steps_of
from tuner.analysis.ranges import axis_of, closed_because, known_end, next_bound, next_level, unit_positions
from tuner.analysis.ranges import further as further_out
from tuner.analysis.replicates import Noise, contrast, trial_noise, welch_difference
from tuner.analysis.study_frames import ranked_trials
from tuner.analysis.trial_curves import best_with, has_curves, pruned_curves_frame
from tuner.budget.families import constant, cosine, linear
from tuner.budget.schedules import ScheduleFamily
from tuner.design.hyperparameters import Hyperparameter, choice, integers, log_uniform, uniform

FALLING = np.linspace(1.0, 0.1, 50).tolist()


def frames_scheduled(family, count=3, **more):
    declared = study(schedule=family, **more)
    schedule = family.schedule(declared.budget.max_train_steps, declared.warmup_steps)
    records = [planned(record(number), schedule=schedule) for number in range(count)]
    at = declared.budget.evaluation_steps
    parts = [curve(number, at, FALLING) for number in range(count)]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


# Learning rates


@pytest.mark.parametrize(
    ("family", "start", "left"),
    [
        (constant(), 0.75, 1.0),
        (linear(), 0.75, 0.125),
        (linear(), 0.5, 0.25),
        (cosine(), 0.5, 0.5 - 1.0 / math.pi),
    ],
)
def test_the_rate_that_is_left_is_its_mean_over_the_part(family, start, left):
    found = rate_left(frames_scheduled(family), [0, 1, 2], start)
    assert found.tolist() == pytest.approx([left] * 3, abs=0.002)


def test_a_rate_below_a_tenth_of_its_peak_has_died():
    frames = frames_scheduled(linear())
    assert rate_died(frames, [0, 1, 2], 0.75) is False
    assert rate_died(frames, [0, 1, 2], 0.9) is True
    assert rate_died(frames_scheduled(constant()), [0], 0.9) is False


def test_a_rate_that_is_not_known_has_neither_died_nor_not():
    frames = replace(frames_scheduled(linear()), schedules={})
    assert rate_died(frames, [0, 1], 0.9) is None
    assert np.isnan(rate_left(frames, [0, 1], 0.9)).all()


def test_a_rate_that_was_logged_is_read():
    plain = replace(frames_scheduled(constant(), count=1), schedules={})
    at = plain.study.budget.evaluation_steps
    logged = curve(0, at, np.linspace(1.0, 0.0, len(at)).tolist(), "lr")
    frames = replace(plain, curves=pd.concat([plain.curves, logged], ignore_index=True))
    assert rate_left(frames, [0], 0.5)[0] == pytest.approx(0.25, abs=0.02)


def test_the_warmup_is_that_of_each_schedule():
    frames = frames_scheduled(linear(), warmup_steps=100)
    assert warmup_steps_of(frames, frames.complete).tolist() == [100.0] * 3
    assert warmup_steps_of(replace(frames, schedules={}), frames.complete).tolist() == [0.0] * 3


def test_an_unknown_schedule_is_no_schedule():
    declared = study(schedule=ScheduleFamily("unknown"))
    frames = frames_of_curves(declared, [FALLING])
    assert frames.schedules == {}
    assert frames.ends_at_zero([0]) is None


# Values at a step


def test_the_best_until_a_step_is_a_running_best():
    frames = frames_of_curves(study(), [[3.0, 1.0, 2.0, *[5.0] * 47], [4.0, 4.0, 0.5, *[5.0] * 47]])
    steps = np.array(study().budget.evaluation_steps[:3])
    assert bests_at(frames, np.array([0, 1]), steps).tolist() == [[3.0, 1.0, 1.0], [4.0, 4.0, 0.5]]
    assert np.isnan(bests_at(frames, np.array([0]), steps[:1] - 1)).all()


def test_the_best_until_a_step_turns_with_the_direction():
    frames = frames_of_curves(study(direction="maximize"), [[1.0, 3.0, 2.0, *[0.0] * 47]])
    steps = np.array(study().budget.evaluation_steps[:3])
    assert bests_at(frames, np.array([0]), steps).tolist() == [[-1.0, -3.0, -3.0]]


def test_of_many_trials_the_best_are_fitted_and_others_over_the_ranking():
    table = pd.DataFrame({"trial": np.arange(1000)})
    kept = thinned(table)["trial"].tolist()
    assert len(kept) == BEST + SPREAD
    assert kept[:BEST] == list(range(BEST))
    assert kept[-1] == 999
    assert thinned(table.head(BEST + SPREAD)).equals(table.head(BEST + SPREAD))


def test_complete_trials_are_judged_best_first_and_minimized():
    frames = frames_of_curves(study(direction="maximize"), [[0.1] * 50, [0.3] * 50, [0.2] * 50])
    table = judged_trials(frames)
    assert table["trial"].tolist() == [1, 2, 0]
    assert table["minimized"].tolist() == [-0.3, -0.2, -0.1]
    assert not table["pruned"].any()
    assert ranked_trials(frames)["trial"].tolist() == [1, 2, 0]


def test_a_study_has_curves_from_three_evaluations_on():
    assert has_curves(frames_of_curves(study(), [[0.5, 0.4, 0.3]]))
    assert not has_curves(frames_of_curves(study(), [[0.5, 0.4]]))


def test_the_best_trials_with_a_metric_come_with_their_curves():
    frames = frames_of_curves(study(), [[0.5] * 50, [0.3] * 50, [0.4] * 20])
    trials, curves = best_with(frames, METRIC, top=3)
    assert trials["trial"].tolist() == [1, 0], "the third was not measured to the end"
    assert curves.values.shape == (2, 50)
    assert curves.values[:, 0].tolist() == [0.3, 0.5]
    assert best_with(frames, "training/loss", top=3)[0].empty


def test_pruned_trials_have_curves_without_a_rank():
    frames = frames_of_curves(study(), [[0.5] * 50, [0.3] * 4])
    trials = frames.trials.copy()
    trials.loc[1, ["state", "reason"]] = ["cancelled", "pruned"]
    table = pruned_curves_frame(replace(frames, trials=trials))
    assert set(table["trial"]) == {1}
    assert len(table) == 4
    assert table["rank"].isna().all()


# Ranges


def axis(name, domain):
    made = axis_of(Hyperparameter(name, domain))
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("domain", "value", "place"),
    [
        (uniform(0.0, 10.0), 2.5, 0.25),
        (log_uniform(1e-4, 1e-0), 1e-3, 0.25),
        (integers(0, 8), 4, 0.5),
        (integers(1, 256, log=True), 16, 0.5),
    ],
)
def test_a_position_is_a_share_of_the_scale(domain, value, place):
    assert unit_positions(pd.Series([value]), domain)[0] == pytest.approx(place)


@pytest.mark.parametrize(
    ("levels", "low", "high"),
    [
        ((32, 64, 128), 16, 256),
        ((0.1, 0.2, 0.3), 0.0, 0.4),
        ((1, 10, 100), 0, 1000),
        ((2, 4, 6), 0, 8),
    ],
)
def test_the_next_choice_is_as_far_as_the_last_one(levels, low, high):
    assert next_level(levels, "high") == pytest.approx(high)
    assert next_level(levels, "low") == pytest.approx(low, abs=1e-9)


@pytest.mark.parametrize(
    ("domain", "edge", "bound"),
    [
        (log_uniform(1e-3, 1e-1), "high", 1.0),
        (log_uniform(1e-3, 1e-1), "low", 1e-4),
        (uniform(-1.0, 1.0), "low", -2.0),
        (uniform(2.0, 4.0), "high", 5.0),
        (uniform(0.0, 0.9), "high", 0.95),
        (integers(4, 8), "high", 10),
        (integers(1, 3), "low", 1),
    ],
)
def test_a_wider_range_goes_half_a_width_further(domain, edge, bound):
    assert next_bound(domain, edge) == pytest.approx(bound)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("dropout", 0.0, 1.0),
        ("hiddenDropoutProb", 0.0, 1.0),
        ("beta2", 0.0, 1.0),
        ("weight_decay", 0.0, None),
        ("lr", 0.0, None),
        ("num_layers", 0.0, None),
        ("log_lr", None, None),
        ("temperature_offset", None, None),
        ("color", None, None),
    ],
)
def test_a_name_shows_the_ends_of_its_range(name, low, high):
    assert (known_end(name, "low"), known_end(name, "high")) == (low, high)


@pytest.mark.parametrize(
    ("name", "domain", "edge", "reason"),
    [
        ("dropout", uniform(0.0, 0.5), "low", "0 is the smallest dropout possible"),
        ("dropout", uniform(0.0, 0.5), "high", None),
        ("momentum", uniform(0.5, 1.0), "high", "1 is the largest momentum possible"),
        ("layers", integers(1, 4), "low", "1 is the smallest layers possible"),
        ("crops", integers(0, 4), "low", "0 is the smallest crops possible"),
        ("shift", uniform(0.0, 4.0, limits="low"), "low", "the low edge is a declared limit"),
        ("shift", uniform(0.0, 4.0, limits="both"), "high", "the high edge is a declared limit"),
        ("shift", uniform(0.0, 4.0), "low", None),
    ],
)
def test_a_closed_edge_says_why(name, domain, edge, reason):
    assert closed_because(axis(name, domain), edge) == reason


def test_a_choice_of_numbers_is_an_axis_and_names_are_none():
    made = axis("width", choice(64, 16, 32))
    assert made.levels == (16, 32, 64)
    assert made.positions(pd.Series([16, 32, 64])).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert further_out(made, "high") == 128
    assert axis_of(Hyperparameter("kind", choice("a", "b", "c"))) is None
    assert axis_of(Hyperparameter("width", choice(16, 32))) is None, "two values show no trend"


# Differences


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_two_points_is_that_of_students_t(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random(4), rng.random(3) + 0.2
    found = contrast(one.tolist(), other.tolist(), Noise(0.1, 5), "minimize")
    error = 0.1 * math.sqrt(1 / 4 + 1 / 3)
    low, high = stats.t.interval(0.8, 5, loc=other.mean() - one.mean(), scale=error)
    assert (found.low, found.difference, found.high) == pytest.approx((low, other.mean() - one.mean(), high))
    turned = contrast(one.tolist(), other.tolist(), Noise(0.1, 5), "maximize")
    assert turned.difference == pytest.approx(-found.difference)


@pytest.mark.parametrize(
    ("difference", "verdict"), [(1.0, "confirmed"), (-1.0, "rejected"), (0.01, "unconfirmed"), (0.0, "unconfirmed")]
)
def test_a_difference_is_confirmed_where_its_interval_leaves_out_nothing(difference, verdict):
    found = contrast([0.0, 0.0], [difference, difference], Noise(0.1, 8), "minimize")
    assert found.verdict == verdict


def test_without_a_repeated_point_nothing_is_confirmed():
    found = contrast([0.0], [9.0], Noise(math.nan, 0), "minimize")
    assert (found.verdict, found.low, found.high) == ("unconfirmed", -math.inf, math.inf)
    assert "no configuration was trained twice" in found.words


def test_the_noise_of_trainings_is_pooled_over_their_points():
    """(1, 3) and (2, 2, 5): squares 2 and 6, degrees 1 and 2."""
    pairs = pd.DataFrame(
        {"parent": [0, 0, 1, 1, 1, 2], "value": [1.0, 3.0, 2.0, 2.0, 5.0, 7.0], "rate": 1.0, "complete": True}
    )
    noise = trial_noise(pairs)
    assert (noise.deviation, noise.degrees) == (pytest.approx(math.sqrt(8.0 / 3.0)), 3)
    assert trial_noise(pairs.assign(rate=0.5)).degrees == 0
    assert trial_noise(pairs.tail(1)).degrees == 0


@pytest.mark.parametrize("seed", range(3))
def test_welchs_interval_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(0.0, 1.0, 5), rng.normal(0.3, 3.0, 7)
    found = welch_difference(one, other, 0.9)
    known = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
