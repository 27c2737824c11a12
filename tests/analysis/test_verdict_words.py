"""What a verdict says agrees with its label, and two answers about one thing do not contradict each other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, frames_of_curves, frames_of_values, record, study, trained
from analysis.test_check_questions import BOTH, FRACTIONS, frames_of_splits, noise, scientific, stability

from benchmarks.curve_cases import TABLE_SEED, curve_case
from tuner.analysis.checklist import checklist_findings, known_verdicts
from tuner.analysis.frames import frames_of
from tuner.analysis.good_trials import evaluation_noise, good_in_words, good_trials, noise_in_words
from tuner.analysis.learning_rates import rate_left
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.effort import effort_findings
from tuner.analysis.questions.enough_points import enough_points_finding
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.infeasible import infeasible_finding
from tuner.analysis.questions.instability import instability_finding, instability_frame
from tuner.analysis.questions.late_variance import late_variance_finding
from tuner.analysis.questions.overfitting import overfitting_finding
from tuner.analysis.questions.periodicity import periodicity_finding
from tuner.budget.families import constant_then_decay, cosine, linear
from tuner.budget.schedules import ScheduleFamily
from tuner.design.hyperparameters import integers, log_uniform
from tuner.design.space import SearchSpace
from tuner.records import State

PLATEAU = np.maximum(0.0, 1.0 - 3.0 * FRACTIONS)


# Best steps


@pytest.mark.parametrize("kind", ["spikes, plateau", "growing, plateau", "correlated, plateau", "spikes, improving"])
def test_disturbed_curves_are_judged_as_undisturbed_ones(kind):
    cases = [curve_case("best_steps", kind, TABLE_SEED + 6_000 + seed) for seed in range(8)]
    verdicts = [best_steps_finding(case.frames).verdict for case in cases]
    assert set(verdicts) <= {cases[0].truth, "inconclusive"}
    assert verdicts.count(cases[0].truth) >= 7


def test_curves_that_never_leave_chance_are_no_budget_that_is_too_long():
    chance = 0.9 + noise(np.random.default_rng(0), count=12)
    finding = best_steps_finding(frames_of_curves(study(), chance.tolist()))
    assert finding.verdict == "inconclusive"
    assert "learned" in finding.summary


def test_a_plateau_that_was_reached_before_the_first_evaluation_is_too_long_all_the_same():
    """The trials differ, so something was learned, and differently well."""
    levels = 0.3 + 0.1 * np.random.default_rng(1).random(12)[:, None]
    finding = best_steps_finding(
        frames_of_curves(study(), (levels + noise(np.random.default_rng(0), count=12)).tolist())
    )
    assert finding.verdict == "too_long"


@pytest.mark.parametrize(
    ("schedule", "strength"),
    [(linear(), "strong"), (constant_then_decay(0.2), "strong"), (cosine(), "weak"), (cosine(final=0.2), "strong")],
)
def test_a_flat_end_is_weak_evidence_where_the_rate_has_died(schedule, strength):
    """The mean rate over the last quarter by hand: linear 12 %, the last fifth decaying 60 %, cosine 5 %, 24 %."""
    curves = PLATEAU + noise(np.random.default_rng(0), count=12)
    finding = best_steps_finding(frames_of_curves(study(schedule=schedule), curves.tolist()))
    assert (finding.verdict, finding.strength) == ("ok", strength)
    assert any("learning rate is (almost) zero" in caveat for caveat in finding.caveats) == (strength == "weak")


def test_the_share_of_the_rate_that_is_left_is_that_of_the_schedule_or_of_the_log():
    frames = frames_of_curves(study(schedule=linear()), [[0.5] * 50])
    assert rate_left(frames, [0], 0.75)[0] == pytest.approx(0.125, abs=0.002)
    logged = pd.concat([frames.curves, curve(0, [250, 500, 750, 800, 1000], [0.1, 0.1, 0.1, 0.02, 0.0], "lr")])
    elsewhere = frames_of(study(schedule=ScheduleFamily("unknown")), [record(0)], logged)
    assert rate_left(elsewhere, [0], 0.75)[0] == pytest.approx(0.1)
    assert np.isnan(rate_left(frames, [7], 0.75)[0])


def test_an_open_answer_names_the_gain_that_it_leaves_open_and_asks_for_nothing_that_is_there():
    drifting = 0.04 * (1.0 - FRACTIONS) + noise(np.random.default_rng(0), count=3)
    finding = best_steps_finding(frames_of_curves(study(), drifting.tolist()))
    assert finding.verdict == "inconclusive"
    assert "times the evaluation noise" in finding.summary
    assert "at least 20 times" not in finding.action, "each was evaluated 50 times"


def test_gains_of_different_size_are_gains():
    """One trial gains 100 times as much as the others: the spread of the gains is no doubt that they are there."""
    falling = np.array([1.0] * 6 + [100.0])[:, None] * (1.0 - 0.8 * FRACTIONS) * 0.1
    curves = falling - falling.min(axis=1, keepdims=True) + noise(np.random.default_rng(0), 0.001, count=7)
    assert best_steps_finding(frames_of_curves(study(), curves.tolist())).verdict == "maybe_too_short"


# Improvement


def test_validation_that_got_worse_is_not_saturated():
    worse = PLATEAU + 0.4 * np.maximum(0.0, FRACTIONS - 0.5) + noise(np.random.default_rng(0))
    finding = improvement_finding(frames_of_splits(1.0 - FRACTIONS + noise(np.random.default_rng(1)), worse))
    assert finding.verdict == "got_worse"
    assert "got_worse" in known_verdicts()
    assert "worse" in finding.summary


@pytest.mark.parametrize("shape", [PLATEAU, 1.0 - FRACTIONS, np.maximum(0.0, 1.0 - FRACTIONS / 0.05), FRACTIONS * 0.0])
def test_improvement_proposes_no_other_budget_than_the_best_steps(shape):
    frames = frames_of_curves(study(), (shape + noise(np.random.default_rng(0), count=12)).tolist())
    improvement, best = improvement_finding(frames), best_steps_finding(frames)
    assert (
        best.verdict in improvement.action or best.action in improvement.action or "Nothing to do" in improvement.action
    )
    assert "shrink" not in improvement.action
    if best.verdict == "ok":
        assert "keeps 1,000 steps" in improvement.action


def test_an_accuracy_that_stays_on_one_step_is_not_known_more_exactly_than_its_steps():
    """On 130 examples, without any noise: two steps of 1/130 are 7 of its rounding errors, not 100 noises."""
    wrong = 0.04 + 0.01 * np.arange(12)[:, None] + 0.5 * (FRACTIONS < 0.1)
    counted = np.round(130.0 * (wrong - 0.015 * (FRACTIONS > 0.85))) / 130.0
    frames = frames_of_curves(study(), counted.tolist())
    assert evaluation_noise(frames) == pytest.approx(1.0 / 130.0 / np.sqrt(12.0), rel=1e-3)
    table = improvement_finding(frames).evidence
    assert 2.0 < table["gain"].item() < 8.0
    assert improvement_finding(frames).verdict == "still_improving"


# One definition of a good trial, one noise


def test_every_finding_says_the_good_trials_and_the_noise_in_the_same_words():
    rng = np.random.default_rng(3)
    frames = frames_of_splits(*[PLATEAU + 0.3 * np.arange(12)[:, None] / 12 + noise(rng, count=12)] * 2)
    words, noisy = good_in_words(frames), noise_in_words(evaluation_noise(frames)).strip()
    assert words == f"{len(good_trials(frames))} good trials of 12 completed"
    for ask in (best_steps_finding, improvement_finding, late_variance_finding):
        assert words in ask(frames).summary
        assert noisy in ask(frames).summary
    assert words in overfitting_finding(frames).summary
    assert "are good" not in enough_points_finding(frames).summary


# Overfitting


def test_two_of_five_trials_that_overfit_are_not_called_ok():
    rng = np.random.default_rng(0)
    training = 1.0 - FRACTIONS + noise(rng, count=5)
    flat = np.maximum(0.0, 0.25 - 0.5 * FRACTIONS) + noise(rng, count=3)
    validation = np.concatenate([0.5 * np.abs(FRACTIONS - 0.5) + noise(rng, count=2), flat])
    finding = overfitting_finding(frames_of_splits(training, validation))
    assert finding.verdict == "some_overfit"
    assert "some_overfit" in known_verdicts()
    assert finding.summary.startswith("2 of the 5 best trials overfit")


def test_one_borderline_trial_of_five_is_chance():
    """Flat curves: of 60 studies hardly one has a trial that seems to overfit."""
    verdicts = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        flat = np.maximum(0.0, 0.25 - 0.5 * FRACTIONS)
        verdicts.append(overfitting_finding(frames_of_splits(flat + noise(rng), flat + noise(rng))).verdict)
    assert verdicts.count("ok") >= 59


# Instability


def test_a_divergent_region_below_the_best_rate_is_no_edge_above_it():
    """The two highest rates diverged, and many low ones: the best rate of all lies between, far from the top."""
    low = np.geomspace(1e-5, 1e-3, 12).tolist()
    finding = instability_finding(stability(3e-2, [1e-4], low))
    ratio = finding.evidence["ratio"].item()
    assert np.isnan(ratio) or ratio > 1.0
    assert finding.verdict != "likely_instability"


def test_crashes_anywhere_are_seldom_an_edge():
    wrong = 0
    for seed in range(75):
        case = curve_case("instability", "crashes anywhere", TABLE_SEED + 7_000 + seed)
        finding = instability_finding(case.frames)
        ratios = finding.evidence["ratio"].dropna()
        assert (ratios > 1.0).all()
        wrong += finding.verdict == "likely_instability"
    assert wrong <= 2, "1 in 100 by construction"


# Infeasible


def out_of_memory(count, state=State.FAILED):
    """20 trials that trained, and `count` of large batches that did not fit."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), batch_size=integers(8, 1024, log=True))
    points = [{"learning_rate": 1e-3, "batch_size": 8 + number} for number in range(20)]
    points += [{"learning_rate": 1e-3, "batch_size": 900 + number} for number in range(count)]
    frames = frames_of_values(study(space), points, [0.5] * (20 + count))
    large = frames.trials["trial"] >= 20
    frames.trials.loc[large, "state"] = state.value
    frames.trials.loc[large, "reason"] = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB"
    return frames


