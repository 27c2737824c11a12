import json
from dataclasses import replace

import numpy as np
import pytest
from analysis.handmade import frames_of_curves, study

from tuner import SearchSpace, choice, log_uniform
from tuner.analysis.good_trials import good_trials
from tuner.analysis.questions.best_steps import best_steps_finding, best_steps_frame, proposed_budget
from tuner.analysis.questions.improvement import improvement_finding
from tuner.budget.families import constant_then_decay, linear
from tuner.budget.step_budget import rounded_up
from tuner.design.hyperparameters import Constant
from tuner.records import State

FRACTIONS = np.arange(1, 51) / 50  # steps 20, 40, ..., 1000
NOISE = 0.01


def noisy(curve: np.ndarray, trials: int = 12, *, seed: int = 0, noise: float = NOISE) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [(0.1 + curve + noise * rng.standard_normal(len(curve))).tolist() for _ in range(trials)]


def hinge(at: float) -> np.ndarray:
    """From 1 straight down to 0 at a fraction of the run, then flat."""
    return np.maximum(0.0, 1.0 - FRACTIONS / at)


def overfitting(at: float) -> np.ndarray:
    return hinge(at) + np.maximum(0.0, FRACTIONS - at)


STILL_IMPROVING = 1.0 - 0.8 * FRACTIONS


def verdict(curves, **declared) -> str:
    return best_steps_finding(frames_of_curves(study(**declared), curves)).verdict


def test_best_always_within_the_first_tenth_means_far_too_long():
    """A14; the best step is 80 of 1000 in every trial, so 2.5 * 80 = 200 steps are proposed."""
    frames = frames_of_curves(study(), [overfitting(0.08).tolist()] * 5)
    finding = best_steps_finding(frames)
    assert (finding.verdict, finding.strength, finding.needs_action) == ("too_long", "strong", True)
    assert finding.evidence["best_step"].tolist() == [80] * 5
    assert finding.evidence["fraction"].tolist() == [0.08] * 5
    assert "Train 200 steps instead of 1,000" in finding.action
    assert proposed_budget(frames)[0] == 200


def test_an_early_plateau_is_too_long_although_its_raw_best_steps_lie_anywhere():
    """D10, F5: the argmin of 50 noisy evaluations of a plateau is uniform over them."""
    finding = best_steps_finding(frames_of_curves(study(), noisy(hinge(0.06))))
    assert finding.evidence["fraction"].median() > 0.1
    assert finding.verdict == "too_long"
    assert any("plateau" in caveat for caveat in finding.caveats)


def test_too_long_stays_strong_under_a_decaying_schedule():
    finding = best_steps_finding(frames_of_curves(study(schedule=linear()), noisy(overfitting(0.06))))
    assert (finding.verdict, finding.strength) == ("too_long", "strong")


def test_still_improving_at_a_constant_rate_is_maybe_too_short():
    finding = best_steps_finding(frames_of_curves(study(), noisy(STILL_IMPROVING)))
    assert (finding.verdict, finding.strength, finding.needs_action) == ("maybe_too_short", "strong", True)
    assert "for 2,000 steps" in finding.action
    assert finding.caveats == ()


@pytest.mark.parametrize("schedule", [linear(), constant_then_decay(0.2)])
def test_late_best_steps_are_weak_evidence_where_the_rate_decays_to_zero(schedule):
    """D9: with a decay to zero the best step is at the end almost by construction."""
    finding = best_steps_finding(frames_of_curves(study(schedule=schedule), noisy(STILL_IMPROVING)))
    assert (finding.verdict, finding.strength) == ("maybe_too_short", "weak")
    assert any("D9" in caveat for caveat in finding.caveats)


@pytest.mark.parametrize("curve", [hinge(0.4), overfitting(0.4)])
def test_best_in_the_middle_is_ok(curve):
    frames = frames_of_curves(study(), noisy(curve))
    finding = best_steps_finding(frames)
    assert (finding.verdict, finding.needs_action) == ("ok", False)
    assert proposed_budget(frames)[0] == 1000


