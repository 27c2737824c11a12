"""Each question of the checklist on studies whose answer is known from elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, frames_of_curves, frames_of_values, record, study, trained

from tuner.analysis.checklist import checklist_findings, failing, known_verdicts
from tuner.analysis.finding import QUESTIONS
from tuner.analysis.frames import frames_of
from tuner.analysis.learning_rates import is_learning_rate
from tuner.analysis.levels import noise_model
from tuner.analysis.questions.effort import effort_findings
from tuner.analysis.questions.enough_points import best_of_n_frame, enough_points_finding, num_close
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.instability import instability_finding
from tuner.analysis.questions.isolation import isolation_findings, isolation_frame
from tuner.analysis.questions.late_variance import late_variance_finding
from tuner.analysis.questions.overfitting import overfitting_finding
from tuner.analysis.questions.periodicity import periodicity_finding
from tuner.analysis.questions.training_loss import training_loss_finding
from tuner.analysis.questions.warmup import warmup_finding
from tuner.budget.families import linear
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.space import SearchSpace
from tuner.errors import DeclarationError

FRACTIONS = np.arange(1, 51) / 50
BOTH = ("training/loss", "validation/loss")


def frames_of_splits(training, validation, declared=None):
    """One trial a pair of curves."""
    declared = declared or study()
    steps = declared.budget.evaluation_steps
    parts = []
    for number, pair in enumerate(zip(training, validation, strict=True)):
        parts += [curve(number, steps, values, metric) for metric, values in zip(BOTH, pair, strict=True)]
    records = [trained(declared, record(n)) for n in range(len(training))]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


def noise(rng, sigma=0.01, count=6):
    return sigma * rng.standard_normal((count, 50))


# Enough points (B21)


def test_the_median_best_of_n_of_a_uniform_objective_is_the_order_statistic():
    """The best of n uniform numbers has median 1 - 2^(-1/n)."""
    values = (np.arange(1, 2001) - 0.5) / 2000
    points = [{"learning_rate": 1e-3}] * 2000
    table = best_of_n_frame(frames_of_values(study(), points, values.tolist())).set_index("n")
    assert len(table) == 100
    for n, row in table.loc[:200].iterrows():
        assert row["median"] == pytest.approx(1 - 0.5 ** (1 / n), abs=0.001)
        assert row["q25"] == pytest.approx(1 - 0.75 ** (1 / n), abs=0.001)


def test_the_best_of_n_of_a_maximized_objective_grows():
    values = np.linspace(0.0, 1.0, 40).tolist()
    frames = frames_of_values(study(direction="maximize"), [{"learning_rate": 1e-3}] * 40, values)
    table = best_of_n_frame(frames)
    assert table["median"].is_monotonic_increasing
    assert (table["q05"] >= table["q95"]).all(), "the lucky side comes first"


def test_a_lonely_best_trial_is_sparse_and_a_uniform_objective_is_not():
    lonely = [0.0, *np.linspace(1.0, 2.0, 29).tolist()]
    finding = enough_points_finding(frames_of_values(study(), [{"learning_rate": 1e-3}] * 30, lonely))
    assert (finding.verdict, finding.needs_action) == ("sparse", True)
    even = frames_of_values(study(), [{"learning_rate": 1e-3}] * 41, np.linspace(0, 1, 41).tolist())
    assert num_close(even) == 6, "0, 0.025, ..., 0.125 lie within a quarter of the median 0.5"
    assert enough_points_finding(even).verdict == "enough"


def test_a_handful_of_trials_has_no_number_of_good_points():
    frames = frames_of_values(study(), [{"learning_rate": 1e-3}] * 4, [0.1, 0.2, 0.3, 0.4])
    assert enough_points_finding(frames).verdict == "inconclusive"


# The edge of stability (B23)


def stability(best, finite, infeasible):
    """Values grow with the distance from the best learning rate."""
    rates = [best, *finite, *infeasible]
    values = [abs(math.log(rate / best)) for rate in [best, *finite]] + [None] * len(infeasible)
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1))
    return frames_of_values(study(space), [{"learning_rate": rate} for rate in rates], values)


def test_the_playbooks_figure_7a_is_an_instability():
    """Best 4e-3, last finite 8e-3, everything from 1.5e-2 on infeasible: not the very last finite point."""
    finite = [1e-5, 3e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.5e-3, 2.5e-3, 6e-3, 8e-3]
    finding = instability_finding(stability(4e-3, finite, [1.5e-2, 2.5e-2, 4e-2, 6e-2, 9e-2]))
    assert (finding.verdict, finding.needs_action) == ("likely_instability", True)
    assert finding.evidence["divergent_from"].item() == 1.5e-2
    assert finding.evidence["ratio"].item() == pytest.approx(3.75)


def test_a_best_rate_far_below_the_divergent_region_is_fine():
    finite = [1e-5, 3e-5, 1e-4, 2e-4, 8e-4, 1.5e-3, 2.5e-3, 6e-3, 8e-3]
    finding = instability_finding(stability(4e-4, finite, [1.5e-2, 2.5e-2, 4e-2, 6e-2, 9e-2]))
    assert finding.verdict == "ok"


def test_infeasible_trials_anywhere_are_no_edge():
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rates = np.exp(rng.uniform(math.log(1e-5), math.log(1e-1), 30))
        values = [None if rng.random() < 0.2 else float(rng.random()) for _ in rates]
        space = SearchSpace(learning_rate=log_uniform(1e-5, 1e-1))
        frames = frames_of_values(study(space), [{"learning_rate": rate} for rate in rates], values)
        alarms += instability_finding(frames).verdict == "likely_instability"
    assert alarms <= 2, "at most 2 % of studies whose infeasible trials lie anywhere"


@pytest.mark.parametrize(
    ("name", "is_one"), [("learning_rate", True), ("sgd.lr", True), ("lr", True), ("dropout", False), ("color", False)]
)
def test_what_counts_as_a_learning_rate(name, is_one):
    assert is_learning_rate(name) is is_one


# Overfitting: B25, A5


def test_validation_that_rises_while_training_falls_is_overfitting():
    rng = np.random.default_rng(0)
    training = 1.0 - FRACTIONS + noise(rng)
    validation = 0.5 * np.abs(FRACTIONS - 0.3) + 0.5 + noise(rng)
    finding = overfitting_finding(frames_of_splits(training, validation))
    assert (finding.verdict, finding.needs_action) == ("overfitting", True)
    falling = overfitting_finding(frames_of_splits(training, 1.2 - FRACTIONS + noise(rng)))
    assert falling.verdict == "ok"


def test_validation_that_rises_with_training_is_no_overfitting():
    """Both get worse: something else is wrong (B28)."""
    rng = np.random.default_rng(0)
    worse = np.abs(FRACTIONS - 0.3) + noise(rng)
    assert overfitting_finding(frames_of_splits(worse, worse + 0.2)).verdict == "ok"


def test_overfitting_cannot_be_told_without_training_curves():
    rng = np.random.default_rng(0)
    assert overfitting_finding(frames_of_curves(study(), rng.random((6, 50)).tolist())).verdict == "inconclusive"


# Late variance (B26)


def test_the_late_noise_is_recovered_within_20_percent_under_a_trend():
    rng = np.random.default_rng(0)
    curves = 0.03 * rng.standard_normal((200, 50)) - 2.0 * FRACTIONS
    assert np.median(noise_model(curves, FRACTIONS).late()) == pytest.approx(0.03, rel=0.2)


def test_trials_closer_than_the_noise_are_tied():
    rng = np.random.default_rng(0)
    close = 0.5 + 0.05 * rng.standard_normal((12, 50))
    assert late_variance_finding(frames_of_curves(study(), close.tolist())).verdict == "noisy"
    apart = 0.5 + np.arange(12)[:, None] + 0.05 * rng.standard_normal((12, 50))
    assert late_variance_finding(frames_of_curves(study(), apart.tolist())).verdict == "ok"


# Still improving or saturated (B27, A1, A4, D47)


def test_a_line_downwards_still_improves_and_a_plateau_is_saturated():
    rng = np.random.default_rng(0)
    line = improvement_finding(frames_of_splits(1.0 - FRACTIONS + noise(rng), 1.5 - FRACTIONS + noise(rng)))
    assert (line.verdict, line.strength) == ("still_improving", "moderate")
    assert line.evidence["metric"].tolist() == list(BOTH), "training and validation side by side (A4)"
    assert line.evidence["gain_per_1000_steps"].iloc[0] == pytest.approx(1.0, rel=0.35), "1 in 1,000 steps"
    plateau = np.maximum(0.0, 1.0 - 3.0 * FRACTIONS)
    flat = improvement_finding(frames_of_splits(plateau + noise(rng), plateau + noise(rng)))
    assert flat.verdict == "saturated"


def test_improvement_under_a_decaying_rate_is_weak():
    """D47: the loss falls because the rate falls."""
    rng = np.random.default_rng(0)
    frames = frames_of_curves(study(schedule=linear()), (1.0 - FRACTIONS + noise(rng)).tolist())
    finding = improvement_finding(frames)
    assert (finding.verdict, finding.strength) == ("still_improving", "weak")
    assert any("D47" in caveat for caveat in finding.caveats)


# Training loss (B28)


def test_a_training_loss_that_rises_over_training_is_found():
    rng = np.random.default_rng(0)
    rising = 0.5 + 0.5 * FRACTIONS + noise(rng)
    finding = training_loss_finding(frames_of_splits(rising, rising))
    assert (finding.verdict, finding.needs_action) == ("rising", True)


@pytest.mark.parametrize(
    "shape", [1.0 - FRACTIONS, np.maximum(0.0, 1.0 - 4.0 * FRACTIONS), 1.0 - FRACTIONS + 0.1 * (FRACTIONS > 0.8)]
)
def test_falling_flat_and_slightly_worse_training_loss_is_fine(shape):
    rng = np.random.default_rng(0)
    assert training_loss_finding(frames_of_splits(shape + noise(rng), shape + noise(rng))).verdict == "ok"


def test_a_spike_is_no_rise():
    rng = np.random.default_rng(0)
    spike = np.where((FRACTIONS > 0.5) & (FRACTIONS < 0.6), 3.0, 1.0 - 0.5 * FRACTIONS)
    assert training_loss_finding(frames_of_splits(spike + noise(rng), spike + noise(rng))).verdict == "ok"


# Best steps in the warmup, as D34 has it


def test_best_steps_inside_the_warmup_are_a_finding_of_their_own():
    rng = np.random.default_rng(0)
    early = (np.abs(FRACTIONS - 0.06) + noise(rng, 0.001)).tolist()
    assert warmup_finding(frames_of_curves(study(warmup_steps=100), early)).verdict == "in_warmup"
    assert warmup_finding(frames_of_curves(study(warmup_steps=20), early)).verdict == "ok"
    assert "no warmup" in warmup_finding(frames_of_curves(study(), early)).summary


def test_an_unknown_warmup_is_no_ok():
    """Of a study from elsewhere nobody knows the warmup; its user learns with which step to compare it."""
    early = (np.abs(FRACTIONS - 0.06) + noise(np.random.default_rng(0), 0.001)).tolist()
    finding = warmup_finding(frames_of_curves(replace(study(), source="Optuna study mine"), early))
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")
    first = int(finding.evidence["best_step"].min())
    assert f"If your warmup lasted {first:,} steps or more" in finding.action


# Periods, as B43 has it


def test_a_planted_period_is_found_and_noise_has_none():
    declared = study(steps=4000, evaluations=200)
    rng = np.random.default_rng(0)
    steps = np.asarray(declared.budget.evaluation_steps)
    falling = np.exp(-steps / 500.0)
    waves = falling + 0.02 * np.sin(2 * math.pi * steps / 200.0) + 0.02 * rng.standard_normal((8, 200))
    finding = periodicity_finding(frames_of_curves(declared, waves.tolist()))
    assert finding.verdict == "periodic"
    assert finding.evidence["period"].item() == pytest.approx(200.0, rel=0.1)
    plain = falling + 0.02 * rng.standard_normal((8, 200))
    assert periodicity_finding(frames_of_curves(declared, plain.tolist())).verdict == "none"


# Scientific values (B15, B29, D40, D41)

ROLES = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), activation=choice("relu", "tanh"), layers=integers(1, 4))


def scientific(values_of, counts, names=("activation",)):
    """Trials of each activation, `values_of(activation, i)` their objective."""
    points, values = [], []
    for activation, count in counts.items():
        for i in range(count):
            points.append({"learning_rate": 1e-4 * 10 ** (3 * (i + 0.5) / count), "activation": activation,
                           "layers": 1 + i % 4})  # fmt: skip
            values.append(values_of(activation, i))
    declared = study(ROLES)
    return frames_of_values(declared.__class__(**{name: getattr(declared, name) for name in declared.__slots__}
                                               | {"scientific": names}), points, values)  # fmt: skip


def test_the_isolation_frame_is_the_brute_force_best_over_the_nuisances():
    rng = np.random.default_rng(0)
    drawn = {("relu", i): float(rng.random()) for i in range(20)} | {("tanh", i): float(rng.random()) for i in range(9)}
    frames = scientific(lambda a, i: drawn[a, i], {"relu": 20, "tanh": 9}, ("activation", "learning_rate", "layers"))
    table = isolation_frame(frames, "activation").set_index("value")
    for activation, count in (("relu", 20), ("tanh", 9)):
        assert table.loc[activation, "best_value"] == min(v for (a, _), v in drawn.items() if a == activation)
        assert table.loc[activation, "trials"] == count
    layers = isolation_frame(frames, "layers")
    assert layers["value"].tolist() == ["1", "2", "3", "4"]
    rates = isolation_frame(frames, "learning_rate")
    bounds = np.geomspace(1e-4, 1e-1, 6)
    for place, row in enumerate(rates.to_dict("records")):
        mine = frames.trials[frames.trials["learning_rate"].between(bounds[place], bounds[place + 1])]
        assert row["best_value"] == mine["best_value"].min()
        assert row["trials"] == len(mine)


def test_empty_buckets_are_shown_empty():
    points = [{"learning_rate": rate} for rate in (1.1e-4, 1.2e-4, 9e-2)]
    table = isolation_frame(frames_of_values(study(), points, [0.1, 0.2, 0.3]), "learning_rate")
    assert table["trials"].tolist() == [2, 0, 0, 0, 1]
    assert table["best_value"].isna().tolist() == [False, True, True, True, False]


def test_a_value_that_is_always_better_leads_and_equal_ones_tie():
    better = scientific(lambda a, i: 0.1 * i + (5.0 if a == "tanh" else 0.0), {"relu": 15, "tanh": 15})
    (finding,) = isolation_findings(better)
    assert (finding.verdict, finding.strength) == ("leads", "weak")
    assert finding.summary.startswith("relu leads")
    assert any("unconfirmed at any other length" in caveat for caveat in finding.caveats)
    rng = np.random.default_rng(0)
    (equal,) = isolation_findings(scientific(lambda a, i: float(rng.random()), {"relu": 15, "tanh": 15}))
    assert equal.verdict == "tie"


def test_unequal_effort_is_told_with_what_luck_alone_would_do():
    """F6: the best of 20 beats the best of 5 in 80 % of cases with no real difference."""
    (finding,) = effort_findings(scientific(lambda a, i: 0.1 * i, {"relu": 20, "tanh": 5}))
    assert (finding.verdict, finding.needs_action) == ("unequal", True)
    assert "80%" in finding.summary
    (even,) = effort_findings(scientific(lambda a, i: 0.1 * i, {"relu": 16, "tanh": 14}))
    assert even.verdict == "equal"


def test_what_is_asked_about_values_is_only_asked_where_something_is_scientific():
    frames = scientific(lambda a, i: 0.1 * i, {"relu": 10, "tanh": 10}, ())
    assert effort_findings(frames) == isolation_findings(frames) == []


# The list


def test_a_study_without_curves_answers_so_and_everything_else_works():
    frames = frames_of_values(study(), [{"learning_rate": 1e-3 * (i + 1)} for i in range(20)], np.arange(20.0).tolist())
    found = {finding.question: finding.verdict for finding in checklist_findings(frames)}
    assert found["enough_points"] == "enough"
    for asked in QUESTIONS:
        assert (found.get(asked.name) == "no_curves") == ("curves" in asked.needs)


def test_verdicts_are_all_declared_and_chosen_by_name():
    rng = np.random.default_rng(0)
    shapes = [rng.random((12, 50)), 1 - FRACTIONS + noise(rng, count=12), np.abs(FRACTIONS - 0.05) + noise(rng)]
    for curves in shapes:
        found = checklist_findings(frames_of_splits(curves, curves))
        assert {finding.verdict for finding in found} <= set(known_verdicts())
        for verdict in {finding.verdict for finding in found}:
            assert failing(found, [verdict]) == [f for f in found if f.verdict == verdict]
    assert failing(found, []) == []
    with pytest.raises(DeclarationError, match=r"no verdict expand_sideways; did you mean expand_low\? There are: "):
        failing(found, ["expand_sideways"])


def test_an_empty_study_is_asked_everything_without_falling_over():
    frames = frames_of(study(SearchSpace(dropout=uniform(0.0, 0.5))), [], curve(0, [], []))
    assert {f.verdict for f in checklist_findings(frames)} <= {"inconclusive", "no_curves"}
