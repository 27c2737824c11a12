"""Answers to the questions about curves, for curves whose noise, level and shape are known by construction."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import METRIC, curve, frames_of_curves, frames_of_values, planned, record, study

from tuner.analysis.frames import frames_of
from tuner.analysis.questions.enough_points import best_of_n_frame, enough_points_finding, num_close
from tuner.analysis.questions.improvement import improvement_finding, improvement_frame
from tuner.analysis.questions.infeasible import infeasible_finding, infeasible_frame
from tuner.analysis.questions.insensitivity import insensitivity_finding, insensitivity_frame
from tuner.analysis.questions.late_variance import late_variance_finding, late_variance_frame
from tuner.analysis.questions.overfitting import overfitting_finding, overfitting_frame
from tuner.analysis.questions.periodicity import periodicity_finding, periodicity_frame
from tuner.analysis.questions.pruned import pruned_findings, pruned_frame
from tuner.analysis.questions.training_loss import training_loss_finding, training_loss_frame, training_metric
from tuner.analysis.questions.transfer import Region, agreement, best_region
from tuner.analysis.trial_curves import split_metrics
from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.objective import Objective
from tuner.design.space import SearchSpace

EVALUATIONS = 100
DONE = np.arange(1, EVALUATIONS + 1) / EVALUATIONS
DESCENT = 0.5 + 1.5 * np.exp(-6.0 * DONE)  # falls by 0.013 in the last quarter
SETTLED = 0.5 + 1.5 * np.exp(-20.0 * DONE)  # falls by nothing there


def both_splits(training, validation, *, sd=0.01, trials=8, seed=0, direction="minimize"):
    """Trials with these two curves and white noise of a known size; each a little worse than the one before."""
    rng = np.random.default_rng(seed)
    declared = study(evaluations=EVALUATIONS, direction=direction)
    at, sign = declared.budget.evaluation_steps, 1.0 if direction == "minimize" else -1.0
    parts = []
    for number in range(trials):
        for metric, shape in (("training/loss", training), (METRIC, validation)):
            values = sign * (shape + 0.02 * number + sd * rng.standard_normal(len(at)))
            parts.append(curve(number, at, values.tolist(), metric))
    records = [planned(record(number)) for number in range(trials)]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


# Improvement


def test_a_gain_in_the_last_quarter_is_measured_against_the_noise():
    """A line that falls by 1.0 gains 0.1 in a tenth of the run; levels a tenth wide lie 0.25 before and at the end."""
    table = improvement_frame(both_splits(2.0 - DONE, 2.0 - DONE))
    assert table["metric"].tolist() == ["training/loss", METRIC]
    assert table["gain_per_1000_steps"].tolist() == pytest.approx([1.0, 1.0], rel=0.15)
    assert (table["gain"] > 15.0).all()
    assert table["still_improving"].all()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    ("shape", "verdict"),
    [(2.0 - DONE, "still_improving"), (SETTLED, "saturated"), (SETTLED + np.maximum(0.0, DONE - 0.6), "got_worse")],
)
def test_the_end_of_a_run_improves_stays_or_gets_worse(shape, verdict, direction):
    assert improvement_finding(both_splits(DESCENT, shape, direction=direction)).verdict == verdict


def test_nineteen_evaluations_do_not_answer_it():
    frames = frames_of_curves(study(evaluations=19), [np.linspace(1.0, 0.5, 19).tolist()] * 6)
    assert improvement_finding(frames).verdict == "inconclusive"


# Overfitting


@pytest.mark.parametrize(
    ("training", "validation", "verdict"),
    [
        (DESCENT, DESCENT + np.maximum(0.0, DONE - 0.5), "overfitting"),
        (DESCENT, DESCENT, "ok"),
        (DESCENT + np.maximum(0.0, DONE - 0.5), DESCENT + np.maximum(0.0, DONE - 0.5), "ok"),
    ],
)
def test_validation_that_rises_while_training_falls_overfits(training, validation, verdict):
    finding = overfitting_finding(both_splits(training, validation))
    assert finding.verdict == verdict
    assert finding.needs_action == (verdict == "overfitting")


def test_the_rise_is_told_in_units_of_the_noise():
    rising = DESCENT + np.maximum(0.0, DONE - 0.5)
    table = overfitting_frame(both_splits(DESCENT, rising, sd=0.01))
    assert table["rise"].median() == pytest.approx((rising[-10:].mean() - rising.min()) / 0.01, rel=0.25)
    assert len(table) == 5, "the five best good trials"


# Training loss


@pytest.mark.parametrize(
    ("training", "verdict"),
    [(DESCENT, "ok"), (DESCENT + np.maximum(0.0, 2.0 * (DONE - 0.4)), "rising"), (np.full(EVALUATIONS, 0.5), "ok")],
)
def test_a_training_loss_that_rises_for_good_is_a_bug(training, verdict):
    assert training_loss_finding(both_splits(training, DESCENT)).verdict == verdict


def test_the_lowest_training_loss_lies_where_the_curve_turns():
    turning = np.abs(DONE - 0.4)
    table = training_loss_frame(both_splits(turning, DESCENT))
    assert table["lowest_at"].tolist() == pytest.approx([0.4] * 8, abs=0.03)
    assert table["rising"].all()


def test_a_maximized_metric_is_judged_on_its_own_training_split():
    assert training_metric(both_splits(DESCENT, DESCENT)) == "training/loss"
    assert training_metric(both_splits(DESCENT, DESCENT, direction="maximize")) == "training/loss"
    frames = both_splits(DESCENT, DESCENT)
    accuracy = replace(frames, study=replace(frames.study, objective=Objective("validation/accuracy", "maximize")))
    assert training_metric(accuracy) == "training/accuracy"
    assert split_metrics(accuracy.study.objective) == ("training/accuracy", "validation/accuracy")


# Late variance


@pytest.mark.parametrize(("sd", "verdict"), [(0.001, "ok"), (0.2, "noisy")])
def test_trials_are_told_apart_by_more_than_the_noise(sd, verdict):
    frames = both_splits(DESCENT, DESCENT, sd=sd)
    assert late_variance_finding(frames).verdict == verdict
    assert late_variance_frame(frames)["late_noise"].median() == pytest.approx(sd, rel=0.3)


def test_gaps_are_distances_to_the_best():
    """Each trial is worse by 0.02 than the one before; seven of eight are good."""
    frames = both_splits(DESCENT, DESCENT, sd=1e-9)
    assert late_variance_frame(frames)["gap"].tolist() == pytest.approx([0.02 * n for n in range(7)])


# Periodicity


@pytest.mark.parametrize("period", [5, 8, 12])
def test_the_period_of_a_wave_is_found(period):
    wave = 0.05 * np.sin(2.0 * np.pi * np.arange(EVALUATIONS) / period)
    frames = both_splits(DESCENT + wave, DESCENT + wave)
    table = periodicity_frame(frames)
    interval = frames.study.budget.max_train_steps / EVALUATIONS
    assert table["period"].tolist() == pytest.approx([period * interval] * 2, rel=0.1)
    assert periodicity_finding(frames).verdict == "periodic"


def test_noise_has_no_period():
    assert periodicity_finding(both_splits(DESCENT, DESCENT)).verdict == "none"


# Points


def test_trials_close_to_the_best_lie_in_a_quarter_of_the_gap_to_the_median():
    """The best is 0, the median 1: up to 0.25 is close."""
    values = [0.0, 0.1, 0.25, 0.26, 1.0, 2.0, 3.0, 1.0, 4.0]
    frames = frames_of_values(study(), [{"learning_rate": 0.01}] * 9, values)
    assert num_close(frames) == 3
    assert enough_points_finding(frames).verdict == "enough"
    assert enough_points_finding(frames_of_values(study(), [{"learning_rate": 0.01}] * 4, values[:4])).verdict == (
        "inconclusive"
    )


def test_the_best_of_n_is_that_of_many_draws():
    values = np.random.default_rng(0).random(20)
    table = best_of_n_frame(frames_of_values(study(), [{"learning_rate": 0.01}] * 20, values.tolist()))
    rng = np.random.default_rng(1)
    for n in (1, 5, 10):
        drawn = rng.choice(values, (4000, n)).min(axis=1)
        row = table[table["n"] == n].iloc[0]
        assert row["median"] == pytest.approx(np.median(drawn), abs=0.06)
    assert (np.diff(table["median"]) <= 0.0).all()


def test_infeasible_trials_above_all_others_are_separated_from_them():
    rates = np.geomspace(1e-4, 1e-1, 12)
    values = [None if rate > 0.02 else 0.5 for rate in rates]
    frames = frames_of_values(study(), [{"learning_rate": float(rate)} for rate in rates], values)
    (row,) = infeasible_frame(frames).to_dict("records")
    assert row["separation"] == 1.0
    assert row["infeasible"] + row["feasible"] == 12
    assert row["infeasible_low"] > row["feasible_high"]
    assert infeasible_finding(frames).verdict == "ok"


@pytest.mark.parametrize(("bad", "verdict"), [(5, "ok"), (6, "many_infeasible"), (10, "many_infeasible")])
def test_more_than_half_infeasible_asks_for_another_space(bad, verdict):
    rng = np.random.default_rng(0)
    points = [{"learning_rate": float(rate)} for rate in 10 ** rng.uniform(-4, -1, 10)]
    assert infeasible_finding(frames_of_values(study(), points, [None] * bad + [0.5] * (10 - bad))).verdict == verdict


SPACE = SearchSpace(rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5))


def searched(objective, count=40, seed=0):
    rng = np.random.default_rng(seed)
    points = [{"rate": float(10 ** rng.uniform(-4, -1)), "dropout": float(rng.uniform(0, 0.5))} for _ in range(count)]
    return frames_of_values(study(SPACE), points, [float(objective(point, rng)) for point in points])


def test_results_that_follow_one_hyperparameter_are_sensitive_to_it():
    frames = searched(lambda point, rng: (np.log10(point["rate"]) + 2.5) ** 2)
    finding = insensitivity_finding(frames)
    assert finding.verdict == "sensitive"
    assert "depend on rate " in finding.summary
    assert insensitivity_frame(frames)["explained"].iloc[0] > 0.9


def test_results_that_are_drawn_at_random_depend_on_nothing():
    verdicts = [
        insensitivity_finding(searched(lambda point, rng: rng.random(), seed=seed)).verdict for seed in range(6)
    ]
    assert "sensitive" not in verdicts
    assert verdicts.count("insensitive") >= 4


# Pruned trials


def test_a_pruned_trial_gets_the_rank_it_had():
    """At step 40 the third trial is worse than one of two: at its end it would be no better than 0.4."""
    curves = [[1.0, 0.5, *[0.2] * 48], [1.0, 0.9, *[0.4] * 48], [1.0, 0.7]]
    frames = frames_of_curves(study(), curves)
    trials = frames.trials.copy()
    trials.loc[2, ["state", "reason", "steps"]] = ["cancelled", "pruned", 40]
    cut = replace(frames, trials=trials)
    (row,) = pruned_frame(cut).to_dict("records")
    assert (row["step"], row["better"], row["of"], row["at_least"]) == (40, 1, 2, 0.4)
    assert row["fraction"] == pytest.approx(0.04)
    (finding,) = pruned_findings(cut)
    assert finding.verdict == "some_pruned"
    assert pruned_findings(frames) == []


# Regions of good trials


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((0.2, 0.6, 0.4), (0.3, 0.7, 0.5), "confirmed"),
        ((0.2, 0.4, 0.3), (0.6, 0.9, 0.7), "rejected"),
        ((0.2, 0.5, 0.2), (0.4, 0.9, 0.8), "unconfirmed"),
    ],
)
def test_two_regions_agree_where_each_holds_the_others_best(before, after, verdict):
    one, other = (Region(place[0], place[1], place[2], place) for place in (before, after))
    assert agreement(one, other) == verdict


def test_the_region_of_good_trials_is_that_of_their_values():
    frames = searched(lambda point, rng: (np.log10(point["rate"]) + 2.5) ** 2, count=60)
    region = best_region(frames, "rate", SPACE["rate"].domain)
    assert region is not None
    assert region.best == pytest.approx(10**-2.5, rel=0.3)
    assert region.low < region.best < region.high
    assert not region.is_wide
    assert best_region(searched(lambda point, rng: 0.5, count=4), "rate", SPACE["rate"].domain) is None
