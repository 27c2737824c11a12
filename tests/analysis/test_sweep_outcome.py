"""Fitted, not fitted or invalid (A19, A24-A26, D3-D5, D8): no number where the grid or the fit does not give one."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from analysis.test_fit_steps import fits_of, quadratic_fits
from scipy import stats

from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.sweep_outcome import (
    extended_grid,
    prediction_interval,
    sweep_outcome,
    with_seeds,
)
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted

FULL = (0.1, 0.3, 1.0, 1.5, 1.9, 2.1)


def interval_fits(intervals: dict[float, tuple[int, int] | str]) -> pd.DataFrame:
    """A frame of trials that fit in (low, high], or are in the named state."""
    rows = []
    for number, (rate, found) in enumerate(intervals.items()):
        low, high = (pd.NA, pd.NA) if isinstance(found, str) else found
        state = found if isinstance(found, str) else "complete"
        rows.append(
            {
                "trial": number, "learning_rate": rate, "state": state, "seed": number, "crossed_at": high,
                "last_unfit": low, "first_fit": high, "final_value": 0.5 if state == "complete" else np.nan,
                "shortfall": 0.5 if state == "complete" else np.nan, "late_improvement": 0.0, "late_noise": 0.0,
                "reason": "diverged at step 3: the loss is nan" if state == "infeasible" else "",
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.astype({"crossed_at": "Int64", "last_unfit": "Int64", "first_fit": "Int64"})


def seeds_of(*steps: int | str) -> pd.DataFrame:
    return interval_fits({n + 1.0: s if isinstance(s, str) else (s - 1, s) for n, s in enumerate(steps)})


def words(outcome, fits) -> str:
    finding = sweep_finding(outcome, fits)
    return " ".join((finding.summary, finding.action, *finding.caveats))


def test_the_quadratic_takes_13_steps_at_a_rate_of_1_5():
    outcome = sweep_outcome(quadratic_fits(FULL, 250), 250)
    assert outcome == Fitted(1.5, 12, 13, 250)
    assert outcome.steps == 13
    assert outcome.width == pytest.approx(1 / 13)


def test_a_grid_cut_below_the_best_rate_is_invalid_and_tells_the_direction():
    fits = quadratic_fits((0.03, 0.1, 0.3), 1000)
    outcome = sweep_outcome(fits, 1000)
    assert isinstance(outcome, Invalid)
    assert (outcome.direction, outcome.learning_rate, outcome.bound, outcome.ambiguous) == ("upper", 0.3, 65, False)
    assert outcome.extended_grid == (0.03, 0.1, 0.3, 0.9, 2.7, 8.1)


def test_an_invalid_sweep_withholds_the_number_and_writes_out_the_extended_grid():
    fits = quadratic_fits((0.03, 0.1, 0.3), 1000)
    finding = sweep_finding(sweep_outcome(fits, 1000), fits)
    said = words(sweep_outcome(fits, 1000), fits)
    assert (finding.verdict, finding.needs_action) == ("invalid", True)
    assert "65" not in said
    assert "tuner sweep STUDY_FILE --extend" in finding.action
    assert "0.03,0.1,0.3,0.9,2.7,8.1" in finding.action


def test_rates_that_are_all_too_small_never_give_the_absurd_number():
    rates = (0.001, 0.003, 0.01)
    enough = sweep_outcome(quadratic_fits(rates, 2000), 2000)
    assert isinstance(enough, Invalid)
    assert (enough.direction, enough.bound) == ("upper", 1956)
    fits = quadratic_fits(rates, 250)
    short = sweep_outcome(fits, 250)
    assert isinstance(short, NotFitted)
    assert [reason.reason for reason in short.reasons] == ["learning_rates", "too_few_steps"]
    assert short.best_learning_rate == 0.01
    # h x^2 / 2 after 250 steps at 0.01: 0.5 (0.99^500 + 0.1 * 0.999^500) = 0.0336.
    assert short.best_value == pytest.approx(0.0336, abs=1e-4)
    assert "Sweep(learning_rate=(0.001, 0.003, 0.01, 0.0333, 0.111, 0.37))" in sweep_finding(short, fits).action


def test_a_best_rate_at_the_low_end_is_invalid_downwards():
    outcome = sweep_outcome(quadratic_fits((1.5, 1.8, 1.9), 250), 250)
    assert isinstance(outcome, Invalid)
    assert outcome.direction == "lower"
    assert outcome.extended_grid == (0.868, 1.04, 1.25, 1.5, 1.8, 1.9)


def test_next_to_divergence_the_best_rate_is_bounded_by_instability_and_not_by_the_grid():
    fits = quadratic_fits((0.1, 0.5, 1.5, 2.1), 250)
    outcome = sweep_outcome(fits, 250)
    assert outcome == Fitted(1.5, 12, 13, 250, edge_of_stability=True)
    finding = sweep_finding(outcome, fits)
    assert not finding.needs_action
    assert any("edge_of_stability" in caveat and "warmup" in caveat for caveat in finding.caveats)


def test_a_diverged_lowest_rate_is_the_sign_of_a_bug():
    fits = interval_fits({0.1: "infeasible", 0.3: (20, 30), 1.0: (90, 100)})
    assert any("bug" in caveat for caveat in sweep_finding(sweep_outcome(fits, 100), fits).caveats)


def test_rates_that_tie_inside_one_evaluation_interval_stay_ties():
    fits = interval_fits({0.1: (90, 100), 0.3: (25, 35), 1.0: (20, 30), 3.0: (30, 40), 10.0: (90, 100)})
    outcome = sweep_outcome(fits, 100)
    # 3.0 was still unfit at 30, where 1.0 had fitted.
    assert outcome == Fitted(1.0, 20, 30, 100, tied=(0.3,))


@pytest.mark.parametrize("end", [(20, 30), (25, 35), (15, 30), (29, 100)])
def test_a_tie_with_an_end_of_the_grid_is_ambiguous(end):
    for rates, direction in (((1.0, 3.0, 10.0), "lower"), ((0.1, 0.3, 1.0), "upper")):
        intervals = dict.fromkeys(rates, (90, 100)) | {1.0: end, rates[1]: (20, 30)}
        fits = interval_fits(intervals)
        outcome = sweep_outcome(fits, 100)
        assert isinstance(outcome, Invalid)
        assert (outcome.direction, outcome.ambiguous) == (direction, True)
        finding = sweep_finding(outcome, fits)
        assert finding.strength == "weak"
        assert any("finer" in caveat for caveat in finding.caveats)


def test_the_grid_ends_where_trials_were_finished():
    fits = interval_fits({0.1: (90, 100), 0.3: (50, 60), 1.0: (20, 30), 3.0: "failed"})
    outcome = sweep_outcome(fits, 100)
    assert isinstance(outcome, Invalid)
    assert outcome.learning_rate == 1.0


def test_one_finished_rate_can_be_extended():
    outcome = sweep_outcome(interval_fits({0.1: "failed", 0.3: (20, 30), 1.0: "failed"}), 100)
    assert isinstance(outcome, Invalid)
    assert outcome.extended_grid == (0.03, 0.0646, 0.139, 0.3)


def test_extended_grids_keep_their_ratio():
    assert extended_grid((1.0, 2.0, 4.0), "upper") == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    assert extended_grid((1.0, 2.0, 4.0), "lower") == (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


def test_everything_diverged_asks_for_lower_rates():
    fits = interval_fits({0.1: "infeasible", 0.2: "infeasible", 0.4: "infeasible"})
    outcome = sweep_outcome(fits, 100)
    assert isinstance(outcome, NotFitted)
    assert [reason.reason for reason in outcome.reasons] == ["all_diverged"]
    assert outcome.best_value is None
    assert "Sweep(learning_rate=(0.0125, 0.025, 0.05, 0.1, 0.2, 0.4))" in sweep_finding(outcome, fits).action


def test_a_metric_that_is_never_finite_is_no_divergence():
    steps = list(range(10, 90, 10))
    fits = fits_of({rate: (steps, [math.nan] * 8) for rate in (0.1, 0.3, 1.0)})
    outcome = sweep_outcome(fits, 80)
    assert isinstance(outcome, NotFitted)
    assert [reason.reason for reason in outcome.reasons] == ["never_finite"]
    assert "Correct the training metric" in sweep_finding(outcome, fits).action


def test_trials_that_failed_or_ran_out_of_memory_say_nothing_about_rates():
    failed = interval_fits({0.1: "failed", 0.2: "failed", 0.4: "cancelled"})
    memory = interval_fits({0.1: "infeasible", 0.2: "infeasible", 0.4: "infeasible"}).assign(reason="out of memory")
    for fits in (failed, memory):
        outcome = sweep_outcome(fits, 100)
        assert isinstance(outcome, NotFitted)
        assert outcome.reasons[0].reason == "not_trained"
    assert "out of memory" in words(sweep_outcome(memory, 100), memory)


def plateau_fits(noise: float, slope: float) -> pd.DataFrame:
    steps = np.arange(1, 51)
    rng = np.random.default_rng(3)
    curves = {}
    for rate, level in ((0.1, 0.2), (0.3, 0.05), (1.0, 0.3)):
        falling = level * (1.0 + slope * (50 - steps) / 50) + noise * level * rng.standard_normal(50)
        curves[rate] = steps.tolist(), falling.tolist()
    return fits_of(curves)


def test_a_plateau_speaks_for_label_noise_or_capacity():
    fits = plateau_fits(0.0, 0.01)
    outcome = sweep_outcome(fits, 50)
    assert isinstance(outcome, NotFitted)
    assert [reason.reason for reason in outcome.reasons] == ["label_noise_or_capacity", "too_few_steps"]
    finding = sweep_finding(outcome, fits)
    assert finding.needs_action
    for remedy in ("Loosen fitted_when", "larger model", "production_steps=50"):
        assert remedy in finding.action
    assert finding.caveats == ("Validation was not recorded, so whether regularization can help is not known (A37).",)


def test_a_noisy_plateau_is_not_taken_for_progress():
    reasons = [sweep_outcome(plateau_fits(0.4, 0.0), 50).reasons[0].reason]
    assert reasons == ["label_noise_or_capacity"]


def test_a_trial_that_still_comes_nearer_asks_for_more_steps():
    outcome = sweep_outcome(plateau_fits(0.0, 2.0), 50)
    assert isinstance(outcome, NotFitted)
    assert [reason.reason for reason in outcome.reasons] == ["too_few_steps"]


def test_no_fit_gives_no_number():
    assert not hasattr(sweep_outcome(plateau_fits(0.0, 0.0), 50), "steps")


def test_the_prediction_interval_is_students_in_log_steps():
    # Logs of 100, 200, 400: mean log 200, deviation ln 2; t(0.95, 2) = 2.92, and sqrt(1 + 1/3) for one draw more.
    half = 2.919986 * math.sqrt(4 / 3) * math.log(2)
    assert prediction_interval((100, 200, 400)) == (
        math.floor(200 * math.exp(-half)),
        math.ceil(200 * math.exp(half)),
    )
    assert stats.t.ppf(0.95, 2) == pytest.approx(2.919986)


def test_fewer_than_two_seeds_have_no_interval_and_equal_ones_a_narrow_one():
    assert prediction_interval(()) == (None, None)
    assert prediction_interval((100,)) == (None, None)
    for steps in (7, 13, 100, 1000, 12345):
        assert prediction_interval((steps, steps, steps)) == (steps, steps)


def test_the_prediction_interval_holds_a_fresh_seed_nine_times_in_ten():
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(2000):
        *steps, fresh = np.exp(rng.normal(6.0, 0.25, 6))
        low, high = prediction_interval(tuple(int(step) for step in steps))
        assert low is not None
        assert high is not None
        held += low <= fresh <= high
    assert 0.88 <= held / 2000 <= 0.92


def test_the_estimate_is_the_median_of_seeds_that_were_not_selected():
    outcome = with_seeds(Fitted(0.3, 90, 100, 400, edge_of_stability=True), seeds_of(140, 120, 180))
    assert (outcome.seed_steps, outcome.steps, outcome.unfitted_seeds) == ((120, 140, 180), 140, 0)
    assert outcome.edge_of_stability
    assert outcome.seed_low is not None
    assert outcome.seed_low < 120 < 180 < outcome.seed_high


def test_a_seed_that_did_not_fit_counts_as_slower_than_all_others():
    fast = Fitted(0.3, 90, 100, 400)
    one = with_seeds(fast, seeds_of(120, 140, 160, "complete", "failed"))
    assert (one.steps, one.unfitted_seeds, one.seed_high) == (150, 1, None)
    most = with_seeds(fast, seeds_of(120, "infeasible", "complete"))
    assert most.steps == 400
    none = with_seeds(fast, seeds_of("complete", "complete"))
    assert none.steps == 400
    assert sweep_finding(one, seeds_of(120)).strength == "weak"
    assert "no upper bound" in sweep_finding(one, seeds_of(120)).summary
    assert "None of 2 fresh seeds fitted" in sweep_finding(none, seeds_of(120)).summary


def test_a_number_never_stands_without_its_interval_and_spread():
    fits = quadratic_fits(FULL, 250)
    alone = sweep_outcome(fits, 250)
    assert isinstance(alone, Fitted)
    finding = sweep_finding(alone, fits)
    assert "more than 12 and at most 13 steps" in finding.summary
    assert "No other seed was trained, so how much the steps vary between seeds is not known" in finding.summary
    assert (finding.verdict, finding.strength, finding.needs_action) == ("fitted", "weak", False)
    seeded = sweep_finding(with_seeds(alone, seeds_of(12, 13, 15)), fits)
    assert "3 of 3 fresh seeds fitted in 12 to 15 steps, a factor of 1.2;" in seeded.summary, "15 / 12"
    far = sweep_finding(with_seeds(alone, seeds_of(5, 13, 29)), fits)
    assert "in 5 to 29 steps, a factor of 5.8;" in far.summary
    equal = sweep_finding(with_seeds(alone, seeds_of(13, 13)), fits)
    assert "factor" not in equal.summary
    assert "90%" in seeded.summary
    assert seeded.strength == "strong"


def test_a_wide_interval_a_tie_and_a_single_fitted_rate_are_told():
    fits = interval_fits({0.1: "complete", 0.3: (20, 30), 1.0: "complete"})
    finding = sweep_finding(Fitted(0.3, 20, 30, 100, tied=(1.0,)), fits)
    assert any("33%" in caveat for caveat in finding.caveats)
    assert any("ties with 1" in caveat for caveat in finding.caveats)
    assert any("Only one learning rate" in caveat for caveat in finding.caveats)


def test_validation_that_was_best_long_before_the_fit_is_told():
    fits = interval_fits({0.1: (90, 100), 0.3: (20, 30), 1.0: (90, 100)}).assign(validation_step=[40, 12, 40])
    fits = fits.assign(overfits=pd.array([True, True, None], "boolean"))
    told = [
        caveat for caveat in sweep_finding(Fitted(0.3, 20, 30, 100), fits).caveats if "best after 12 steps" in caveat
    ]
    assert len(told) == 1
    assert "30 steps are more than a run needs" in told[0]
    late = sweep_finding(Fitted(0.3, 20, 30, 100), fits.assign(validation_step=[40, 16, 40]))
    assert not any("more than a run needs" in caveat for caveat in late.caveats), "16 is more than half of 30"


def test_findings_survive_json():
    fits = interval_fits({0.1: (90, 100), 0.3: (20, 30), 1.0: "infeasible"})
    json.dumps(sweep_finding(sweep_outcome(fits, 100), fits).to_json(), allow_nan=False)
