"""Values of a scientific hyperparameter compared: buckets, chances by enumeration, equal effort, roles."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from analysis.handmade import frames_of_values, study

from tuner.analysis.questions.effort import effort_findings
from tuner.analysis.questions.isolation import (
    LEADS,
    best_of_each_value,
    fixed_caveats,
    isolation_findings,
    isolation_frame,
    role_warnings,
    with_pruned_of_each,
)
from tuner.design.hyperparameters import choice, integers, log_uniform, uniform
from tuner.design.space import SearchSpace

ACTIVATION = SearchSpace(activation=choice("relu", "tanh", "gelu"))


def compared(values_by_name, *, direction="minimize", space=ACTIVATION):
    """A study that compares activations, with these values; None is an infeasible trial."""
    points = [({"activation": name}, value) for name, values in values_by_name.items() for value in values]
    declared = replace(study(space, direction=direction), scientific=("activation",))
    return frames_of_values(declared, [point for point, _ in points], [value for _, value in points])


def chances_by_enumeration(groups):
    """Every draw of as many trials of each group as the smallest has; ties are shared."""
    count = min(len(group) for group in groups)
    won, total = [0.0] * len(groups), 0
    for drawn in product(*[list(product(group, repeat=count)) for group in groups]):
        bests = [min(one) for one in drawn]
        winners = [place for place, best in enumerate(bests) if best == min(bests)]
        for place in winners:
            won[place] += 1.0 / len(winners)
        total += 1
    return [one / total for one in won]


@pytest.mark.parametrize(
    "groups",
    [
        [[1.0, 2.0], [1.5, 3.0]],
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]],
        [[1.0, 1.0], [1.0, 1.0], [1.0, 2.0]],
        [[0.1, 0.9, 0.5], [0.2, 0.3], [0.4, 0.8]],
        [[5.0, 6.0], [1.0, 2.0], [3.0, 4.0]],
    ],
)
def test_the_chance_of_being_best_is_that_of_all_draws(groups):
    table = isolation_frame(compared(dict(zip(("relu", "tanh", "gelu"), groups, strict=False))), "activation")
    expected = chances_by_enumeration(groups) + [0.0] * (3 - len(groups))
    assert table["chance"].tolist() == pytest.approx(expected)
    assert table["chance"].sum() == pytest.approx(1.0)


def test_more_is_better_where_the_objective_is_maximized():
    groups = {"relu": [0.7, 0.8], "tanh": [0.6, 0.9]}
    mirrored = {name: [-value for value in values] for name, values in groups.items()}
    one, other = compared(groups, direction="maximize"), compared(mirrored)
    chances = [isolation_frame(frames, "activation")["chance"].tolist() for frames in (one, other)]
    assert chances[0] == pytest.approx(chances[1])
    assert isolation_frame(one, "activation")["best_value"].tolist()[:2] == [0.8, 0.9]


def test_every_value_has_a_row_with_its_counts_and_its_best_trial():
    table = isolation_frame(compared({"relu": [0.5, 0.4, None], "gelu": [0.3]}), "activation")
    assert table["value"].tolist() == ["relu", "tanh", "gelu"]
    assert table["trials"].tolist() == [3, 0, 1]
    assert table["complete"].tolist() == [2, 0, 1]
    assert table["best_trial"].tolist()[0] == 1
    assert math.isnan(table["best_value"].iloc[1])


def test_a_value_that_is_always_better_leads_and_asks_for_fresh_seeds():
    (finding,) = isolation_findings(compared({name: [base + 0.01 * k for k in range(8)] for name, base in
                                              (("relu", 0.1), ("tanh", 0.5), ("gelu", 0.6))}))  # fmt: skip
    assert (finding.verdict, finding.strength) == ("leads", "weak")
    assert finding.action.startswith("Before you adopt relu, train its best trial")
    assert finding.evidence["chance"].iloc[0] >= LEADS


def test_values_that_overlap_are_a_tie_and_the_one_behind_is_named():
    even, behind = [0.1 + 0.01 * k for k in range(8)], [0.9 + 0.01 * k for k in range(8)]
    (finding,) = isolation_findings(compared({"relu": even, "tanh": even, "gelu": behind}))
    assert finding.verdict == "tie"
    assert "gelu is surely behind" in finding.summary


def test_four_trials_of_a_value_are_too_few():
    (finding,) = isolation_findings(compared({"relu": [0.1] * 9, "tanh": [0.2] * 9, "gelu": [0.3] * 4}))
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")


def test_a_conclusion_names_what_was_fixed_and_its_length():
    (caveat,) = fixed_caveats(compared({"relu": [0.1]}))
    assert caveat.endswith("Concluded at 1,000 steps; unconfirmed at any other length (A30, B11).")


@pytest.mark.parametrize(
    ("domain", "values", "labels"),
    [
        (uniform(0.0, 1.0), [0.05, 0.5, 1.0], ["0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 1"]),
        (integers(1, 3), [1, 2, 3], ["1", "2", "3"]),
        (log_uniform(1e-5, 1.0), [1e-5, 1e-2, 1.0], ["1e-05 to 0.0001", "0.0001 to 0.001", "0.001 to 0.01",
                                                      "0.01 to 0.1", "0.1 to 1"]),
    ],
)  # fmt: skip
def test_a_range_is_cut_into_buckets_on_its_scale(domain, values, labels):
    space = SearchSpace(size=domain)
    declared = replace(study(space), scientific=("size",))
    table = isolation_frame(frames_of_values(declared, [{"size": one} for one in values], [0.1] * 3), "size")
    assert table["value"].tolist() == labels
    assert table["trials"].sum() == 3
    assert table["trials"].iloc[0] == 1
    assert table["trials"].iloc[-1] == 1


def test_the_best_of_each_value_is_named():
    table = best_of_each_value(compared({"relu": [0.5, 0.4], "gelu": [0.3]}))
    assert table.to_dict("list") == {
        "trial": [1, 2], "best_value": [0.4, 0.3], "value": ["activation = relu", "activation = gelu"],
    }  # fmt: skip
    assert best_of_each_value(frames_of_values(study(ACTIVATION), [], [])).empty


def test_pruned_trials_are_counted_with_the_best_they_reached():
    frames = compared({"relu": [0.5, 0.4], "gelu": [0.3, 0.2]})
    trials = frames.trials.copy()
    trials.loc[trials["trial"] == 3, ["state", "reason"]] = ["cancelled", "pruned at step 100"]
    table = with_pruned_of_each(replace(frames, trials=trials), "activation")
    assert table["pruned"].tolist() == [0, 0, 1]
    assert table["pruned_best"].iloc[2] == 0.2
    assert table["complete"].tolist() == [2, 0, 1]


# Equal effort


@pytest.mark.parametrize(
    ("counts", "verdict", "strength"),
    [
        ((12, 12, 12), "equal", "strong"),
        ((6, 7, 8), "equal", "moderate"),
        ((10, 10, 13), "equal", "strong"),
        ((6, 6, 12), "unequal", "strong"),
        ((4, 5, 4), "inconclusive", "none"),
        ((0, 10, 10), "unequal", "strong"),
    ],
)
def test_effort_is_equal_up_to_what_a_design_leaves(counts, verdict, strength):
    names = ("relu", "tanh", "gelu")
    frames = compared({name: [0.1] * count for name, count in zip(names, counts, strict=True)})
    (finding,) = effort_findings(frames)
    assert (finding.verdict, finding.strength) == (verdict, strength)
    assert finding.needs_action == (verdict == "unequal")


def test_the_luck_of_more_trials_is_that_of_the_best_of_n():
    """Of equal configurations the best of 12 beats the best of 6 with chance 12 / 18; simulated here."""
    (finding,) = effort_findings(compared({"relu": [0.1] * 6, "tanh": [0.1] * 12, "gelu": [0.1] * 12}))
    assert "with chance 67%" in finding.summary
    rng = np.random.default_rng(0)
    won = (rng.random((20_000, 12)).min(axis=1) < rng.random((20_000, 6)).min(axis=1)).mean()
    assert won == pytest.approx(12 / 18, abs=0.01)


def test_nothing_scientific_has_no_effort():
    assert effort_findings(frames_of_values(study(ACTIVATION), [{"activation": "relu"}], [0.1])) == []


# Roles


def roles(space, *scientific, **more):
    return role_warnings(replace(study(space), scientific=scientific, **more))


def test_a_batch_size_is_not_tuned_for_validation():
    space = SearchSpace(batch_size=integers(8, 64), learning_rate=log_uniform(1e-4, 1e-1))
    assert any("(B3)" in warning for warning in roles(space, "learning_rate"))
    assert not any("(B3)" in warning for warning in roles(space, "batch_size"))
    assert any("(B3)" in warning for warning in roles(SearchSpace(batch_size=integers(8, 64)), "batch_size"))


def test_a_number_of_the_optimizer_is_usually_a_nuisance():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), activation=choice("relu", "tanh"))
    assert any("learning_rate is usually a nuisance" in warning for warning in roles(space, "learning_rate"))
    assert roles(space, "activation") == []


def test_what_nobody_compares_needs_no_roles():
    assert roles(SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5))) == []
