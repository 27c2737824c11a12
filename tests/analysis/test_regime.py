"""Compute-bound, not compute-bound or undecided (A1-A5, D47; F2 and F4 of the playbook), and how often it is wrong."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, record, study, trained
from numpy.typing import NDArray

from tuner.analysis.frames import frames_of
from tuner.analysis.questions.overfitting import overfitting_frame
from tuner.analysis.questions.regime import contradiction_finding, regime_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.families import constant, constant_then_decay, cosine, linear
from tuner.budget.schedules import ScheduleFamily
from tuner.design.objective import Objective, at_most
from tuner.records import State
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted, Reason

Array = NDArray[np.float64]
Pair = tuple[Array, Array]

X = np.arange(1, 51) / 50  # 50 evaluations of 1,000 steps
FITTED_WHEN = at_most("training/loss", 0.0)
SWEPT = Fitted(0.1, 90, 100, 1000)


def regime_frames(pairs: Sequence[Pair], schedule: ScheduleFamily | None = None, **changes: object) -> StudyFrames:
    """One trial a pair of a training and a validation curve."""
    where = replace(study(schedule=schedule, evaluations=len(pairs[0][0])), fitted_when=FITTED_WHEN)
    where = replace(where, **changes)
    steps = where.budget.evaluation_steps
    parts = [
        curve(trial, steps, values.tolist(), metric)
        for trial, pair in enumerate(pairs)
        for metric, values in zip(("training/loss", "validation/loss"), pair, strict=True)
    ]
    records = [trained(where, record(trial, {"learning_rate": 0.01 * (trial + 1)})) for trial in range(len(pairs))]
    return frames_of(where, records, pd.concat(parts, ignore_index=True))


def noisy(pairs: Sequence[Pair], noise: float, seed: int = 0) -> list[Pair]:
    """The pairs with noise on validation, and half of it on training above zero (a fitted set stays fitted)."""
    rng = np.random.default_rng(seed)
    made = []
    for training, validation in pairs:
        moved = training + 0.5 * noise * rng.standard_normal(training.shape)
        moved = np.where(training > 0, np.maximum(moved, 1e-3), 0.0)
        made.append((moved, validation + noise * rng.standard_normal(validation.shape)))
    return made


def noisy_quadratic(rate: float, steps: int = 1000, evaluations: int = 50) -> Array:
    """F2, exact: d = 50, h_i = i^-1.5; the expected loss at a constant rate."""
    h, m, losses = np.arange(1, 51) ** -1.5, np.ones(50), []
    for _ in range(steps):
        m = (1 - rate * h) ** 2 * m + rate**2 * 0.05 * h
        losses.append(0.5 * float((h * m).sum()))
    return np.array(losses)[steps // evaluations - 1 :: steps // evaluations]


def overfitting(fitted_at: float) -> Pair:
    """F4: the training loss reaches 0, validation is best a little before and rises from 0.63 to 1.7."""
    falling = np.maximum(0.0, 1.0 - X / fitted_at)
    return 0.7 * falling, 0.63 + 0.2 * falling + 1.07 * np.maximum(0.0, X - 0.8 * fitted_at)


def power_law(power: float) -> Array:
    """From 1 down, never ending."""
    return np.asarray((1 + X / 0.02) ** -power)


def test_a_noisy_quadratic_at_a_small_constant_rate_is_compute_bound():
    pairs = [(loss + 0.01, loss + 0.02) for loss in (noisy_quadratic(rate) for rate in (0.01, 0.02, 0.03))]
    finding = regime_finding(regime_frames(noisy(pairs, 0.001)))
    assert (finding.verdict, finding.strength) == ("compute_bound", "strong")
    assert finding.evidence["gain"].min() > 2
    assert not finding.evidence["overfitting"].any()
    assert "production_steps" in finding.action
    assert any("not the only way" in caveat for caveat in finding.caveats)


def test_fitted_and_overfitting_curves_are_not_compute_bound():
    finding = regime_finding(regime_frames(noisy([overfitting(at) for at in (0.1, 0.15, 0.2)], 0.02)))
    assert (finding.verdict, finding.strength) == ("not_compute_bound", "strong")
    validation = finding.evidence[finding.evidence["metric"] == "validation/loss"]
    assert validation["overfitting"].all()
    # 1.07 over the last quarter of the run is 0.27, more than 13 noises of 0.02.
    assert (validation["gain"] < -5).all()
    assert sorted(finding.evidence["fitted_at"].unique()) == [100, 160, 200]
    assert any("Overfitting in trial" in caveat for caveat in finding.caveats)


def test_the_regime_calls_overfitting_what_the_question_about_overfitting_does():
    """Waves of validation, each trial's own: neighbouring evaluations share them, and a rise of one says nothing."""
    waves = [0.3 + 0.1 * np.sin(2 * np.pi * (3.4 * X + shift)) for shift in (0.0, 0.2, 0.45, 0.6, 0.85)]
    frames = regime_frames(noisy([(np.maximum(0.0, 1 - X / 0.4), wave) for wave in waves], 0.005))
    regime, asked = regime_finding(frames).evidence, overfitting_frame(frames)
    rows = regime[regime["metric"] == "validation/loss"].set_index("trial")
    assert asked["trial"].isin(rows.index).all()
    asked = asked.set_index("trial").loc[rows.index]
    assert rows["overfitting"].tolist() == asked["overfitting"].tolist()
    assert rows["rise"].tolist() == asked["rise"].tolist()


