"""The value a study is told by: the median of fresh seeds, the selected run behind it (B32); by hand."""

from dataclasses import replace

import pandas as pd
import pytest
from analysis.handmade import curve, planned, record, study

from tuner.analysis.frames import frames_of
from tuner.analysis.headline import FRESH, SELECTED, EarlierRun, FreshRun, fresh_medians, headline
from tuner.design.objective import maximize
from tuner.records import State

METRIC = "validation/loss"


def frames(name, *trials, direction="minimize"):
    """A study of trials (origin, best value), numbered from 0 on; None: it did not complete."""
    where = replace(study(), name=name)
    metric = where.objective.metric
    if direction == "maximize":
        where = replace(where, objective=maximize(metric))
    states = [State.INFEASIBLE if value is None else State.COMPLETE for _, value in trials]
    records = [
        planned(record(n, {"learning_rate": 0.01 * (n + 1)}, state), origin=origin)
        for n, ((origin, _), state) in enumerate(zip(trials, states, strict=True))
    ]
    known = [(n, value) for n, (_, value) in enumerate(trials) if value is not None]
    return frames_of(where, records, pd.concat([curve(n, [10, 20], [value, value], metric) for n, value in known]))


SAME, FRESH_SEEDS = "round-1 trial {}, same seed", "round-1 trial {}, fresh seeds"


def promoted(*trials, **more):
    """Trials of round 2: (parent, seeds, value)."""
    return frames("round-2", *((f"round-1 trial {p}, {seeds}", value) for p, seeds, value in trials), **more)


def test_one_seed_is_said_to_be_the_best_of_many():
    found = headline(frames("round-1", ("quasi-random 0", 0.05), ("quasi-random 1", 0.03), ("quasi-random 2", None)))
    assert (found.trial, found.value, found.kind, found.selected_from) == (1, 0.03, SELECTED, 2)
    assert found.words == "0.03, one seed, selected as the best of 2: expect worse"
    alone = headline(frames("round-1", ("quasi-random 0", 0.05)))
    assert alone.words == "0.05, one seed"


def test_the_median_of_fresh_seeds_comes_first_and_the_selected_run_stands_behind_it():
    found = headline(
        promoted(
            (4, "same seed", 0.0302), (4, "fresh seeds", 0.0412), (4, "fresh seeds", 0.046), (4, "fresh seeds", 0.039)
        )
    )
    assert (found.trial, found.value, found.selected_value, found.kind) == (0, 0.0412, 0.0302, FRESH)
    assert found.words == (
        "0.0412, median of 3 fresh seeds (0.039 to 0.046); the selected run had 0.0302 (selected, so optimistic)"
    )
    assert found.fresh == tuple(FreshRun("round-2", n, v) for n, v in ((1, 0.0412), (2, 0.046), (3, 0.039)))


def test_medians_are_compared_and_a_lucky_single_seed_wins_nothing():
    round_2 = promoted(
        (4, "same seed", 0.030), (7, "same seed", 0.032), (9, "same seed", 0.020),
        (4, "fresh seeds", 0.050), (7, "fresh seeds", 0.040),
    )  # fmt: skip
    found = headline(round_2)
    assert (found.trial, found.value, found.selected_value) == (1, 0.040, 0.032)
    assert fresh_medians(round_2) == {1: (0.040, 1), 0: (0.050, 1)}
    assert found.words == "0.04, one fresh seed; the selected run had 0.032 (selected, so optimistic)"


def test_another_rate_is_another_configuration():
    arms = frames(
        "round-2",
        ("round-1 trial 4, fresh seeds", 0.05),
        ("round-1 trial 4, fresh seeds, 0.5 x its rate", 0.04),
    )
    found = headline(arms)
    assert (found.trial, found.value, found.fresh) == (1, 0.04, (FreshRun("round-2", 1, 0.04),))
    assert found.words == "0.04, one fresh seed", "the fresh run is the only one: nothing stands behind it"


def test_where_all_seeds_are_fresh_the_value_that_promoted_the_configuration_stands_behind_the_median():
    """The run that is exported is one of the fresh ones, and nobody selected the configuration for its value."""
    first = frames("round-1", *[("quasi-random", 0.05 + 0.01 * place) for place in range(4)], ("quasi-random", 0.0302))
    wide = frames("round-1-wide-1", ("quasi-random", 0.02))
    twice = promoted((4, "fresh seeds", 0.046), (4, "fresh seeds", 0.039))
    found = headline(twice, [wide, first])
    assert found.words == (
        "0.0425, median of 2 fresh seeds (0.039 to 0.046); promoted because trial 4 of round-1 had 0.0302 (optimistic)"
    )
    assert (found.trial, found.selected_value, found.promoted_for) == (1, 0.039, EarlierRun("round-1", 4, 0.0302))
    once = headline(promoted((4, "fresh seeds", 0.046)), [first])
    assert once.words == "0.046, one fresh seed; promoted because trial 4 of round-1 had 0.0302 (optimistic)"
    assert headline(twice).words == "0.0425, median of 2 fresh seeds (0.039 to 0.046)", "of a shorter round"
    same = headline(promoted((4, "same seed", 0.031), (4, "fresh seeds", 0.04)), [first])
    assert same.words == "0.04, one fresh seed; the selected run had 0.031 (selected, so optimistic)"
    arm = frames("round-2", ("round-1 trial 4, fresh seeds, 0.5 x its rate", 0.04))
    assert headline(arm, [first]).words == "0.04, one fresh seed", "trial 4 had another rate"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_direction_decides(direction):
    round_2 = promoted((4, "fresh seeds", 0.5), (7, "fresh seeds", 0.6), direction=direction)
    assert headline(round_2).value == (0.5 if direction == "minimize" else 0.6)


def test_equal_medians_name_the_smaller_number():
    assert headline(promoted((7, "fresh seeds", 0.5), (4, "fresh seeds", 0.5))).trial == 0


def test_a_fresh_seed_that_did_not_complete_counts_nothing():
    found = headline(promoted((4, "same seed", 0.03), (4, "fresh seeds", None)))
    assert (found.kind, found.value) == (SELECTED, 0.03)


def test_fresh_seeds_of_a_contest_and_of_a_later_round_of_the_same_length_count():
    first = frames("round-1", ("quasi-random 0", 0.05), ("quasi-random 1", 0.03))
    contest = frames(
        "adopt", ("replicate of round-1/1", 0.04), ("replicate of round-1/0", 0.06), ("replicate of round-1/1", 0.05)
    )
    later = promoted((1, "fresh seeds", 0.042), (1, "same seed", 0.03), (0, "fresh seeds", 0.02))
    found = headline(first, [contest, later])
    assert (found.trial, found.value) == (1, 0.042), "0.04, 0.042, 0.05; the best trial stays the winner"
    assert [run.study for run in found.fresh] == ["adopt", "adopt", "round-2"]
    widened = frames("adopt", ("replicate of round-1-wide-1/1", 0.04))
    assert headline(first, [widened]).value == 0.04
    assert headline(first, [widened], trial=0).words == "0.05, one seed, selected as the best of 2: expect worse"


def test_without_a_complete_trial_there_is_no_headline():
    first = frames("round-1", ("quasi-random 0", 0.05), ("quasi-random 1", None))
    assert headline(replace(first, trials=first.trials.iloc[1:])) is None
    assert headline(first, trial=1) is None
