"""A round that is no longer than the one before trains fresh seeds only: the same seeds would repeat what is known."""

from dataclasses import replace

import pytest
from rounds.test_new_points import finish
from support.sessions import session_for
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, constant_then_decay, cosine, log_uniform
from tuner.analysis.headline import EarlierRun
from tuner.design.origin import promoted_from
from tuner.reading import load
from tuner.rounds.launch import started_study
from tuner.rounds.prepared_round import prepared_round
from tuner.rounds.promotion import most_promoted


def campaign(steps, later, schedule=None):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    first = Round("Which rate?", trials=6, space=space, max_train_steps=100)
    schedule = schedule or constant_then_decay(0.2)
    return Campaign(Tiny(), [first, replace(later, max_train_steps=steps)], schedule=schedule, evaluations=20)


def second_round(folder, declared):
    """Round 2 as it is prepared, after a round 1 in which the smallest rates are best; and round 1."""
    with session_for(declared, folder) as session:
        first = prepared_round(session, 1)
        row = session.ledger.start_study(session.name, first.study, "code")
        session.ledger.plan_trials(row.study_id, first.trials)
        finish(session.ledger, started_study(session, "round-1"), lambda point: point["learning_rate"])
        return first, prepared_round(session, 2)


def origins(prepared):
    return [promoted_from(trial.origin) for trial in prepared.trials]


@pytest.mark.parametrize(("fresh", "count"), [(None, 5), (0, 3), (3, 6)])
def test_every_promoted_point_has_a_fresh_seed_and_the_first_ones_a_second(tmp_path, fresh, count):
    later = Round("final", promote=3, fresh=fresh)
    first, second = second_round(tmp_path, campaign(100, later))
    found = origins(second)
    assert [origin.seeds for origin in found] == ["fresh"] * count
    assert count == most_promoted(later) == second.study.num_trials, "as many as were priced"
    parents = [origin.trial for origin in found]
    assert parents == (parents[:3] * 2)[:count]
    seeds = {trial.seed for trial in second.trials}
    assert len(seeds) == count
    assert not seeds & {trial.seed for trial in first.trials}
    assert not {trial.data_seed for trial in second.trials} & {trial.data_seed for trial in first.trials}
    assert any("all its trials have fresh seeds" in warning for warning in second.warnings)


def test_a_longer_round_goes_on_from_the_trunks_as_before(tmp_path):
    later = Round("final", promote=2, transfer="hold_then_decay")
    _, second = second_round(tmp_path, campaign(200, later))
    assert [origin.seeds for origin in origins(second)] == ["same", "same", "fresh", "fresh"]
    assert second.warnings == ()


def test_a_cosine_has_no_trunk_and_one_fresh_seed_each_whatever_the_length(tmp_path):
    _, second = second_round(tmp_path, campaign(100, Round("final", promote=2), schedule=cosine()))
    assert {origin.seeds for origin in origins(second)} == {"fresh"}


def test_a_round_that_was_started_with_the_same_seeds_goes_on_with_them(tmp_path):
    """As versions before planned it."""
    declared = campaign(100, Round("final", promote=2))
    first, second = second_round(tmp_path, declared)
    parents = {trial.number: trial for trial in first.trials}
    before = [
        replace(
            trial,
            origin=trial.origin.replace("fresh seeds", "same seed") if trial.number < 2 else trial.origin,
            seed=parents[promoted_from(trial.origin).trial].seed if trial.number < 2 else trial.seed,
        )
        for trial in second.trials
    ]
    with session_for(declared, tmp_path) as session:
        row = session.ledger.start_study(session.name, second.study, "code")
        session.ledger.plan_trials(row.study_id, before)
        again = prepared_round(session, 2)
    assert [trial.origin for trial in again.trials] == [trial.origin for trial in before]
    assert [trial.seed for trial in again.trials] == [trial.seed for trial in before]
    assert again.warnings == ()


def test_the_winner_is_told_by_its_fresh_seeds_and_the_value_that_promoted_it(tmp_path):
    """In round 1 a value is the rate; every fresh seed gives 1 more."""
    declared = campaign(100, Round("final", promote=2))
    first, second = second_round(tmp_path, declared)
    with session_for(declared, tmp_path) as session:
        row = session.ledger.start_study(session.name, second.study, "code")
        session.ledger.plan_trials(row.study_id, second.trials)
        finish(session.ledger, started_study(session, "round-2"), lambda point: 1 + point["learning_rate"])
    found = load("test", str(tmp_path / "ledger.sqlite")).best().headline
    best = min(first.trials, key=lambda trial: trial.point["learning_rate"])
    rate = best.point["learning_rate"]
    assert (found.value, found.promoted_for) == (1 + rate, EarlierRun("round-1", best.number, rate))