def test_fitted_curves_with_flat_validation_are_not_compute_bound():
    pairs = [(np.maximum(0.0, 1 - X / 0.4), 0.3 + np.maximum(0.0, 1 - X / 0.3)) for _ in range(3)]
    finding = regime_finding(regime_frames(noisy(pairs, 0.02)))
    assert finding.verdict == "not_compute_bound"
    assert not finding.evidence["overfitting"].any()


def test_a_flat_noisy_line_is_undecided():
    for seed in range(20):
        frames = regime_frames(noisy([(np.ones(50), np.ones(50))] * 3, 0.1, seed))
        finding = regime_finding(frames)
        assert (finding.verdict, finding.strength) == ("undecided", "none")
        assert "2,000 steps" in finding.action


def test_a_perfectly_constant_line_is_undecided():
    assert regime_finding(regime_frames([(np.ones(50), np.ones(50))] * 3)).verdict == "undecided"


def test_training_alone_does_not_make_it_compute_bound():
    pairs = [(power_law(0.5) + 1, 0.3 + np.maximum(0.0, 1 - X / 0.4)) for _ in range(5)]
    finding = regime_finding(regime_frames(noisy(pairs, 0.01)))
    assert finding.verdict == "undecided"
    assert "only one of them" in finding.summary


def test_a_loss_that_falls_because_the_rate_falls_is_no_evidence():
    drop = 0.3 * np.maximum(0.0, (X - 0.8) / 0.2)
    pairs = [(1.5 + np.maximum(0.0, 1 - X / 0.3) - drop, 1.6 + np.maximum(0.0, 1 - X / 0.3) - drop)] * 3
    finding = regime_finding(regime_frames(noisy(pairs, 0.02), constant_then_decay(0.2)))
    assert finding.verdict == "undecided"
    assert finding.evidence["to_step"].unique().tolist() == [800]
    seen = regime_finding(regime_frames(noisy(pairs, 0.02), constant()))
    assert seen.verdict == "compute_bound"


def test_the_judged_part_ends_where_the_first_trial_begins_to_decay():
    frames = regime_frames([(power_law(0.5), power_law(0.5) + 1)] * 2, constant_then_decay(0.2))
    decays = {trial: constant_then_decay(share).schedule(1000) for trial, share in enumerate((0.1, 0.4))}
    frames = replace(frames, schedules=decays)
    assert regime_finding(frames).evidence["to_step"].unique().tolist() == [600]


