"""A warmup that is declared as a share becomes steps at round 1, and later rounds keep those steps (C9, D18)."""

from dataclasses import replace

import pytest
from support.sessions import session_for
from support.tiny import Tiny
from torch import nn

from tuner import Campaign, Round, SearchSpace, Sweep, cosine, log_grid, log_uniform
from tuner.errors import DeclarationError, StudyChanged
from tuner.records import Measurement, State, TrialUpdate
from tuner.rounds.launch import Plan
from tuner.rounds.prepared_round import prepared_round
from tuner.rounds.price import priced_campaign
from tuner.rounds.round_lengths import check_transfer

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
ROUNDS = [
    Round("which rate?", trials=3, space=SPACE),
    Round("which rate is best for longer?", trials=3, space=SPACE),
    Round("final", promote=1),
]


class Plain(Tiny):
    """Without dropout, so that a sweep takes it."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))


def campaign(**more):
    declared = {"rounds": ROUNDS, "production_steps": 1000, "schedule": cosine(), "evaluations": 20, "warmup": 0.05}
    return Campaign(Plain(), **declared | more)


def trained(session, number, steps=None):
    """A round as if it had been trained, higher rates being better."""
    prepared = prepared_round(session, number, steps)
    row = session.ledger.start_study(session.name, prepared.study, "code", trials=prepared.trials)
    last = prepared.study.budget.max_train_steps
    while claims := session.ledger.claim(row.study_id, worker="t", lease_seconds=1e6, max_trials=100):
        session.ledger.record([
            TrialUpdate(
                claim.trial_id, claim.fence, last,
                [Measurement(last, "validation/loss", 1 - claim.trial.point["learning_rate"])], None, State.COMPLETE,
            )
            for claim in claims
        ])  # fmt: skip
    return prepared


def test_later_rounds_keep_the_steps_of_round_1_and_never_the_share(tmp_path):
    with session_for(campaign(), tmp_path) as session:
        rounds = [trained(session, number) for number in (1, 2, 3)]
    assert [one.study.budget.max_train_steps for one in rounds] == [100, 317, 1000]
    assert [one.study.warmup_steps for one in rounds] == [5, 5, 5], "5 % of 100 steps"
    assert {trial.schedule.warmup_steps for one in rounds for trial in one.trials} == {5}
    first, final = rounds[0].trials[0].schedule, rounds[2].trials[0].schedule
    assert final.fractions()[:5] == first.fractions()[:5]
    assert final == cosine().schedule(1000, 5)


def test_the_share_is_of_the_steps_that_round_1_really_has(tmp_path):
    with session_for(campaign(), tmp_path) as session:
        assert trained(session, 1, 200).study.warmup_steps == 10
        assert prepared_round(session, 2).study.warmup_steps == 10, "not 5 % of the 100 steps that were planned"


def test_a_launch_that_is_repeated_has_the_same_warmup_and_a_changed_share_is_refused(tmp_path):
    with session_for(campaign(), tmp_path) as session:
        first = trained(session, 1)
        assert prepared_round(session, 1).study == first.study
        other = replace(session, campaign=campaign(warmup=0.1))
        changed = prepared_round(other, 1).study
        with pytest.raises(StudyChanged, match="warmup_steps: was 5, is now 10"):
            session.ledger.start_study(session.name, changed, "code")


def test_a_share_and_its_steps_are_the_same_study(tmp_path):
    with session_for(campaign(), tmp_path) as session:
        share = prepared_round(session, 1).study
        in_steps = replace(session, campaign=campaign(warmup=None, warmup_steps=5))
        assert prepared_round(in_steps, 1).study == share


def test_a_round_that_is_launched_before_round_1_takes_the_declared_steps_of_round_1(tmp_path):
    rounds = [replace(ROUNDS[0], max_train_steps=100), replace(ROUNDS[1], max_train_steps=400)]
    with session_for(campaign(rounds=rounds, production_steps=None), tmp_path) as session:
        assert prepared_round(session, 2).study.warmup_steps == 5
    rounds[0] = ROUNDS[0]
    swept = Sweep(learning_rate=log_grid(1e-3, 1.0, per_decade=1), start_steps=100, max_steps=800)
    with (
        session_for(campaign(rounds=rounds, production_steps=None, sweep=swept), tmp_path / "swept") as session,
        pytest.raises(DeclarationError, match="round 1 has no step budget"),
    ):
        prepared_round(session, 2)


def test_what_a_dry_run_prices_has_the_warmup_of_round_1_in_every_round(tmp_path):
    swept = Sweep(learning_rate=log_grid(1e-3, 1.0, per_decade=1), start_steps=100, max_steps=800, seeds=1)
    rounds = [ROUNDS[0], replace(ROUNDS[1], max_train_steps=1200), ROUNDS[2]]
    with session_for(campaign(rounds=rounds, production_steps=None, sweep=swept), tmp_path) as session:
        plans = [line for line in priced_campaign(session) if isinstance(line, Plan)]
    found = [(plan.study.name, plan.study.budget.max_train_steps, plan.study.warmup_steps) for plan in plans]
    assert found[0][2] == 0, "a sweep trains at constant rates from its first step"
    assert found[2:] == [("round-1", 400, 20), ("round-2", 1200, 20), ("round-3", 1200, 20)]


@pytest.mark.parametrize(("warmup", "noted"), [(0.1, False), (0.11, True), (0.2, True)])
def test_a_warmup_of_more_than_a_tenth_is_noted(tmp_path, warmup, noted):
    with session_for(campaign(warmup=warmup), tmp_path) as session:
        warnings = [one for one in prepared_round(session, 1).warnings if "warmup" in one]
    assert bool(warnings) == noted
    if noted:
        assert f"the warmup of {100 * warmup:.0f} steps is {warmup:.0%} of round-1; above 10% little is" in warnings[0]


def test_a_long_warmup_in_steps_is_noted_too(tmp_path):
    with session_for(campaign(warmup=None, warmup_steps=30), tmp_path) as session:
        assert any("the warmup of 30 steps is 30%" in one for one in prepared_round(session, 1).warnings)


def test_the_rule_of_a_schedule_is_looked_for_with_a_share_too():
    check_transfer(campaign())