def test_a_plateau_in_the_middle_is_not_too_short_although_many_raw_best_steps_are_late():
    finding = best_steps_finding(frames_of_curves(study(), noisy(hinge(0.5), 30)))
    assert (finding.evidence["fraction"] > 0.75).mean() > 0.4
    assert finding.verdict == "ok"


def test_trials_that_disagree_are_mixed():
    """D11: the same space, best step 0.3 for one setting and 0.99 for another."""
    assert verdict([*noisy(overfitting(0.3), 3), *noisy(STILL_IMPROVING - 0.2, 3, seed=1)]) == "mixed"


def test_fewer_than_twenty_evaluations_are_inconclusive():
    coarse = [overfitting(0.08)[::3].tolist()] * 5
    finding = best_steps_finding(frames_of_curves(study(evaluations=17), coarse))
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")
    assert "17 evaluations" in finding.summary


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_good_trials_are_inconclusive(count):
    assert verdict([overfitting(0.08).tolist()] * count) == "inconclusive"


def test_a_study_without_completed_trials_is_inconclusive_and_can_be_stored():
    frames = frames_of_curves(study(), [[0.5, 0.4]], {0: State.RUNNING})
    finding = best_steps_finding(frames)
    assert finding.verdict == "inconclusive"
    assert json.loads(json.dumps(finding.to_json(), allow_nan=False))["evidence"] == []
    assert proposed_budget(frames)[0] == 1000
    assert proposed_budget(frames)[1].sentence == "best steps of round-1 are inconclusive: the same 1,000 steps"


def test_gains_lost_in_the_noise_are_inconclusive():
    drifting = 0.8 * NOISE * (1.0 - FRACTIONS)
    assert verdict(noisy(drifting, 3)) in ("inconclusive", "too_long")
    assert verdict(noisy(4 * NOISE * (1.0 - FRACTIONS), 3)) == "inconclusive"


def test_a_best_value_at_the_last_evaluation_is_censored():
    """D12: it means "at least the budget"."""
    table = best_steps_frame(frames_of_curves(study(), [STILL_IMPROVING.tolist(), overfitting(0.4).tolist()]))
    assert table.set_index("trial")["censored"].to_dict() == {0: True, 1: False}


def test_the_fraction_is_of_the_planned_budget_not_of_the_last_evaluation():
    """D13: this curve was lost after step 500; its best step 200 is 20 % of the planned 1000."""
    table = best_steps_frame(frames_of_curves(study(), [overfitting(0.2)[:25].tolist()]))
    assert table["fraction"].tolist() == [0.2]


def test_best_steps_inside_the_warmup_do_not_mean_too_long():
    """D34: a too high peak rate or a tiny validation set looks like that."""
    finding = best_steps_finding(frames_of_curves(study(warmup_steps=100), noisy(overfitting(0.06))))
    assert finding.verdict == "inconclusive"
    assert finding.evidence["in_warmup"].all()
    assert any("best steps lie inside the warmup" in caveat for caveat in finding.caveats)
    one = best_steps_finding(frames_of_curves(study(warmup_steps=100), [overfitting(0.06).tolist()]))
    assert any("1 best step lies inside the warmup" in caveat for caveat in one.caveats)


def test_diverged_and_hopeless_trials_have_no_say():
    """D11: eight trials overfit early; one diverged while improving, and hopeless ones still improve."""
    curves = noisy(overfitting(0.06), 8)
    hopeless = [(5.0 - 0.1 * FRACTIONS).tolist()] * 2
    diverged = [(0.01 - 0.005 * FRACTIONS).tolist()]
    frames = frames_of_curves(study(), [*curves, *hopeless, *diverged], {10: State.INFEASIBLE})
    assert set(good_trials(frames)["trial"]) <= set(range(8))
    assert best_steps_finding(frames).verdict == "too_long"


def test_hopeless_trials_are_left_out_even_when_few_completed():
    frames = frames_of_curves(study(), [*noisy(overfitting(0.06), 3), (5.0 - 0.1 * FRACTIONS).tolist()])
    assert set(good_trials(frames)["trial"]) == {0, 1, 2}