@pytest.mark.parametrize("schedule", [linear(), cosine(), constant_then_decay(0.9)])
def test_a_schedule_that_decays_all_along_gives_a_weak_verdict_and_asks_for_a_longer_run(schedule):
    pairs = [(power_law(0.5) + 1, power_law(0.5) + 2)] * 3
    finding = regime_finding(regime_frames(noisy(pairs, 0.002), schedule))
    assert (finding.verdict, finding.strength) == ("compute_bound", "weak")
    assert any("D47" in caveat for caveat in finding.caveats)
    assert "2,000 steps with its schedule re-derived" in finding.action


def test_the_sweep_knows_that_the_training_set_can_be_fitted():
    flat = noisy([(0.2 + np.maximum(0.0, 1 - X / 0.4), 0.3 + np.maximum(0.0, 1 - X / 0.3))] * 3, 0.02)
    assert regime_finding(regime_frames(flat)).verdict == "undecided"
    assert regime_finding(regime_frames(flat), SWEPT).verdict == "not_compute_bound"
    end_of_grid = Invalid("upper", 0.1, 100, (0.1, 0.2))
    assert regime_finding(regime_frames(flat), end_of_grid).verdict == "not_compute_bound"
    not_fitted = NotFitted(1000, (Reason("too_few_steps", "likely", "it still improves"),), 0.1, 0.2)
    assert regime_finding(regime_frames(flat), not_fitted).verdict == "undecided"


def test_a_fitted_set_whose_validation_still_improves_is_never_compute_bound():
    pairs = noisy([(np.maximum(0.0, 1 - X / 0.4), power_law(0.5) + 1)] * 5, 0.002)
    finding = regime_finding(regime_frames(pairs))
    assert finding.verdict == "undecided"
    improving = noisy([(power_law(0.5) + 1, power_law(0.5) + 1)] * 5, 0.002)
    assert regime_finding(regime_frames(improving)).verdict == "compute_bound"
    assert regime_finding(regime_frames(improving), SWEPT).verdict == "undecided"


def test_trials_that_did_not_fit_do_not_speak_once_another_did():
    slow = (power_law(0.5) + 1, power_law(0.5) + 0.7)
    fast = (np.maximum(0.0, 1 - X / 0.3), 0.6 + np.maximum(0.0, 1 - X / 0.3))
    finding = regime_finding(regime_frames(noisy([slow, fast, slow, fast], 0.005)))
    assert set(finding.evidence["trial"]) == {1, 3}
    assert (finding.verdict, finding.strength) == ("not_compute_bound", "moderate")


def test_what_came_after_a_late_fit_is_judged_after_it():
    late = (np.maximum(0.0, 1 - X / 0.735), 0.5 + np.maximum(0.0, 1 - X / 0.65))
    finding = regime_finding(regime_frames(noisy([late] * 3, 0.02)))
    assert finding.evidence["from_step"].unique().tolist() == [790]
    assert finding.verdict == "not_compute_bound"


def test_one_trial_never_gives_more_than_a_weak_verdict():
    compute = regime_finding(regime_frames(noisy([(power_law(0.5) + 1, power_law(0.5) + 2)], 0.002)))
    assert (compute.verdict, compute.strength) == ("compute_bound", "weak")
    fitted = regime_finding(regime_frames(noisy([overfitting(0.1)], 0.02)))
    assert (fitted.verdict, fitted.strength) == ("not_compute_bound", "weak")


def test_maximized_metrics_are_turned_around():
    better = Objective("validation/loss", "maximize")  # the name of the metric does not matter
    pairs = [(-power_law(0.5) - 1, -power_law(0.5) - 2)] * 3
    finding = regime_finding(regime_frames(noisy_negative(pairs), objective=better, fitted_when=None))
    assert finding.verdict == "compute_bound"
    assert any("No fit criterion" in caveat for caveat in finding.caveats)


def noisy_negative(pairs: Sequence[Pair]) -> list[Pair]:
    return [(-a, -b) for a, b in noisy([(-a, -b) for a, b in pairs], 0.002)]


