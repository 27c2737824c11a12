"""Where the step budget of a round comes from: each decider with the number and the sentence it gives."""

from dataclasses import replace

import pytest
from support.sessions import session_for
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, Sweep, constant_then_decay, log_grid, log_uniform
from tuner.errors import DeclarationError, StorageError
from tuner.records import Measurement, State, TrialUpdate
from tuner.records.conclusions import BudgetRecord, RegimeVerdict, SweepConclusion
from tuner.records.sweep_outcomes import Fitted, Invalid
from tuner.rounds.budgets import budget_of_round, likely_budget
from tuner.rounds.launch import started_study
from tuner.rounds.prepared_round import known_regime, prepared_round
from tuner.rounds.sweep import sweep_plan

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
SEARCH, FINAL = Round("which rate?", trials=4, space=SPACE), Round("final", promote=1)
SWEEP = Sweep(learning_rate=log_grid(1e-3, 1.0, per_decade=1), start_steps=100, max_steps=1600, margin=1.5)


def campaign(*rounds, **more):
    return Campaign(Tiny(), list(rounds or (SEARCH, FINAL)), schedule=constant_then_decay(0.2), evaluations=20, **more)


def sentence(session, number, regime="undecided"):
    budget = budget_of_round(session, number, regime)
    return budget.steps, budget.origin.sentence


def swept(session, outcome):
    """The session with a sweep that ended in `outcome`: its grid is planned, and every trial of it complete."""
    plan = sweep_plan(session.campaign, session.campaign.sweep)
    study = plan.study("sweep-1-grid", plan.budget(100), len(plan.rates))
    row = session.ledger.start_study(session.name, study, "code", trials=plan.trials(study, plan.rates))
    finish(session.ledger, row, lambda step: 1.0, "training/error_rate")
    session.ledger.conclude(session.name, SweepConclusion("sweep-1", session.campaign.sweep.margin, outcome))
    return session


def finish(ledger, row, value, metric="validation/loss"):
    """Every trial complete, with `value` of each of its evaluation steps."""
    steps = row.study.budget.evaluation_steps
    for claim in ledger.claim(row.study_id, worker="t", lease_seconds=1e6, max_trials=100):
        measured = [
            Measurement(step, metric, value(step) + 0.001 * claim.trial.number)
            for step in steps
        ]  # fmt: skip
        ledger.record([TrialUpdate(claim.trial_id, claim.fence, steps[-1], measured, None, State.COMPLETE)])


def first_round(session, steps, value):
    prepared = prepared_round(session, 1, steps)
    row = session.ledger.start_study(session.name, prepared.study, "code", trials=prepared.trials)
    finish(session.ledger, row, value)


def test_a_declared_length_is_declared(tmp_path):
    rounds = (replace(SEARCH, max_train_steps=300), FINAL)
    with session_for(campaign(*rounds), tmp_path) as session:
        assert sentence(session, 1) == (300, "declared in the study file")
        assert sentence(session, 1, "not_compute_bound") == (300, "declared in the study file")


def test_rounds_of_a_compute_bound_campaign_are_shares_of_the_production_length(tmp_path):
    with session_for(campaign(SEARCH, replace(FINAL, promote=2), FINAL, production_steps=10_000), tmp_path) as session:
        assert known_regime(session) == "compute_bound"
        assert [sentence(session, number, "compute_bound") for number in (1, 2, 3)] == [
            (1000, "10% of the production length of 10,000 steps (A30)"),
            (3163, "32% of the production length of 10,000 steps (A30)"),  # 1,000 times the root of 10
            (10_000, "100% of the production length of 10,000 steps (A30)"),
        ]


def test_the_first_round_takes_the_margin_times_the_steps_to_fit(tmp_path):
    with session_for(campaign(sweep=SWEEP), tmp_path) as session:
        swept(session, Fitted(0.1, 90, 100, 400, seed_steps=(100, 120, 160)))
        assert sentence(session, 1) == (180, "1.5 times the 120 steps to fit that the sweep found (A18)")
        assert budget_of_round(session, 1, "undecided").source == "sweep-1-grid"
        assert likely_budget(session).steps == 180


