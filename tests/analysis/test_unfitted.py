"""What is proposed where no rate fitted: validation first, then what can be reached, each as a line to write."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, record, study

from tuner.analysis.fit_steps import fit_steps_frame, noise_around, running_median
from tuner.analysis.frames import frames_of
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.sweep_outcome import not_fitted, sweep_outcome
from tuner.analysis.sweep_records import fits_of_stages
from tuner.analysis.unfitted import Unfitted, _length, proposals
from tuner.design.objective import at_least, at_most, maximize, minimize
from tuner.records import State
from tuner.records.sweep_outcomes import NotFitted

STEPS = np.arange(20, 2001, 20)  # 100 evaluations
LOSSES = at_most("training/loss", 0.01)


def frames(curves, criterion=LOSSES, objective=None):
    """A stage of one trial a rate, each with its training and its validation curve; validation may be missing."""
    objective = objective or minimize("validation/loss")
    where = replace(study(), kind="sweep", fitted_when=criterion, objective=objective)
    records = [record(n, {"learning_rate": rate}, State.COMPLETE) for n, rate in enumerate(curves)]
    parts = []
    for n, (training, validation) in enumerate(curves.values()):
        parts.append(curve(n, STEPS.tolist(), list(training), criterion.metric))
        if validation is not None:
            parts.append(curve(n, STEPS.tolist(), list(validation), objective.metric))
    return frames_of(where, records, pd.concat(parts, ignore_index=True))


def found(curves, **more):
    stage = frames(curves, **more)
    fits = fit_steps_frame(stage)
    outcome = sweep_outcome(fits, int(STEPS[-1]))
    assert isinstance(outcome, NotFitted)
    return sweep_finding(outcome, fits, stage.study), proposals(Unfitted(outcome, fits, stage.study)), fits


def valley(best_step, lowest, rise):
    """Validation that falls to `lowest` at a step, stays there for 4 evaluations, and rises by `rise` until the end."""
    after = np.clip(STEPS - best_step - 80, 0.0, None)
    before = np.clip(best_step - STEPS, 0, None)
    return lowest + (before / best_step) ** 2 + rise * after / after.max()


def power(level, exponent=0.5):
    """Training that gets better by a constant factor with each doubling of the steps."""
    return level * (STEPS / STEPS[-1]) ** -exponent


OVERFITTING = {
    0.001: (power(0.3), valley(600, 0.45, 0.1)),
    0.01: (power(0.04), valley(200, 0.43, 1.0)),
    0.1: (power(0.2), valley(100, 0.5, 0.8)),
}


def test_where_validation_got_worse_no_more_steps_are_proposed_and_regularization_is_not_ruled_out():
    finding, lines, fits = found(OVERFITTING)
    assert fits["overfits"].tolist() == [True, True, True]
    assert fits["validation_step"].tolist() == [600, 200, 100]
    # At 0.01 training was 0.04 * (2000 / 200) ** 0.5 = 0.126 when validation was best.
    assert [(line.code, line.place) for line in lines] == [
        ('fitted_when = at_most("training/loss", 0.13)', "the workload"),
        ("max_train_steps=400", "the first Round"),
    ]
    assert "max_steps" not in finding.action
    assert "A37" not in " ".join(finding.caveats)
    assert "regularization can help (A5)" in finding.caveats[0]
    assert "was best (0.43) at 0.01 after 200 of 2,000 steps" in finding.summary


def test_a_length_that_is_proposed_has_room_for_the_evaluations_that_judge_it():
    """Validation was best after 5 steps: 10 steps could not be evaluated the 20 times that best steps take."""
    assert _length(5).code == "max_train_steps=20"
    assert "not fewer than 20" in _length(5).why
    assert _length(200).code == "max_train_steps=400"


def test_the_criterion_that_is_proposed_is_met_by_the_trial_it_was_read_from():
    finding, _, _ = found(OVERFITTING)
    stage = frames(OVERFITTING, criterion=at_most("training/loss", 0.13))
    again = fit_steps_frame(stage).set_index("learning_rate")
    assert again.loc[0.01, "first_fit"] == 200, "0.04 * (2000 / 200) ** 0.5 = 0.126"
    assert finding.needs_action


def test_a_curve_that_still_falls_asks_for_more_steps_than_its_pace_takes():
    """0.04 at 2,000 steps, halved by four times the steps: 0.01 at 32,000."""
    flat = valley(1000, 0.4, 0.0)
    finding, lines, fits = found({0.001: (power(0.3), flat), 0.01: (power(0.04), flat), 0.1: (power(0.2), flat)})
    projected = int(fits.set_index("learning_rate").loc[0.01, "projected_steps"])
    assert projected == pytest.approx(32_000, rel=0.1)
    assert lines[0].code.startswith("Sweep(max_steps=")
    assert int(lines[0].code[len("Sweep(max_steps=") : -1]) >= 32_000
    assert "validation gained nothing after 1,000 steps" in finding.action
    assert "A37" in finding.caveats[0]


def test_a_curve_that_flattens_above_the_criterion_is_told_from_one_that_needs_steps():
    """A floor of 0.2 under a power law: it still falls, and never reaches 0.01."""
    flat, levels = valley(1000, 0.4, 0.0), {0.01: 0.2, 0.1: 0.05, 1.0: 0.3}
    floor = {rate: (0.2 + power(level, 1.0), flat) for rate, level in levels.items()}
    finding, lines, fits = found(floor)
    assert fits.set_index("learning_rate").loc[0.1, "heads_for"] == pytest.approx(0.2, abs=0.02)
    assert "approaches about 0.2 (likely)" in finding.summary
    assert lines[0].code == 'fitted_when = at_most("training/loss", 0.26)', "0.25 and 0.25 * 2000 / 1800 were reached"
    assert [line.code for line in lines][1] == "max_train_steps=2000"


def test_a_plateau_of_wrong_labels_proposes_the_error_that_was_reached():
    plateau, flat = np.where(STEPS < 400, 0.4, 0.05), valley(400, 0.4, 0.0)
    curves = {rate: (plateau + extra, flat) for rate, extra in ((0.01, 0.1), (0.1, 0.0), (1.0, 0.2))}
    _, lines, _ = found(curves, criterion=at_most("training/error_rate", 0.0))
    assert lines[0].code == 'fitted_when = at_most("training/error_rate", 0.05)'
    assert lines[1].code == "max_train_steps=800"


def test_an_accuracy_that_is_maximized_is_read_the_other_way_round():
    criterion, objective = at_least("training/accuracy", 1.0), maximize("validation/accuracy")
    curves = {rate: (1.0 - training, 1.0 - validation) for rate, (training, validation) in OVERFITTING.items()}
    _, lines, fits = found(curves, criterion=criterion, objective=objective)
    assert fits["validation_best"].tolist() == pytest.approx([0.55, 0.57, 0.5])
    assert lines[0].code == 'fitted_when = at_least("training/accuracy", 0.87)'


def test_the_best_rate_at_the_end_asks_for_rates_beyond_every_rate_that_was_tried():
    flat = valley(1000, 0.4, 0.0)
    probes = fit_steps_frame(frames({0.001: (power(0.9), flat), 0.01: (power(0.5), flat)}))
    around = frames({0.01: (power(0.5), flat), 0.03: (power(0.4), flat), 0.1: (power(0.3), flat)})
    fits = fits_of_stages([probes, fit_steps_frame(around)])
    assert fits["learning_rate"].tolist() == [0.001, 0.01, 0.03, 0.1]
    outcome = not_fitted(fits, 2000)
    assert outcome.best_learning_rate == 0.1
    finding = sweep_finding(outcome, fits, around.study)
    assert finding.action.startswith("Write `Sweep(learning_rate=(0.001, 0.01, 0.03, 0.1, 0.333, 1.11, 3.7))`")
    assert finding.evidence["learning_rate"].max() == 0.1, "the table shows the trial that the text speaks of"


def test_validation_that_only_wavers_is_not_taken_for_worse():
    rng = np.random.default_rng(5)
    noisy = 0.4 + 0.05 * rng.standard_normal(len(STEPS))
    _, _, fits = found({rate: (power(0.2), noisy) for rate in (0.01, 0.1, 1.0)})
    assert not fits["overfits"].any()


def test_nothing_is_said_about_regularization_where_validation_was_not_measured():
    finding, _, _ = found({rate: (power(level), None) for rate, level in ((0.01, 0.3), (0.1, 0.2), (1.0, 0.4))})
    assert finding.caveats == ("Validation was not recorded, so whether regularization can help is not known (A37).",)


def test_of_rates_that_reached_the_same_value_the_text_and_the_lines_speak_of_the_same_one():
    """More rates than a sort keeps in order by chance; only the lowest one still falls, and by itself."""
    flat = valley(1000, 0.4, 0.0)
    level = np.full(len(STEPS), power(0.3)[-1])
    curves = {0.001 * 1.5**n: (power(0.3) if n == 0 else level, flat) for n in range(20)}
    finding, lines, fits = found(curves)
    assert fits["shortfall"].nunique() == 1
    assert "the best trial, at 0.001," in finding.summary
    assert "still improving" in finding.summary
    assert lines[0].code.startswith("Sweep(learning_rate=(0.000296, "), "at the lower end of the grid"


def test_a_running_median_passes_over_one_spike():
    assert running_median(np.array([1.0, 1.0, 9.0, 1.0, 1.0, 1.0])).tolist() == [1.0] * 6
    assert noise_around(np.array([1.0, 1.0, 9.0, 1.0, 1.0, 1.0])) == 0.0
