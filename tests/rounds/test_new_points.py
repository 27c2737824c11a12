"""A round that promotes points and searches around the winner: its trials, their schedules and seeds."""

import pytest
from support.sessions import session_for
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, choice, constant_then_decay, log_uniform, uniform
from tuner.design.origin import promoted_from
from tuner.records import Measurement, State, TrialUpdate
from tuner.rounds.launch import started_study
from tuner.rounds.prepared_round import prepared_round

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-3, 1e-1),
    activation=choice("relu", "tanh", family="architecture"),
)
LATER = Round("Refine at a third of the length", promote=2, trials=5)


def campaign(space=SPACE, later=LATER):
    rounds = [Round("Which rate?", trials=8, space=space), later, Round("final", promote=1)]
    return Campaign(Tiny(), rounds, production_steps=1000, schedule=constant_then_decay(0.2), evaluations=20)


def finish(ledger, row, value):
    """Every trial complete with `value` of its point at the end, as if it had been trained."""
    last = row.study.budget.max_train_steps
    while claims := ledger.claim(row.study_id, worker="t", lease_seconds=1e6, max_trials=100):  # a shape group at once
        ledger.record([
            TrialUpdate(claim.trial_id, claim.fence, last,
                        [Measurement(last, "validation/loss", value(claim.trial.point))], None, State.COMPLETE)
            for claim in claims
        ])  # fmt: skip


@pytest.fixture
def prepared(tmp_path):
    """Round 1 of a campaign, finished: tanh is far worse than relu, and small rates are best."""

    def make(declared):
        with session_for(declared, tmp_path) as session:
            first = prepared_round(session, 1)
            row = session.ledger.start_study(session.name, first.study, "code")
            session.ledger.plan_trials(row.study_id, first.trials)
            finish(
                session.ledger,
                started_study(session, "round-1"),
                lambda p: p["learning_rate"] + 9 * (p["activation"] == "tanh"),
            )
            return first, prepared_round(session, 2)

    return make


def test_winner_and_control_are_trained_beside_new_points_around_the_winner(prepared):
    first, second = prepared(campaign())
    origins = [promoted_from(trial.origin) for trial in second.trials]
    assert [origin and origin.seeds for origin in origins] == ["same", "same", "fresh", "fresh"] + [None] * 5
    winner, rival = (first.trials[origin.trial].point for origin in origins[:2])
    assert winner["activation"] == "relu"
    assert rival["activation"] == "tanh", "the control is the best of the other architecture, however far behind"
    assert dict(second.study.fixed)["activation"].value == "relu", "fixed, and confirmed by the control"
    (rate,) = second.study.hyperparameters
    for trial in second.trials[4:]:
        assert rate.domain.low <= trial.point["learning_rate"] <= rate.domain.high
        assert trial.point["activation"] == "relu"
    assert (rate.domain.high / rate.domain.low) == pytest.approx(100 ** (1 / 3))
    assert [trial.number for trial in second.trials] == list(range(9))


def test_new_points_have_the_schedule_they_would_have_had_carried_over(prepared):
    """100 steps with a decay of 20, then 317 with the same 20 (A41)."""
    _, second = prepared(campaign())
    assert second.study.budget.max_train_steps == 317
    assert {trial.schedule for trial in second.trials} == {constant_then_decay(20).schedule(317)}


def test_a_schedule_that_was_searched_is_tuned_again_at_the_new_length(prepared):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), decay_fraction=uniform(0.1, 0.9), activation="relu")
    _, second = prepared(campaign(space))
    assert [h.name for h in second.study.hyperparameters] == ["learning_rate", "decay_fraction"]
    assert second.study.space["decay_fraction"] == space["decay_fraction"]
    for trial in second.trials[-5:]:
        assert trial.schedule == constant_then_decay(trial.point["decay_fraction"]).schedule(317)


def test_without_trials_only_promoted_points_are_trained(prepared):
    _, second = prepared(campaign(later=Round("refine", promote=2, fresh=0)))
    assert len(second.trials) == 2
    assert second.study.space == SPACE