def test_a_sweep_without_a_number_gives_no_budget_and_says_where_to_look(tmp_path):
    with session_for(campaign(sweep=SWEEP), tmp_path) as session:
        swept(session, Invalid("upper", 1.0, 40, (0.1, 1.0, 10.0)))
        with pytest.raises(DeclarationError, match="the sweep gave no number of steps: `tuner sweep test` prints"):
            budget_of_round(session, 1, "undecided")


def test_before_the_sweep_a_plan_assumes_twice_its_first_length(tmp_path):
    with session_for(campaign(sweep=SWEEP), tmp_path) as session:
        likely = likely_budget(session)
        assert (likely.steps, likely.source) == (300, None)  # 1.5 times 2 times 100
        assert likely.origin.sentence == "assumed until the sweep has found the steps to fit"
        with pytest.raises(DeclarationError, match="round 1 has no step budget"):
            budget_of_round(session, 1, "undecided")


@pytest.mark.parametrize(
    ("value", "steps", "words"),
    [
        # Best at the last step for every trial: twice the steps decide whether more would be better.
        (lambda step: 1.0 - step / 1000, 1000, "maybe_too_short: 2 times the 500 steps decide it (A15)"),
        # Best at a fifth of the way: neither early nor late.
        (lambda step: abs(step - 100) / 100, 500, "ok: the same 500 steps"),
        # Best at step 50 for every trial: 2.5 times that, rounded up to two digits, is enough.
        (lambda step: abs(step - 50) / 100, 130, "too_long: 2.5 times the latest of the good best steps (A14)"),
    ],
)
def test_the_next_round_is_refined_from_the_best_steps_of_the_one_before(value, steps, words, tmp_path):
    with session_for(campaign(), tmp_path) as session:
        first_round(session, 500, value)
        budget = budget_of_round(session, 2, "not_compute_bound")
        assert words in budget.origin.sentence
        assert budget.origin.study == "round-1"
        assert budget.steps == steps


def test_a_round_needs_complete_trials_of_the_round_before(tmp_path):
    with (
        session_for(campaign(), tmp_path) as session,
        pytest.raises(StorageError, match="round 1 of 'test' has no complete trial"),
    ):
        budget_of_round(session, 2, "not_compute_bound")


def test_a_started_round_keeps_its_length_and_its_first_origin(tmp_path):
    with session_for(campaign(), tmp_path) as session:
        prepared = prepared_round(session, 1, 250)
        assert prepared.budget.origin.sentence == "given on the command line"
        kept = BudgetRecord(prepared.budget.origin, None, {"batch_size": "8"})
        row = session.ledger.start_study(session.name, prepared.study, "code", concluded=(kept,))
        assert sentence(session, 1) == (250, "as it was started")
        session.ledger.start_study(session.name, prepared.study, "code", concluded=(BudgetRecord(),))
        assert session.ledger.conclusion(session.name, BudgetRecord, row.study_id) == kept


def test_a_round_chosen_by_hand_still_names_the_round_before_as_its_source(tmp_path):
    """Its points come from there, so a change since then is worth a warning."""
    with session_for(campaign(), tmp_path) as session:
        first_round(session, 200, lambda step: 1.0 - step / 1000)
        prepared = prepared_round(session, 2, 400)
        assert (prepared.budget.steps, prepared.budget.source) == (400, "round-1")
        assert started_study(session, "round-2") is None, "nothing is written"


@pytest.mark.parametrize(
    ("declared", "concluded", "regime"),
    [
        ({}, None, "undecided"),
        ({}, "not_compute_bound", "not_compute_bound"),
        ({"production_steps": 1000}, "not_compute_bound", "compute_bound"),
        ({"regime": "not_compute_bound"}, "undecided", "not_compute_bound"),
        ({"production_steps": 1000, "sweep": SWEEP}, "undecided", "undecided"),
    ],
)
def test_the_regime_is_declared_or_concluded_or_undecided(declared, concluded, regime, tmp_path):
    with session_for(campaign(**declared), tmp_path) as session:
        if concluded:
            plan = prepared_round(session, 1, 100)
            session.ledger.start_study(session.name, plan.study, "code")
            session.ledger.conclude(session.name, RegimeVerdict(concluded, "undecided"))
        assert known_regime(session) == regime