@pytest.mark.parametrize("curve", [hinge(0.06), overfitting(0.06), hinge(0.4), STILL_IMPROVING])
def test_a_maximized_metric_gets_the_verdict_of_its_mirror_image(curve):
    curves = noisy(curve)
    mirrored = [[-value for value in each] for each in curves]
    assert verdict(curves) == verdict(mirrored, direction="maximize")


def test_evaluations_that_are_missing_or_not_finite_are_passed_over():
    curves = noisy(overfitting(0.06))
    for place, each in enumerate(curves):
        each[10 + place] = float("nan")
        each[30] = float("inf")
    assert verdict(curves) == "too_long"


@pytest.mark.parametrize("at", [0.03, 0.06, 0.09])
@pytest.mark.parametrize("seed", range(5))
def test_a_proposed_budget_is_never_below_a_good_best_step(at, seed):
    """A9: in doubt, longer."""
    frames = frames_of_curves(study(), noisy(overfitting(at), seed=seed))
    table = best_steps_frame(frames)
    assert proposed_budget(frames)[0] >= table["earliest_step"].max()
    assert (table["earliest_step"] <= table["best_step"]).all()


@pytest.mark.parametrize(("steps", "rounded"), [(1.0, 1), (7.2, 8), (99.1, 100), (101.0, 110), (1234.0, 1300)])
def test_budgets_are_rounded_up_to_two_digits(steps, rounded):
    assert rounded_up(steps) == rounded


def test_the_thresholds_are_printed_with_the_verdict():
    finding = best_steps_finding(frames_of_curves(study(), noisy(hinge(0.4))))
    assert finding.thresholds["early"] == 0.10
    assert finding.thresholds["late"] == 0.75
    assert finding.thresholds["consistent"] == 0.80


SEARCHED = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), ema_steps=choice(None, 20, 60))


@pytest.mark.parametrize(
    ("declared", "point", "strength"),
    [
        ({"ema_steps": 20}, None, "strong"),  # no more steps than lie between two evaluations
        ({"ema_steps": 21}, None, "weak"),
        ({"optimizer": "schedule_free_adamw"}, None, "weak"),
        ({"fixed": (("ema_steps", Constant(60)),)}, None, "weak"),
        ({"fixed": (("optimizer", Constant("schedule_free_adamw")),)}, None, "weak"),
        ({"fixed": (("optimizer", Constant("sgd")),), "optimizer": "schedule_free_adamw"}, None, "strong"),
        ({"fixed": (("sgd.ema_steps", Constant(60)),), "optimizer": "adamw"}, None, "strong"),
        ({"hyperparameters": SEARCHED.hyperparameters}, {"learning_rate": 1e-3, "ema_steps": 60}, "weak"),
        ({"hyperparameters": SEARCHED.hyperparameters}, {"learning_rate": 1e-3, "ema_steps": None}, "strong"),
    ],
)
def test_averages_of_the_weights_are_late_by_construction(declared, point, strength):
    """D9, at a constant rate: they show where the weights have been, so late best steps are weak evidence."""
    made = replace(study(), **declared)
    frames = frames_of_curves(made, noisy(STILL_IMPROVING))
    if point is not None:
        frames.trials["ema_steps"] = [point["ema_steps"]] * len(frames.trials)
    found = best_steps_finding(frames)
    assert (found.verdict, found.strength) == ("maybe_too_short", strength)
    told = [caveat for caveat in found.caveats if "Averages of the weights" in caveat]
    assert len(told) == (strength == "weak")
    improving = improvement_finding(frames)
    assert (improving.verdict, improving.strength) == ("still_improving", "weak" if told else "moderate")
    assert [caveat for caveat in improving.caveats if "Averages of the weights" in caveat] == told


def test_averages_do_not_weaken_a_budget_that_was_too_long():
    found = best_steps_finding(frames_of_curves(replace(study(), ema_steps=100), noisy(overfitting(0.06))))
    assert (found.verdict, found.strength) == ("too_long", "strong")
