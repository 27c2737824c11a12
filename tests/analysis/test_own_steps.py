"""Trials that were each evaluated at their own steps: by the clock, or once an epoch with the batch size searched."""

import warnings

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, frames_of_curves, record, study, trained

from benchmarks.curve_cases import TABLE_SEED, curve_case
from tuner.analysis.checklist import checklist_findings
from tuner.analysis.frames import frames_of
from tuner.analysis.good_trials import evaluation_noise
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.overfitting import overfitting_finding
from tuner.analysis.trial_curves import common_curves
from tuner.interchange.cleaning import interval_of, reach_of

BUDGET = 2000
EPOCHS = {32: 80, 64: 40, 128: 20}  # steps between the evaluations of each batch size


def by_epochs(value, *, trials=24, noise=0.001, seed=0):
    """`value(done)` of each trial, evaluated once an epoch, the batch size of the trials taking turns."""
    rng = np.random.default_rng(seed)
    declared, parts = study(steps=BUDGET, evaluations=50), []
    for number in range(trials):
        every = list(EPOCHS.values())[number % 3]
        steps = np.arange(every, BUDGET + 1, every)
        parts.append(
            curve(number, steps, value(steps / BUDGET) + 0.01 * number + noise * rng.standard_normal(len(steps)))
        )
    records = [trained(declared, record(number)) for number in range(trials)]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


def test_trials_that_fall_for_the_whole_run_are_maybe_too_short_whatever_their_batch_size():
    frames = by_epochs(lambda done: 0.1 * (done + 0.01) ** -0.5)
    finding = best_steps_finding(frames)
    assert (finding.verdict, finding.strength) == ("maybe_too_short", "strong")
    assert any("25 to 100 times" in caveat for caveat in finding.caveats)


def test_the_noise_is_that_of_one_evaluation_and_not_of_a_mean_of_several():
    assert evaluation_noise(by_epochs(lambda done: 1.0 - done, noise=0.01)) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(("at", "verdict"), [(0.05, "too_long"), (0.4, "ok")])
def test_plateaus_are_found_at_steps_of_their_own(at, verdict):
    assert best_steps_finding(by_epochs(lambda done: np.maximum(0.0, 1.0 - done / at), noise=0.01)).verdict == verdict


@pytest.mark.parametrize("shape", ["early", "plateau", "improving"])
def test_evaluations_by_the_clock_are_judged_as_a_person_would(shape):
    cases = [curve_case("best_steps", f"clock, {shape}", TABLE_SEED + 5_000 + seed) for seed in range(8)]
    verdicts = [best_steps_finding(case.frames).verdict for case in cases]
    assert set(verdicts) <= {cases[0].truth, "inconclusive"}
    assert verdicts.count(cases[0].truth) >= 6