def test_too_little_to_judge_is_undecided_with_its_reason():
    pairs = [(np.linspace(1, 0.5, 10), np.linspace(1, 0.5, 10))] * 3
    few = regime_finding(regime_frames(pairs))
    assert (few.verdict, few.strength) == ("undecided", "none")
    assert "evaluations" in few.summary
    nothing = regime_finding(regime_frames([(np.full(50, np.nan), np.full(50, np.nan))] * 3), SWEPT)
    assert nothing.verdict == "undecided"
    assert "finite" in nothing.summary
    where = replace(study(), fitted_when=FITTED_WHEN)
    empty = frames_of(where, [record(0, state=State.RUNNING)], curve(0, [], []))
    assert regime_finding(empty).verdict == "undecided"
    validation_only = frames_of(where, [record(0)], curve(0, where.budget.evaluation_steps, power_law(0.5).tolist()))
    assert regime_finding(validation_only).verdict == "undecided"


def test_a_declared_regime_that_contradicts_the_evidence_is_a_finding():
    found = regime_finding(regime_frames(noisy([overfitting(0.1)] * 3, 0.02)))
    contradiction = contradiction_finding("compute_bound", found)
    assert contradiction is not None
    assert (contradiction.verdict, contradiction.needs_action) == ("contradiction", True)
    assert "declared as compute_bound" in contradiction.summary
    assert "regime='not_compute_bound'" in contradiction.action
    assert contradiction_finding("not_compute_bound", found) is None
    assert contradiction_finding("undecided", found) is None
    undecided = regime_finding(regime_frames([(np.ones(50), np.ones(50))] * 3))
    assert contradiction_finding("compute_bound", undecided) is None


def test_findings_survive_json():
    frames = regime_frames(noisy([overfitting(0.1), (power_law(0.5) + 1, power_law(0.5))], 0.02))
    json.dumps(regime_finding(frames).to_json(), allow_nan=False)


def still_improving(rng: np.random.Generator) -> Pair:
    """Both gain at least two noises of 0.02 in the last quarter."""
    return tuple(_falling(power_law(rng.uniform(0.3, 0.8)), 0.04) + 3 for _ in range(2))


def _falling(values: Array, gain: float) -> Array:
    gained = float(np.interp(0.75, X, values) - values[-1])
    return np.asarray(values - X * max(0.0, gain - gained) / 0.25)


def fitted_flat(rng: np.random.Generator) -> Pair:
    at, power = rng.uniform(0.2, 0.6), rng.uniform(1, 2)
    return np.maximum(0.0, 1 - X / at) ** power, 0.3 + np.maximum(0.0, 1 - X / (at * rng.uniform(0.5, 1.0))) ** power


def fitted_overfitting(rng: np.random.Generator) -> Pair:
    return overfitting(float(rng.uniform(0.1, 0.6)))


def flat(rng: np.random.Generator) -> Pair:
    return np.ones(50), np.ones(50)


def training_only(rng: np.random.Generator) -> Pair:
    return _falling(power_law(0.5), 0.04) + 3, fitted_flat(rng)[1]


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        (still_improving, "compute_bound"),
        (fitted_flat, "not_compute_bound"),
        (fitted_overfitting, "not_compute_bound"),
        (flat, "undecided"),
        (training_only, "undecided"),
    ],
)
@pytest.mark.parametrize("studies", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_at_most_two_in_a_hundred_are_wrong_and_ten_undecided(
    kind: Callable[[np.random.Generator], Pair], truth: str, studies: int
):
    verdicts: Counter[str] = Counter()
    for seed in range(5_000, 5_000 + studies):
        rng = np.random.default_rng(seed)
        pairs = noisy([kind(rng) for _ in range(4)], 0.02, seed)
        verdicts[regime_finding(regime_frames(pairs)).verdict] += 1
    wrong = sum(count for verdict, count in verdicts.items() if verdict not in (truth, "undecided"))
    assert wrong <= 0.02 * studies, verdicts
    assert truth == "undecided" or verdicts["undecided"] <= 0.10 * studies, verdicts
