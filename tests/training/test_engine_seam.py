"""An engine of another kind trains a study through the supervisor, a real Ledger and the report."""

import logging
from dataclasses import replace

import pytest
from support.loaded import loaded, train
from support.slope import SlopeEngine, value_at
from support.tiny import Tiny, setting_for, tiny_study

from tuner import Campaign, Round, SearchSpace, log_uniform
from tuner.cli.exit_codes import Exit
from tuner.cli.storage_options import VerifyOptions
from tuner.cli.upkeep import verify
from tuner.execution.inspection import inspect
from tuner.execution.replay import replayed
from tuner.execution.workers import Remaining, best_worker_count, priced_work
from tuner.records import Price, Promises, State
from tuner.records.conclusions import FusionChoices
from tuner.report.page import write_report
from tuner.rounds.launch import Session, launch_study, plan_study
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
    assert "3 trials trained under more than one set of Numerics" in page, "no launch recorded what is promised"


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
    root, again = tmp_path / "checkpoints", replace(STUDY, name="again")
    here, slopes = (loaded(Tiny(), root, fuse="auto", device="cpu", engine=engine) for engine in (Alone, SlopeEngine))
    train(here, ledger, planned(ledger))
    assert here.saved_steps(ledger, again, planned_trials(STUDY)) == [LAST] * 3, "another torch trial would inherit all"
    assert slopes.saved_steps(ledger, again, planned_trials(STUDY)) == [0] * 3
    row = planned(ledger, again)
    with caplog.at_level(logging.WARNING):
        train(slopes, ledger, row)
    records = ledger.trials(row.study_id)
    assert [record.state for record in records] == [State.COMPLETE] * 3
    assert [record.inherited.steps for record in records] == [0, 0, 0], "no prefix was offered"
    assert ledger.conclusion("tiny", FusionChoices, row.study_id) is None, "trials were trained one by one"
    assert caplog.records == []


class Modelless(Tiny):
    def model(self, point):
        raise AssertionError("a model was asked for")


def session_of(ledger, tmp_path, workload, **options):
    first = Round("downhill", trials=3, max_train_steps=LAST, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))
    here = loaded(workload, tmp_path / "checkpoints", device="cpu", engine=SlopeEngine, **options)
    return Session("tiny", Campaign(workload, rounds=[first]), ledger, here)


def test_a_dry_plan_has_the_price_of_the_engine_and_asks_for_no_model(ledger, tmp_path):
    session = session_of(ledger, tmp_path, Modelless(), fuse="auto")
    plan = plan_study(session, STUDY, planned_trials(STUDY))
    assert plan.price == Price(step_ms=2.0, evaluation_ms=30.0, latest_bytes=24, best_bytes=8)
    assert plan.seconds == pytest.approx(3 * (LAST * 0.002 + 5 * 0.03))
    assert plan.saved_steps == 0
    looked = inspect(session.loaded, STUDY, planned_trials(STUDY), fusion=True)
    assert looked.fusion.reason == "the engine of this study trains each trial for itself"
    job = session.job(planned(ledger))
    assert priced_work(job, session.loaded.engine_for(STUDY)) == Remaining(3, pytest.approx(plan.seconds))
    assert best_worker_count(job) == 1, "trials of a second pay for no second process"


def test_a_study_is_launched_reported_and_verified(ledger, tmp_path, capsys):
    session = session_of(ledger, tmp_path, Tiny())
    row = launch_study(session, STUDY, planned_trials(STUDY))
    records = ledger.trials(row.study_id)
    assert [record.state for record in records] == [State.COMPLETE] * 3
    for record in records:
        rate = record.point.number("learning_rate")
        assert values_of(ledger, row, record.number)[LAST] == pytest.approx(value_at(rate, LAST), rel=1e-9)
    assert [launch.promises for launch in ledger.launches(row.study_id)] == [Promises()]
    write_report(ledger, "tiny", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "more than one set of Numerics" not in page
    assert "3 trials trained by an engine that does not promise exact resume" in page
    assert "It is not exact: it was trained by an engine that does not promise exact resume" in page
    assert verify(VerifyOptions(study="tiny", storage=str(ledger.file), checkpoints=None)) is Exit.FINE
    told = capsys.readouterr()
    assert "the curves of round-1 cannot be compared bit for bit" in told.out + told.err


def test_a_replay_tells_what_the_engine_does_not_promise(ledger, tmp_path):
    row, told = planned(ledger), []
    train(loaded(Tiny(), tmp_path / "checkpoints", device="cpu", engine=SlopeEngine), ledger, row)
    replay = replayed(ledger, row, 0, Tiny(), device="cpu", engine=SlopeEngine, tell=told.append)
    assert replay.different == 0
    assert told[1:] == [
        "not promised: a resumed trial may differ from one that ran through; the same seeds may give other curves"
    ], "and not that it was trained under more than one set of Numerics; it was planned by hand, which comes first"


def test_what_is_not_stated_is_not_promised(tmp_path):
    assert len(Promises().missing) == 5
    assert Alone(setting_for(STUDY, tmp_path)).promises.missing == ()
