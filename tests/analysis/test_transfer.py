"""Does a conclusion of a short round hold in a longer one? Pairs, noise and verdicts, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import curve, planned, record, study

from tuner import SearchSpace, choice, linear, log_uniform
from tuner.analysis.frames import frames_of
from tuner.analysis.questions.longer_training import equal_steps_frame, longer_training_finding
from tuner.analysis.questions.transfer import (
    Comparison,
    Region,
    agreement,
    conclusions_frame,
    transfer_findings,
    winner_finding,
)
from tuner.analysis.replicates import contrast, fresh_values, transfer_pairs, trial_noise
from tuner.plots.transfer import transfer_frame, transfer_plot

SPACE = SearchSpace(learning_rate=log_uniform(1e-2, 2.0))


def round_of(number, steps, trials, *, space=SPACE, direction="minimize"):
    """A round with a trial for each (origin, point, value), measured half-way at twice its value, and at the end."""
    declared = replace(study(space, steps=steps, direction=direction), name=f"round-{number}", round=number)
    records = [planned(record(place, point), origin=origin) for place, (origin, point, _) in enumerate(trials)]
    parts = [curve(place, [steps // 2, steps], [2 * value, value]) for place, (_, _, value) in enumerate(trials)]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True))


def searched(values, *, points=None, steps=100, **more):
    points = points or [{"learning_rate": 0.1 + 0.1 * place} for place in range(len(values))]
    trials = [(f"quasi-random {n}", point, value) for n, (point, value) in enumerate(zip(points, values, strict=True))]
    return round_of(1, steps, trials, **more)


def promoted(before, *children, steps=1000, **more):
    """Children as (parent, "same" or "fresh", value) with an optional multiple of the rate."""
    trials = []
    for parent, seeds, value, *rate in children:
        words = {"same": "same seed", "fresh": "fresh seeds"}[seeds] + "".join(f", {one:g} x its rate" for one in rate)
        point = {name: before.trials[name].iloc[parent] for name in before.hyperparameters}
        trials.append((f"round-1 trial {parent}, {words}", point, value))
    return round_of(2, steps, trials, **more)


def verdicts(before, after):
    return {finding.subject: finding.verdict for finding in transfer_findings(before, after)}


def test_each_promoted_trial_stands_beside_its_parent():
    before = searched([0.3, 0.2, 0.4])
    pairs = transfer_pairs(before, promoted(before, (1, "same", 0.1), (1, "fresh", 0.12), (1, "fresh", 0.11, 0.5)))
    assert pairs.to_dict("list") == {
        "trial": [0, 1, 2], "parent": [1, 1, 1], "seeds": ["same", "fresh", "fresh"], "rate": [1.0, 1.0, 0.5],
        "value_before": [0.2, 0.2, 0.2], "value": [0.1, 0.12, 0.11], "complete": [True, True, True],
    }  # fmt: skip
    assert fresh_values(pairs, 1) == [0.12]
    assert fresh_values(pairs, 1, 0.5) == [0.11]


def test_the_noise_of_training_again_comes_from_points_trained_more_than_once():
    """Differences of 0.02 and 0.04: variances 0.0002 and 0.0008, of one degree of freedom each; the mean is 0.0005."""
    before = searched([0.2, 0.3])
    children = [(0, "same", 0.10), (0, "fresh", 0.12), (1, "same", 0.20), (1, "fresh", 0.24)]
    noise = trial_noise(transfer_pairs(before, promoted(before, *children)))
    assert noise.degrees == 2
    assert noise.deviation == pytest.approx(math.sqrt(0.0005))
    found = contrast([0.12], [0.24], noise, "minimize")
    reach = 1.8856 * math.sqrt(0.0005) * math.sqrt(2)  # Student's t, 2 degrees of freedom, 80 % two-sided
    assert (found.difference, found.low, found.high) == pytest.approx((0.12, 0.12 - reach, 0.12 + reach), abs=1e-5)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    ("rival", "verdict"), [(0.50, "confirmed"), (0.06, "rejected"), (0.22, "unconfirmed")]
)  # the winner's fresh seeds gave 0.20, and trainings of one point differ by 0.02
def test_the_winner_is_held_against_its_rival_by_fresh_seeds_and_their_noise(direction, rival, verdict):
    sign = 1 if direction == "minimize" else -1
    before = searched([sign * 0.2, sign * 0.3, sign * 0.5], direction=direction)
    same_rival = rival + 0.02
    children = [(0, "same", 0.18), (1, "same", same_rival), (0, "fresh", 0.20), (1, "fresh", rival)]
    after = promoted(before, *[(p, s, sign * v) for p, s, v in children], direction=direction)
    assert verdicts(before, after)["winner"] == verdict


def test_of_equal_points_as_many_are_confirmed_or_rejected_as_the_level_says():
    """An 80 % interval leaves out no difference in 20 % of 150 studies, with a deviation of 3.3 %."""
    rng, decided = np.random.default_rng(0), 0
    before = searched([0.2, 0.3])
    for _ in range(150):
        values = 0.5 + 0.01 * rng.standard_normal(4)
        children = [(0, "same", values[0]), (1, "same", values[1]), (0, "fresh", values[2]), (1, "fresh", values[3])]
        decided += winner_finding(Comparison.of(before, promoted(before, *children))).verdict != "unconfirmed"
    assert 0.10 < decided / 150 < 0.30


def test_a_pair_with_the_same_seed_confirms_nothing():
    before = searched([0.2, 0.3])
    after = promoted(before, (0, "same", 0.1), (1, "same", 0.9))
    assert verdicts(before, after) == {
        "round-2": "inconclusive", "winner": "unconfirmed", "best regions": "unconfirmed",
    }  # fmt: skip


def test_ranks_are_asked_where_four_were_promoted_and_answered_where_four_have_fresh_seeds():
    before = searched([0.2, 0.3, 0.4, 0.5])
    three = promoted(before, *[(place, "fresh", 0.1) for place in range(3)])
    assert "ranking" not in verdicts(before, three), "three can never be enough"
    kept = promoted(before, (0, "fresh", 0.1), *[(place, "same", 0.1) for place in range(4)])
    (finding,) = [one for one in transfer_findings(before, kept) if one.subject == "ranking"]
    assert finding.verdict == "unconfirmed"
    assert "Only 1 configuration was retrained with new seeds; comparing rankings needs at least 4." in finding.summary
    assert "4 more trainings repeat the seeds they were chosen by" in finding.summary


def test_the_unconfirmed_winner_names_the_command_that_trains_both_again():
    """The contest is between the trials of the later round, which have one length."""
    before = searched([0.3, 0.2, 0.4])
    after = promoted(before, (1, "same", 0.18), (0, "same", 0.24), (1, "fresh", 0.20), (0, "fresh", 0.22))
    finding = winner_finding(Comparison.of(before, after))
    assert finding.verdict == "unconfirmed"
    assert "tuner adopt STUDY_FILE --candidate round-2/0 --baseline round-2/1" in finding.action
    assert finding.heading == "Is the winner still better than its rival?"


def test_one_fresh_training_each_without_any_repetition_has_no_noise_to_judge_by():
    before = searched([0.2, 0.3])
    after = promoted(before, (0, "fresh", 0.1), (1, "fresh", 0.9))
    assert verdicts(before, after)["winner"] == "unconfirmed"


@pytest.mark.parametrize(
    ("values", "verdict", "told"),
    [
        ([0.10, 0.11, 0.12, 0.13, 0.14, 0.15], "confirmed", "1.00; 2 of the best 2"),
        ([0.15, 0.14, 0.13, 0.12, 0.11, 0.10], "rejected", "-1.00; 0 of the best 2"),
        ([0.10, 0.13, 0.15, 0.11, 0.14, 0.12], "unconfirmed", "0.26; 1 of the best 2"),
    ],
)
def test_points_rank_as_they_did_or_not(values, verdict, told):
    """Spearman by hand: 1 - 6 sum(d^2) / (n^3 - n); the last has d = 0 2 3 2 0 3: 1 - 156 / 210."""
    before = searched([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    after = promoted(before, *[(place, "fresh", value) for place, value in enumerate(values)])
    finding = next(one for one in transfer_findings(before, after) if one.subject == "ranking")
    assert finding.verdict == verdict
    assert told in finding.summary


def test_half_the_rate_that_is_better_at_the_new_length_rejects_the_rate():
    before = searched([0.2, 0.3])
    children = [(0, "same", 0.10), (0, "fresh", 0.11), (0, "fresh", 0.03, 0.5)]
    found = {finding.subject: finding for finding in transfer_findings(before, promoted(before, *children))}
    assert found["learning_rate"].verdict == "rejected"
    assert found["learning_rate"].needs_action
    assert "Use 0.5 times the rate" in found["learning_rate"].action


def test_an_architecture_that_won_is_confirmed_against_the_best_point_of_another():
    space = SearchSpace(learning_rate=log_uniform(1e-2, 2.0), activation=choice("relu", "tanh"))
    points = [{"learning_rate": 0.1 * n, "activation": name} for n, name in enumerate(["relu", "relu", "tanh"], 1)]
    before = searched([0.2, 0.25, 0.3], points=points, space=space)
    children = [(0, "same", 0.10), (0, "fresh", 0.11), (1, "fresh", 0.05), (2, "fresh", 0.9)]
    assert verdicts(before, promoted(before, *children, space=space))["activation"] == "confirmed"


@pytest.mark.parametrize(
    ("later", "verdict"),
    [((0.3, 0.7, 0.4), "confirmed"), ((0.55, 0.9, 0.6), "rejected"), ((0.45, 0.9, 0.6), "unconfirmed")],
)
def test_best_regions_agree_when_each_rounds_best_lies_in_the_others(later, verdict):
    before = Region(0, 0, 0, (0.2, 0.5, 0.4))
    assert agreement(before, Region(0, 0, 0, later)) == verdict


# --- the noisy quadratic of F2: exact losses at two lengths


def noisy_quadratic(base, steps):
    h, m = np.arange(1, 51) ** -1.5, np.ones(50)
    for rate in base * np.array(linear().schedule(steps).fractions()):
        m = (1 - rate * h) ** 2 * m + rate**2 * 0.05 * h
    return 0.5 * float(np.sum(h * m))


RATES = (0.6, 0.8, 1.0, 1.2, 1.35, 1.5)


def test_the_noisy_quadratic_ranks_learning_rates_otherwise_at_ten_times_the_length():
    """A32, D20: at 200 steps 1.5 is best, at 2,000 0.76 is; the ranking does not carry over."""
    points = [{"learning_rate": rate} for rate in RATES]
    before = searched([noisy_quadratic(rate, 200) for rate in RATES], points=points, steps=200)
    after = promoted(before, *[(n, "fresh", noisy_quadratic(rate, 2000)) for n, rate in enumerate(RATES)], steps=2000)
    assert before.complete.sort_values("best_value")["learning_rate"].iloc[0] == 1.5
    assert after.complete.sort_values("best_value")["learning_rate"].iloc[0] == 0.8
    found = verdicts(before, after)
    assert found["ranking"] == "rejected"
    assert found["round-2"] == "gained"


# --- trials of different lengths


def test_trials_of_different_lengths_are_compared_at_equal_steps():
    before = searched([0.2, 0.3], steps=100)
    after = promoted(before, (0, "fresh", 0.05), steps=200)
    table = equal_steps_frame([before, after])
    assert table.columns.tolist() == ["study", "trial", "max_train_steps", "within_100", "within_200"]
    assert table["within_100"].tolist() == pytest.approx([0.2, 0.3, 0.1]), "twice its value, half-way"
    assert table["within_200"].tolist() == pytest.approx([math.nan, math.nan, 0.05], nan_ok=True)


@pytest.mark.parametrize(
    ("values", "verdict"), [((0.1, 0.12), "gained"), ((0.3, 0.32), "no_gain"), ((0.1, 0.32), "inconclusive")]
)
def test_what_longer_training_gained_is_judged_by_fresh_pairs(values, verdict):
    """Gains 0.10, 0.10 of parents at 0.20 and 0.22; the last 0.10 and -0.10."""
    before = searched([0.2, 0.22])
    after = promoted(before, *[(place, "fresh", value) for place, value in enumerate(values)])
    assert longer_training_finding(before, after).verdict == verdict


def test_a_round_that_is_no_longer_is_not_asked_what_longer_training_gained():
    before = searched([0.2, 0.22], steps=100)
    children = [(0, "fresh", 0.1), (1, "fresh", 0.12)]
    longer, equal = (transfer_findings(before, promoted(before, *children, steps=steps)) for steps in (200, 100))
    assert {one.question for one in longer} - {one.question for one in equal} == {"longer_training"}
    assert {one.caveats[0] for one in equal} == {
        "Both rounds used 100 steps, so this tests seed variance only, not longer training."
    }
    assert {one.caveats[0] for one in longer if one.question == "transfer"} == {
        "Concluded after 100 steps and tested after 200; a still longer run may give another answer (A30)."
    }


# --- what holds at which length


def test_a_conclusion_is_promoted_rejected_or_open_at_each_length():
    before = searched([0.2, 0.3])
    after = promoted(before, (0, "same", 0.1), (0, "fresh", 0.11), (1, "fresh", 0.9))
    table = conclusions_frame([before, after]).set_index("conclusion")
    assert table.loc["winner of round-1", ["drawn_at", "asked_at", "state"]].tolist() == [100, 1000, "promoted"]
    assert table.loc["best regions of round-1", "state"] == "unconfirmed"
    assert table.loc["winner of round-2", "state"] == "unconfirmed"
    assert pd.isna(table.loc["winner of round-2", "asked_at"])


def test_nothing_is_concluded_of_a_campaign_without_rounds():
    assert conclusions_frame([]).empty
    assert conclusions_frame([searched([0.2, 0.3])])["conclusion"].tolist() == ["winner of round-1"]


def test_the_plot_pairs_both_lengths_and_names_every_stroke():
    before = searched([0.3, 0.2, 0.4])
    after = promoted(before, (1, "same", 0.1), (1, "fresh", 0.12), (1, "fresh", 0.11, 0.5))
    table = transfer_frame(before, after)
    pairs = table[table["panel"] == "pairs"].sort_values(["trial", "step"])
    assert pairs["value"].tolist() == [0.2, 0.1, 0.2, 0.12, 0.2, 0.11]
    steps = table[(table["panel"] == "steps") & (table["seeds"] == "parent")]
    assert list(zip(steps["step"], steps["value"], strict=True)) == [(50, 0.4), (100, 0.2)], "the parent, best so far"
    left, right = transfer_plot(table, "validation/loss").axes
    named = {text.get_text() for text in right.get_legend().get_texts()}
    assert named == {"trial 1", "the round before", "same seed", "fresh seeds", "0.5 x rate"}
    assert left.get_legend() is None
    strokes = {(line.get_color(), line.get_linestyle(), line.get_markerfacecolor()) for line in left.lines}
    assert len(strokes) == 3, "same seed, fresh seeds and an arm are told apart without colours"


def test_a_round_that_is_still_trained_is_awaited_and_promotes_nothing_more():
    before = searched([0.2, 0.22, 0.3])
    after = promoted(before, (0, "fresh", 0.5), (1, "fresh", 0.4))
    trials = after.trials.assign(state="waiting", best_value=math.nan)
    waiting = replace(after, trials=trials, curves=after.curves.head(0))
    told = [longer_training_finding(before, waiting), *transfer_findings(before, waiting)]
    actions = {one.subject: one.action for one in told if one.question == "longer_training" or one.subject == "winner"}
    assert set(actions.values()) == {"Let the trials of this round complete, then ask again."}
