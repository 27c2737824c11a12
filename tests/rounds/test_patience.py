"""A last round with early stopping as it is planned: its study, what is noted, and what comes from its trials."""

import pytest
from support.sessions import session_for
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, constant_then_decay, log_uniform
from tuner.errors import DeclarationError
from tuner.rounds.curve_stages import curve_stages
from tuner.rounds.launch import plan_study
from tuner.rounds.prepared_round import launch_prepared, prepared_round
from tuner.rounds.price import priced_campaign
from tuner.rounds.round_lengths import declaration_words, planned_rounds, rounds_for
from tuner.rounds.stability_stages import AskedStability, StabilityPlan

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))


def campaign(patience):
    rounds = [
        Round("Which rate?", trials=2, space=SPACE),
        Round("The final model", promote=1, patience_steps=patience),
    ]
    schedule = constant_then_decay(0.25)
    return Campaign(Tiny(), rounds, schedule=schedule, name="test", production_steps=400, evaluations=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("patience")
    with session_for(campaign(20), made) as session:
        launch_prepared(session, prepared_round(session, 1))
    return made


@pytest.mark.parametrize(
    ("patience", "noted"),
    [
        (20, "may stop trials of round-2 while their learning rate is still constant, which it is for 390 steps"),
        (400, "stops no trial of round-2, which trains 400 steps"),
        (395, ""),
        (None, ""),
    ],
)
def test_a_patience_that_stops_too_early_or_never_is_noted(patience, noted, folder):
    with session_for(campaign(patience), folder) as session:
        made = prepared_round(session, 2)
        assert made.study.patience_steps == (patience or 0)
        told = [warning for warning in made.warnings if "patience_steps" in warning]
        assert [noted in one for one in told] == [True] * bool(noted), told
        plan = plan_study(session, made.study, made.trials)
        assert bool(plan.at_most) == bool(patience)
        assert plan.steps == len(made.trials) * 400 - plan.saved_steps, "a limit: as if nothing stopped"


def test_a_patience_below_the_distance_is_found_where_the_length_is_known_late(folder):
    """On the command line the round gets more steps than it declares, and so a longer way between evaluations."""
    told = "patience_steps=20 of round 2 is less than the 50 steps between"
    with session_for(campaign(20), folder) as session, pytest.raises(DeclarationError, match=told):
        prepared_round(session, 2, 1000)


def test_a_dry_run_before_anything_is_trained_knows_it(tmp_path):
    with session_for(campaign(20), tmp_path) as session:
        assert [plan.study.patience_steps for plan in priced_campaign(session)] == [0, 20]


def test_planned_rounds_keep_the_word():
    declared = campaign(20)
    assert [one.patience for one in planned_rounds(declared)] == [0, 20]
    assert (
        declaration_words(planned_rounds(declared)[1]) == "promote=1, fresh=1, patience_steps=20, max_train_steps=400"
    )
    assert [one.patience for one in rounds_for(declared, 5_000)] == [0, 20]
    assert [one.patience for one in rounds_for(declared, 5_000, 1)] == [0], "a search alone"


def test_a_budget_curve_and_a_stability_study_of_such_a_trial_train_their_lengths_whole(folder):
    with session_for(campaign(20), folder) as session:
        row = launch_prepared(session, prepared_round(session, 2))
        record = session.ledger.trial(row.study_id, 0)
        assert row.study.patience_steps == 20
        stages = curve_stages(row, record, (400, 300, 200, 100), 1)
        assert {stage.study.patience_steps for stage in stages} == {0}
        asked = StabilityPlan(row, record, AskedStability())
        assert asked.rates_stage().study.patience_steps == 0
        assert asked.warmup_stage(10, 2.0).study.patience_steps == 0