def test_no_question_of_the_checklist_warns_or_speaks_of_nan():
    frames = by_epochs(lambda done: 0.1 * (done + 0.01) ** -0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = checklist_findings(frames)
    assert not [one for one in found if "nan" in f"{one.summary} {one.action} {' '.join(one.caveats)}".split()]


def test_steps_that_are_shared_stay_as_they_are():
    rng = np.random.default_rng(0)
    values = rng.random((6, 50))
    frames = frames_of_curves(study(), values.tolist())
    curves = common_curves(frames, frames.complete["trial"])
    assert not curves.own_steps
    assert curves.steps.tolist() == list(frames.study.budget.evaluation_steps)
    assert (curves.values == values).all()


def test_a_curve_that_lost_its_end_or_an_evaluation_leaves_the_others_as_they_are():
    declared, rng = study(), np.random.default_rng(0)
    values = rng.random((6, 50))
    steps = np.asarray(declared.budget.evaluation_steps)
    kept = [
        np.arange(50) != 7 if number == 0 else np.arange(50) < 30 if number == 1 else steps > 0 for number in range(6)
    ]
    parts = [curve(number, steps[keep], values[number][keep]) for number, keep in enumerate(kept)]
    frames = frames_of(declared, [record(number) for number in range(6)], pd.concat(parts, ignore_index=True))
    found = common_curves(frames, frames.complete["trial"])
    assert found.steps.tolist() == steps.tolist()
    assert np.isnan(found.values[0]).tolist() == (~kept[0]).tolist()
    assert (found.values[2:] == values[2:]).all()


def test_ends_that_differ_by_a_step_are_one_end():
    """Half of the trials are measured at step 999 last, the others at 1000: none of them lacks its end."""
    declared = study()
    steps = np.asarray(declared.budget.evaluation_steps)
    parts = []
    for number in range(8):
        own = steps.copy()
        own[-1] -= number % 2
        parts.append(curve(number, own, 1.0 - own / 1000))
    frames = frames_of(declared, [record(number) for number in range(8)], pd.concat(parts, ignore_index=True))
    assert common_curves(frames, frames.complete["trial"]).whole.all()


def test_a_straight_line_is_the_same_line_on_the_common_shares():
    """Each trial's line falls by 1 over the budget; at every share it is 1 minus where it was measured."""
    frames = by_epochs(lambda done: 1.0 - done, trials=3, noise=0.0)
    curves = common_curves(frames, frames.complete["trial"])
    lines = curves.values - 0.01 * np.arange(3)[:, None]
    assert np.abs(lines - (1.0 - curves.at / BUDGET))[:, 2:].max() < 0.005, "but for what no evaluation lies before"
    assert curves.evaluations.tolist() == [25, 50, 100]


def test_too_few_evaluations_of_their_own_are_named_as_the_reason():
    """D14: most trials were evaluated fewer than 20 times, each at other steps."""
    case = curve_case("best_steps", "12 evaluations by the clock", TABLE_SEED + 5_000)
    finding = best_steps_finding(case.frames)
    assert finding.verdict == "inconclusive"
    assert "at its own steps" in finding.summary or "evaluations per trial" in finding.summary
    assert "at least 20 times" in finding.action


def test_training_that_is_logged_more_often_than_validation_is_compared_with_it():
    declared, rng = study(), np.random.default_rng(0)
    parts = []
    for number in range(6):
        often = np.arange(5, 1001, 5)
        parts.append(curve(number, often, 1.0 - often / 1000 + 0.01 * rng.standard_normal(200), "training/loss"))
        rare = np.asarray(declared.budget.evaluation_steps)
        parts.append(curve(number, rare, 0.5 * np.abs(rare / 1000 - 0.3) + 0.01 * rng.standard_normal(50)))
    frames = frames_of(declared, [record(number) for number in range(6)], pd.concat(parts, ignore_index=True))
    assert overfitting_finding(frames).verdict == "overfitting"


# Completeness by each trial's own evaluations (D13)


@pytest.mark.parametrize(
    ("steps", "reach"),
    [
        (range(20, 1001, 20), 20),
        ([40, 120, 160, 200, 240, 280, 320, 360, 400, 440, 480, 520, 560], 40),  # one evaluation is missing
        ([100], 7),  # evaluated once: as the study is
        ([], 7),
    ],
)
def test_how_far_a_trial_reaches_beyond_its_last_evaluation(steps, reach):
    assert reach_of(list(steps), 7) == reach


def test_evaluations_by_the_clock_reach_as_far_as_their_usual_largest_distance():
    """Distances of 30 and 60 by turns: the tenth largest is 60, the median 45."""
    assert reach_of(np.cumsum([30, 60] * 10), 7) == 60


def test_the_usual_interval_is_that_of_each_trial_and_not_of_all_steps_together():
    rows = [(number, step) for number, every in enumerate((80, 40, 20)) for step in range(every, 2001, every)]
    assert interval_of(pd.DataFrame(rows, columns=["trial", "step"])) == 40
    assert interval_of(pd.DataFrame({"step": [10, 20, 30]})) == 10
