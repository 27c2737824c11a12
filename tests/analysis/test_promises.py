"""The checklist relies on nothing that the engine of a launch does not promise."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import METRIC, curve, frames_of_curves, planned, record, study

from tuner.analysis.checklist import checklist_findings
from tuner.analysis.finding import QUESTIONS
from tuner.analysis.frames import frames_of, promises_of
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.budget_curve import BudgetCurve, budget_curve_finding, curve_frame
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.regime import regime_finding
from tuner.budget.families import linear
from tuner.design.objective import minimize
from tuner.records.promises import EVERYTHING, Promises, common_promises, promises_from
from tuner.storage.studies import LaunchRow

OWN_RATES = replace(EVERYTHING, follows_schedule=False)
REASON = "the engine, not the study, decides the learning rate of each step"


def frames_by(promises, *, warmup=200):
    """Ten trials that improve until the end on both splits; best at the last step."""
    declared = study(schedule=linear(), warmup_steps=warmup)
    records = [
        planned(record(number), schedule=linear().schedule(declared.budget.max_train_steps, warmup))
        for number in range(10)
    ]
    at = declared.budget.evaluation_steps
    rng = np.random.default_rng(0)
    parts = [
        curve(number, at, (2.0 - np.array(at) / 1000 + rng.normal(0.0, 1e-3, len(at))).tolist(), metric)
        for number in range(10)
        for metric in ("training/loss", METRIC)
    ]
    return frames_of(declared, records, pd.concat(parts, ignore_index=True), promises)


def launch(**environment):
    return LaunchRow(1, 0.0, "tuner launch", {}, environment, "")


def test_a_launch_that_recorded_no_promises_was_made_by_our_own_trainer():
    assert launch().promises == EVERYTHING
    assert EVERYTHING.missing == ()


def test_what_a_launch_does_not_state_is_not_promised():
    assert launch(promises={"prefixes": True}).promises == Promises(prefixes=True)
    assert promises_from({"follows_schedule": "yes", "unknown": True}) == Promises()


@pytest.mark.parametrize("promises", [EVERYTHING, OWN_RATES, Promises(), Promises(deterministic=True)])
def test_promises_are_read_as_they_are_written(promises):
    assert promises_from(promises.to_data()) == promises


def test_a_study_keeps_only_what_all_its_launches_promised():
    assert common_promises([]) == EVERYTHING
    assert common_promises([EVERYTHING, OWN_RATES]) == OWN_RATES
    assert common_promises([Promises(prefixes=True), Promises(fusing=True)]) == Promises()
    launches = {1: [launch()], 2: [launch(), launch(promises=OWN_RATES.to_data())]}
    ledger = SimpleNamespace(launches=lambda study_id: launches[study_id])
    first, second = SimpleNamespace(study_id=1), SimpleNamespace(study_id=2)
    assert promises_of(ledger, [first]) == EVERYTHING
    assert promises_of(ledger, [first, second]) == OWN_RATES


def test_schedules_that_were_not_followed_are_not_known():
    assert len(frames_by(EVERYTHING).schedules) == 10
    assert frames_by(OWN_RATES).schedules == {}


def test_questions_that_need_the_schedule_stay_open_and_say_why():
    findings = {finding.question: finding for finding in checklist_findings(frames_by(OWN_RATES))}
    assert (findings["warmup"].verdict, findings["regime"].verdict) == ("inconclusive", "undecided")
    for name in ("warmup", "regime"):
        assert findings[name].strength == "none"
        assert REASON in findings[name].summary
        assert not findings[name].needs_action
    promised = {finding.question: finding for finding in checklist_findings(frames_by(EVERYTHING))}
    assert promised["warmup"].verdict == "ok"
    assert all(REASON not in finding.summary for finding in promised.values())


def test_the_regime_is_open_wherever_it_is_asked():
    assert regime_finding(frames_by(EVERYTHING)).verdict == "compute_bound"
    assert REASON in regime_finding(frames_by(OWN_RATES)).summary


def test_late_best_steps_are_a_weak_sign_where_the_rate_may_fall():
    for ask in (best_steps_finding, improvement_finding):
        found = ask(frames_by(OWN_RATES))
        assert found.strength == "weak"
        assert any("not known" in caveat for caveat in found.caveats)


def test_lengths_that_share_no_steps_are_compared_with_the_noise_of_both():
    lengths = np.array([200, 400, 600, 800, 1000])
    table = curve_frame(
        pd.DataFrame({"seed": 0, "length": lengths, "value": 1.0 + 30.0 / lengths, "steps": lengths, "inherited": 0})
    )
    shared = budget_curve_finding(BudgetCurve(minimize(METRIC), "round-1 trial 0", table))
    alone = budget_curve_finding(BudgetCurve(minimize(METRIC), "round-1 trial 0", table, shared=False))
    assert "share their steps before the decay" in shared.caveats[0]
    assert "has the noise of both" in alone.caveats[0]
    assert alone.verdict == shared.verdict


def test_records_rely_on_promises_that_exist():
    for question in QUESTIONS:
        assert set(question.relies_on) <= set(EVERYTHING.to_data()), question.name
        assert not question.relies_on or any(one.tone == "open" for one in question.verdicts)


def test_frames_without_a_ledger_rely_on_our_own_trainer():
    assert frames_of_curves(study(), [[0.5] * 50]).promises == EVERYTHING


def test_where_the_rates_are_not_known_no_table_says_what_lies_in_a_warmup():
    known, unknown = (best_steps_finding(frames_by(given)) for given in (EVERYTHING, OWN_RATES))
    assert "in_warmup" in known.evidence
    assert [*unknown.evidence] == [name for name in known.evidence if name != "in_warmup"]
