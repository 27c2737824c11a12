"""Findings about studies that were run elsewhere: pruned trials, samples that a model chose, lines to paste."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, planned, record, study

from tuner.analysis import checklist
from tuner.analysis.elsewhere import for_elsewhere, number, search_line
from tuner.analysis.finding import Finding
from tuner.analysis.frames import frames_of
from tuner.analysis.judged_trials import judged_trials
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.pruned import pruned_findings, pruned_frame
from tuner.analysis.sampling import closeness, sample_of
from tuner.design.hyperparameters import Hyperparameter, choice, integers, log_uniform, uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace
from tuner.records import State

SPACE = SearchSpace(rate=uniform(0.0, 1.0))


def imported(space, points, curves, *, pruned=(), source="Optuna study mine", origin=None, direction="minimize"):
    """A trial a point, measured at steps 1, 2, ... up to 20; those in `pruned` were ended where their curve ends."""
    made = replace(study(space, steps=20, evaluations=20, direction=direction), source=source)
    records = []
    for index, (point, values) in enumerate(zip(points, curves, strict=True)):
        one = record(index, point, State.CANCELLED if index in pruned else State.COMPLETE)
        reason = f"pruned at step {len(values)}" if index in pruned else ""
        one = planned(one, origin=source + (origin or ""))
        records.append(replace(one, reason=reason, step=len(values)))
    parts = [curve(i, range(1, len(v) + 1), v) for i, v in enumerate(curves)]
    return frames_of(made, records, pd.concat(parts, ignore_index=True))


def falling(level, steps=20):
    return [level + math.exp(-step / 3) for step in range(1, steps + 1)]


def finding(question="boundary", verdict="ok", strength="strong", **changes):
    made = Finding(question, "rate", verdict, strength, "s", pd.DataFrame(), {}, "Nothing to do.")
    return replace(made, **changes)


def test_a_pruned_trial_is_at_least_as_bad_as_the_completed_one_of_its_rank():
    """Levels 1, 2, 3, 4 completed; one of level 2.5 was ended at step 5: two were better then, so at least 3."""
    curves = [falling(level) for level in (4.0, 1.0, 3.0, 2.0)] + [falling(2.5, 5), falling(9.0, 5), falling(0.5, 5)]
    frames = imported(SPACE, [{"rate": 0.1 * i} for i in range(7)], curves, pruned=(4, 5, 6))
    table = pruned_frame(frames).set_index("trial")
    assert table["better"].tolist() == [2, 4, 0]
    expected = [falling(level)[-1] for level in (3.0, 4.0, 1.0)]
    assert table["at_least"].tolist() == pytest.approx(expected)
    assert table["step"].tolist() == [5, 5, 5]
    whole = judged_trials(frames)
    assert not whole["pruned"].any(), "four completed trials rank nobody"
    assert whole["minimized"].is_monotonic_increasing
    assert len(frames.complete) == 4, "nothing else counts them"


def test_the_rank_turns_with_the_direction():
    curves = [[-v for v in falling(level)] for level in (1.0, 2.0, 3.0)] + [[-v for v in falling(1.5, 4)]]
    frames = imported(SPACE, [{"rate": 0.1}] * 4, curves, pruned=(3,), direction="maximize")
    assert pruned_frame(frames)["at_least"].iloc[0] == pytest.approx(-falling(2.0)[-1])


def test_pruned_trials_decide_an_edge_that_the_completed_ones_do_not():
    """The better half of 40 lies where the rate is high; the others were ended after three steps."""
    places = np.random.default_rng(0).permutation((np.arange(40) + 0.5) / 40)
    levels = (places - 1.3) ** 2
    pruned = set(np.flatnonzero(places < 0.8).tolist())
    curves = [falling(level, 3 if index in pruned else 20) for index, level in enumerate(levels)]
    frames = imported(SPACE, [{"rate": place} for place in places], curves, pruned=pruned)
    (found,) = boundary_findings(frames)
    assert found.verdict == "expand_high"
    (alone,) = boundary_findings(replace(frames, trials=frames.trials.assign(reason="")))
    assert alone.verdict == "inconclusive"


def test_the_pruned_are_a_finding_of_their_own_and_counted_in_every_answer():
    curves = [falling(level) for level in (1.0, 2.0)] + [falling(3.0, 4)] * 3
    frames = imported(SPACE, [{"rate": 0.2 * i} for i in range(5)], curves, pruned=(2, 3, 4))
    (found,) = pruned_findings(frames)
    assert (found.verdict, found.needs_action) == ("mostly_pruned", False)
    assert "3 of 5 trials were pruned, at step 4 to 4 of 20 (median 4)" in found.summary
    for question in ("boundary", "best_steps", "improvement", "insensitivity", "enough_points", "regime", "infeasible"):
        (told,) = for_elsewhere(frames, [finding(question)])
        assert any("3 of 5 trials were pruned" in caveat for caveat in told.caveats), question
    assert pruned_findings(imported(SPACE, [{"rate": 0.5}], [falling(1.0)])) == []


@pytest.mark.parametrize("question", ["boundary", "enough_points", "insensitivity", "isolation"])
def test_no_strong_ok_rests_on_points_that_a_model_chose(question):
    frames = imported(SPACE, [{"rate": 0.5}], [falling(1.0)], origin=", by CMA-ES")
    (told,) = for_elsewhere(frames, [finding(question)])
    assert told.strength == "moderate"
    assert any("1 of 1 points were chosen by CMA-ES" in caveat for caveat in told.caveats)
    ours = replace(frames, study=replace(frames.study, source=""))
    (same,) = for_elsewhere(ours, [finding(question)])
    assert (same.strength, same.caveats) == ("strong", ()), "what is drawn here is known"


MIXED = SearchSpace(rate=log_uniform(1e-4, 1.0), layers=integers(1, 4), act=choice("a", "b", "c"))


def sampled(rng, gathered, count=30):
    """Points of a sampler that does, or does not, draw near the best one so far; the objective is in `rate` alone."""
    units, values = [], []
    for place in range(count):
        unit = rng.random(3)
        if gathered and place >= 10:
            unit = np.clip(units[int(np.argmin(values))] + 0.1 * rng.standard_normal(3), 0.0, 0.999)
        units.append(unit)
        values.append((unit[0] - 0.4) ** 2 + 0.3 * (unit[1] - 0.5) ** 2)
    points = [dict(MIXED.values_at(tuple(unit))) for unit in units]
    return imported(MIXED, points, [falling(value) for value in values])


def test_points_that_follow_the_best_ones_are_seen_and_random_ones_are_not():
    """Under even sampling the statistic has mean 0 and deviation 1, whatever the objective."""
    even = [closeness(one, one.trials) for one in (sampled(np.random.default_rng(seed), False) for seed in range(40))]
    assert abs(float(np.mean(even))) < 0.5
    assert 0.6 < float(np.std(even)) < 1.4
    assert max(even) < 3.0
    for seed in range(5):
        frames = sampled(np.random.default_rng(seed), True)
        assert sample_of(frames).kind == "model", closeness(frames, frames.trials)
    assert sample_of(sampled(np.random.default_rng(1), False)).kind == "even"


def test_points_chosen_by_hand_are_uneven():
    points = [{"rate": [0.0, 0.5, 1.0][index % 3]} for index in range(45)]
    frames = imported(SPACE, points, [falling(1.0)] * 45)
    assert sample_of(frames).kind == "uneven"


@pytest.mark.parametrize("key", [lambda one: one[0], lambda one: -one[1]])
def test_a_table_that_was_sorted_shows_no_order_of_time(key):
    """Random rates, sorted by rate or from the worst result to the best: each lies beside the best one before it."""
    rates = 10.0 ** np.random.default_rng(0).uniform(-4, 0, 24)
    pairs = sorted(((rate, 0.1 * (math.log10(rate) + 1) ** 2) for rate in rates), key=key)
    space = SearchSpace(rate=log_uniform(1e-4, 1.0))
    frames = imported(space, [{"rate": float(rate)} for rate, _ in pairs], [falling(value) for _, value in pairs])
    assert closeness(frames, frames.trials) > 3.0
    assert sample_of(frames).kind == "even"


RATE = Hyperparameter("lr", log_uniform(1e-5, 0.1))
WHOLE = Hyperparameter("n", integers(8, 99, log=True))


@pytest.mark.parametrize(
    ("source", "hyperparameter", "line"),
    [
        ("Optuna study a", RATE, '`lr = trial.suggest_float("lr", 1e-5, 0.1, log=True)`'),
        ("Optuna study a", WHOLE, '`n = trial.suggest_int("n", 8, 99, log=True)`'),
        (
            "Optuna study a",
            Hyperparameter("sgd.lr", uniform(0, 2), None, ("optimizer", "sgd")),
            '`lr = trial.suggest_float("lr", 0.0, 2.0)`',
        ),
        ("Optuna study a", Hyperparameter("a-b", uniform(0, 2)), '`a_b = trial.suggest_float("a-b", 0.0, 2.0)`'),
        ("W&B run table", RATE, "`lr: {distribution: log_uniform_values, min: 1.0e-5, max: 0.1}`"),
        ("Ray progress.csv", RATE, '`"lr": tune.loguniform(1e-5, 0.1)`'),
        ("Ray progress.csv", Hyperparameter("n", integers(1, 8)), '`"n": tune.randint(1, 9)`'),
        ("curves.csv", RATE, 'in Optuna that is `lr = trial.suggest_float("lr", 1e-5, 0.1, log=True)`'),
    ],
)  # fmt: skip
def test_a_range_is_the_line_of_the_tool_that_searched_it(source, hyperparameter, line):
    made = replace(study(SPACE), source=source)
    assert line in search_line(made, hyperparameter, hyperparameter.domain)


def test_numbers_as_people_write_them():
    assert [number(one) for one in (1e-5, 0.001, 0.00025, 0.3, 1.0, 30000.0, 1e7)] == [
        "1e-5", "0.001", "2.5e-4", "0.3", "1.0", "30000.0", "1e7",
    ]  # fmt: skip


def test_next_steps_are_ones_that_the_owner_of_an_imported_study_can_take():
    points = [{"rate": 0.02 * index} for index in range(30)]
    frames = imported(SPACE, points, [falling((point["rate"] - 1.0) ** 2) for point in points])
    wide = replace(frames, study=replace(frames.study, hyperparameters=(Hyperparameter("rate", uniform(0.0, 0.6)),)))
    (edge,) = for_elsewhere(wide, boundary_findings(wide))
    assert edge.verdict == "expand_high"
    assert 'instead of 0.0 to 0.6: paste `rate = trial.suggest_float("rate", 0.0, ' in edge.action
    evidence = pd.DataFrame({"trial": [4]})
    (longer,) = for_elsewhere(frames, [finding("best_steps", "maybe_too_short", evidence=evidence)])
    assert "train the configuration of trial 4 again for 40 steps instead of 20" in longer.action
    assert "(rate = 0.08)" in longer.action
    for verdict, question in (("sparse", "enough_points"), ("some_failed", "failed_trials"), ("no_curves", "regime")):
        (told,) = for_elsewhere(frames, [finding(question, verdict, action="--retry-failed trials=...")])
        assert not any(word in told.action for word in ("--retry-failed", "trials=...", "tuner ", "study file"))


def test_both_limits_move_where_two_values_have_their_best_beyond_opposite_ones():
    """As `boundary` says it of a study of our own: one line to paste, wider at both ends."""
    space = SearchSpace(rate=log_uniform(1e-3, 1e-1), optimizer=choice("sgd", "adam"))
    points = [dict(point.values_by_name) for point in quasi_random_points(space, seed=0, start=0, count=40)]
    best = {"sgd": 0.0, "adam": -4.0}
    levels = [0.2 + 0.1 * (math.log10(point["rate"]) - best[point["optimizer"]]) ** 2 for point in points]
    frames = imported(space, points, [falling(level) for level in levels])
    (found,) = for_elsewhere(frames, boundary_findings(frames))
    assert 'trial.suggest_float("rate", 1e-4, 1.0, log=True)' in found.action


def test_advice_for_the_owner_agrees_with_what_is_said_of_the_other_questions(monkeypatch):
    """What is put in the owner's words is reconciled after it: else each question goes back to its own advice."""
    edges = pd.DataFrame({"edge": ["low", "high"], "next_bound": [0.0, 2.0], "expand": [False, True]})
    wide = finding("boundary", "expand_high", evidence=edges, needs_action=True)
    rest = [finding("boundary", "inconclusive", "none", subject="dropout"), finding("enough_points", "sparse")]
    budget = [finding("best_steps"), finding("regime", "compute_bound")]
    monkeypatch.setattr(checklist, "checklist_findings", lambda frames: [wide, *rest, *budget])
    for asks_the_ledger in ("recorded_stale_findings", "stale_start_findings", "recorded_stability_findings"):
        monkeypatch.setattr(checklist, asks_the_ledger, lambda *given: [])
    frames = imported(SPACE, [{"rate": 0.1}, {"rate": 0.2}], [falling(1.0), falling(2.0)])
    frames = replace(frames, study=replace(frames.study, name="mine"))
    told = [one.action for one in checklist.round_findings(None, "mine", frames)]
    assert told[0].startswith("Search rate from 0.0 to 2.0 instead of 0.0 to 1.0: paste")
    assert [action.startswith("First widen rate") for action in told[1:3]] == [True, True]
    assert told[4].startswith("Keep these steps, as the best-step finding proposes")


def test_what_pruned_trials_count_as_is_said_once():
    points = [{"rate": k / 29} for k in range(30)]
    curves = [falling((rate["rate"] - 0.5) ** 2) for rate in points]
    frames = imported(SPACE, points, curves, pruned=tuple(range(0, 30, 3)))
    for finding in for_elsewhere(frames, boundary_findings(frames)):
        assert sum("at least" in caveat and "pruned" in caveat for caveat in finding.caveats) == 1