def test_failed_trials_that_ran_out_of_memory_are_counted_named_and_placed():
    finding = infeasible_finding(out_of_memory(4))
    assert (finding.verdict, finding.strength) == ("ok", "moderate")
    assert "4 more ran out of memory" in finding.summary
    assert "trial 20, 21, 22, 23" in finding.summary
    assert "batch_size above about 900" in finding.summary
    assert "17% of the 24" in finding.summary
    assert "memory" in finding.action


def test_infeasible_trials_that_ran_out_of_memory_are_told_and_are_no_divergence():
    """All rates above the best one ran out of memory: nothing diverged, and nothing is said to have."""
    frames = out_of_memory(4, State.INFEASIBLE)
    frames.trials.loc[frames.trials["state"] == "infeasible", "learning_rate"] = 2e-3
    finding = infeasible_finding(frames)
    assert finding.summary.endswith("4 of them ran out of memory.")
    assert "memory" in finding.action
    assert (instability_finding(frames).verdict, instability_frame(frames)["infeasible"].iloc[0]) == ("ok", 0)


def test_most_trials_out_of_memory_are_many_infeasible():
    assert infeasible_finding(out_of_memory(25)).verdict == "many_infeasible"


def test_a_failed_trial_of_another_reason_is_not_out_of_memory():
    frames = out_of_memory(4)
    frames.trials.loc[frames.trials["state"] == "failed", "reason"] = "KeyError: 'memory_bank'"
    assert "memory" not in infeasible_finding(frames).summary


