"""An engine of another kind trains a study through the supervisor, a real Ledger and the report."""

import logging
from dataclasses import replace

import pytest
from support.loaded import loaded, train
from support.slope import SlopeEngine, value_at
from support.tiny import Tiny, setting_for, tiny_study

from tuner.execution.replay import replayed
from tuner.records import Promises, State
from tuner.records.conclusions import FusionChoices
from tuner.report.page import write_report
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger
from tuner.training.alone import Alone
from tuner.training.supervisor import Supervisor

STUDY = tiny_study(num_trials=3, keep_best=2)
LAST, EVERY = 24, 5


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(str(tmp_path / "ledger.sqlite")) as opened:
        yield opened


def planned(ledger, study=STUDY):
    """A study in the Ledger with its trials."""
    row = ledger.start_study("tiny", study, "by hand")
    ledger.plan_trials(row.study_id, planned_trials(study))
    return row


def claimed(ledger, row):
    return ledger.claim(row.study_id, worker="test:0:0", lease_seconds=600)


class StopAtUpdate:
    def __init__(self, update):
        self.left = update

    def __call__(self):
        self.left -= 1
        return self.left < 0


def values_of(ledger, row, number):
    stored = ledger.measurements(row.study_id)
    columns = zip(stored.trial_numbers, stored.steps, stored.metrics, stored.values, strict=True)
    return {
        step: value for trial, step, metric, value in columns if (trial, str(metric)) == (number, "validation/loss")
    }


def test_a_study_is_trained_stopped_resumed_and_reported(ledger, tmp_path):
    row = planned(ledger)
    assert all(trial.pins for trial in planned_trials(STUDY)), "a trunk before the decay is asked for"
    setup = setting_for(STUDY, tmp_path / "checkpoints")
    stopped = replace(setup, stop=StopAtUpdate(13))
    (claim,) = claimed(ledger, row)
    (update,) = Supervisor(SlopeEngine(stopped), ledger).train([claim])
    assert (update.state, update.step) == (State.RUNNING, 13)
    ledger.release([claim])
    while claims := claimed(ledger, row):
        assert claims[0].first_step == (13 if claims[0].trial.number == claim.trial.number else 0)
        (update,) = Supervisor(SlopeEngine(setup), ledger).train(claims)
        assert (update.state, update.step) == (State.COMPLETE, LAST)
    for record in ledger.trials(row.study_id):
        rate = record.point.number("learning_rate")
        by_hand = {step: value_at(rate, step) for step in (5, 10, 15, 20, LAST)}
        assert values_of(ledger, row, record.number) == pytest.approx(by_hand, rel=1e-9)
        kept = sorted((one.kind, one.step) for one in record.checkpoints)
        assert kept == [("best", 20), ("best", LAST), ("latest", LAST)], "two best, one latest, and no trunk"
        assert all(one.prefix is None for one in record.checkpoints), "no other trial may start from it"
        assert not record.exact
    named = {one.file for record in ledger.trials(row.study_id) for one in record.checkpoints}
    files = {str(path.relative_to(setup.checkpoint_root)) for path in setup.checkpoint_root.rglob("*.*")}
    assert files == named
    write_report(ledger, "tiny", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 trials trained under more than one set of Numerics" in page


def test_a_place_that_is_lost_ends_its_trial(ledger, tmp_path):
    row = planned(ledger)
    claim = claimed(ledger, row)[0]
    engine = SlopeEngine(setting_for(STUDY, tmp_path / "checkpoints"))
    lost = engine.trainee(claim.trial)
    lost.place = float("inf")
    engine.trainee = lambda trial: lost
    (update,) = Supervisor(engine, ledger).train([claim])
    assert (update.state, update.reason) == (State.INFEASIBLE, "diverged at step 5: the place is lost")
    assert ledger.trials(row.study_id)[claim.trial.number].state is State.INFEASIBLE


def test_the_backend_relies_on_nothing_that_is_not_promised(ledger, tmp_path, caplog):
    here, again = loaded(Tiny(), tmp_path / "checkpoints", fuse="auto", device="cpu"), replace(STUDY, name="again")
    train(here, ledger, planned(ledger))
    assert here.saved_steps(ledger, again, planned_trials(STUDY)) == [LAST] * 3, "another torch trial would inherit all"
    row = planned(ledger, again)
    with caplog.at_level(logging.WARNING):
        train(here, ledger, row, engine=SlopeEngine)
    records = ledger.trials(row.study_id)
    assert [record.state for record in records] == [State.COMPLETE] * 3
    assert [record.inherited.steps for record in records] == [0, 0, 0], "no prefix was offered"
    assert ledger.conclusion("tiny", FusionChoices, row.study_id) is None, "trials were trained one by one"
    assert caplog.records == []


def test_a_replay_tells_what_the_engine_does_not_promise(ledger, tmp_path):
    row, told = planned(ledger), []
    train(loaded(Tiny(), tmp_path / "checkpoints", device="cpu"), ledger, row, engine=SlopeEngine)
    replay = replayed(ledger, row, 0, Tiny(), device="cpu", engine=SlopeEngine, tell=told.append)
    assert replay.different == 0
    assert "not promised: the same seeds may give other curves" in told


def test_what_is_not_stated_is_not_promised(tmp_path):
    assert len(Promises().missing) == 5
    assert Alone(setting_for(STUDY, tmp_path)).promises.missing == ()