# Effort, periods


def test_one_two_and_one_trials_are_no_equal_effort():
    space = SearchSpace(layers=integers(1, 3))
    points = [{"layers": layers} for layers in (1, 2, 2, 3)]
    frames = frames_of_values(replace(study(space), scientific=("layers",)), points, [0.1, 0.2, 0.3, 0.4])
    (finding,) = effort_findings(frames)
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")
    (few,) = effort_findings(scientific(lambda a, i: 0.1 * i, {"relu": 6, "tanh": 6}))
    assert (few.verdict, few.strength) == ("equal", "moderate")


def waves(period, amplitude, *, epoch=None):
    """Ten trials of 200 evaluations with a wave of a period in steps, and epochs that are logged of this length."""
    declared = study(steps=4000, evaluations=200)
    steps = np.asarray(declared.budget.evaluation_steps)
    rng = np.random.default_rng(0)
    parts = []
    for number in range(10):
        values = np.exp(-steps / 500) + amplitude * np.sin(2 * np.pi * steps / period + number)
        parts.append(curve(number, steps, values + 0.02 * rng.standard_normal(200)))
        if epoch:
            parts.append(curve(number, steps, np.floor(steps / epoch), "epoch"))
    return frames_of(declared, [trained(declared, record(n)) for n in range(10)], pd.concat(parts, ignore_index=True))


def test_noise_that_trials_share_is_no_period():
    """Trials in one order of examples wiggle together: ten of them are one curve, not ten that agree."""
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        curves = PLATEAU + 0.02 * rng.standard_normal(50) + 0.002 * rng.standard_normal((10, 50))
        alarms += periodicity_finding(frames_of_curves(study(), curves.tolist())).verdict == "periodic"
    assert alarms == 0


def test_a_period_that_fits_an_epoch_needs_less_than_one_that_does_not():
    chance = periodicity_finding(waves(230.0, 0.0045)).evidence["chance"].item()
    assert 1e-5 < chance < 1e-4, "a faint wave"
    assert periodicity_finding(waves(230.0, 0.0045)).verdict == "none"
    fits = periodicity_finding(waves(230.0, 0.0045, epoch=230.0))
    assert fits.verdict == "periodic"
    assert "An epoch has about 229 steps" in fits.summary
    assert periodicity_finding(waves(230.0, 0.0045, epoch=171.0)).verdict == "none"


# All together


@pytest.mark.parametrize("count", [0, 1, 2, 4, 9])
def test_no_sentence_of_a_small_study_speaks_of_nan(count):
    rng = np.random.default_rng(0)
    curves = PLATEAU + noise(rng, count=count)
    declared = study()
    parts = [curve(0, [], [])]
    for number, values in enumerate(curves):
        parts += [curve(number, declared.budget.evaluation_steps, values, metric) for metric in BOTH]
    frames = frames_of(
        declared, [trained(declared, record(n)) for n in range(count)], pd.concat(parts, ignore_index=True)
    )
    for found in checklist_findings(frames):
        said = f"{found.summary} {found.action} {' '.join(found.caveats)}"
        assert "nan" not in said.lower().replace("(", " ").replace(",", " ").split(), said
        assert "at least 20 times" not in said or found.verdict in ("inconclusive", "no_curves")
