"""A trial stops early where its curve says, by hand: alone, stopped and resumed anywhere, and started elsewhere."""

from dataclasses import replace

import pytest
from support.fusing import meaning, trained_alone
from support.prefixes import bench
from support.stopping import Passing, passing_study
from support.tiny import MemoryRecorder, StopAt, setting_for, train_alone

from tuner.budget.step_budget import StepBudget
from tuner.design.points import Point
from tuner.records import STOPPED_EARLY, State
from tuner.rounds.plan import trial_at


def trial_of(study, rate, number=0):
    return trial_at(study, number, Point.of({"learning_rate": rate}), "by hand")


@pytest.mark.parametrize(
    ("rate", "patience", "best", "stop"),
    [
        (0.01, 10, 10, 20),  # TARGET / rate = 12: distances 0.07 at 5, 0.02 at 10, 0.03 at 15
        (0.01, 11, 10, 25),
        (0.01, 5, 10, 15),
        (0.006, 15, 20, 35),  # TARGET / rate = 20
        (0.0024, 10, 50, 60),  # the last step: nothing is early about it
        (0.001, 10, 60, 60),
    ],
)
def test_a_trial_stops_where_its_planted_curve_says(rate, patience, best, stop, tmp_path):
    study = passing_study(patience)
    recorder, trial = MemoryRecorder(), trial_of(study, rate)
    update = train_alone(setting_for(study, tmp_path, Passing()), recorder, recorder.claim(trial))
    early = f"{STOPPED_EARLY} at step {stop}: validation/distance was best at step {best} (patience_steps={patience})"
    assert (update.state, update.step) == (State.COMPLETE, stop)
    assert update.reason == (early if stop < 60 else "")
    assert {step for step, _ in recorder.measurements} == set(range(5, stop + 1, 5)), "nothing after the stop"
    assert [kept.step for kept in recorder.checkpoints if kept.kind == "best"] == [best]
    assert [kept.step for kept in recorder.checkpoints if kept.kind == "latest"] == [stop]


def test_without_patience_every_trial_trains_all_steps(tmp_path):
    study = passing_study(0)
    recorder = MemoryRecorder()
    update = train_alone(setting_for(study, tmp_path, Passing()), recorder, recorder.claim(trial_of(study, 0.01)))
    assert (update.state, update.step, update.reason) == (State.COMPLETE, 60, "")


@pytest.mark.parametrize("commit_seconds", [1e9, 0.0])
def test_a_trial_that_is_resumed_anywhere_stops_at_the_same_step_with_the_same_bits(commit_seconds, tmp_path):
    study = passing_study(12)
    trial = trial_of(study, 0.01)
    whole = trained_alone(setting_for(study, tmp_path / "whole", Passing()), [trial])
    assert whole.of(trial)[-1].step == 25, "best at 10; at 20 it is 10 steps later, at 25 it is 15"
    for stop in range(25):  # at 22 it is 12 steps after the best, and nothing is evaluated there
        folder = tmp_path / str(stop)
        changes = {"workload": Passing(), "commit_seconds": commit_seconds}
        recorder = trained_alone(setting_for(study, folder, stop=StopAt(stop + 1), **changes), [trial])
        assert recorder.state(trial) is State.RUNNING
        trained_alone(setting_for(study, folder, **changes), [trial], recorder)
        assert meaning(recorder, folder, trial) == meaning(whole, tmp_path / "whole", trial), f"stopped at step {stop}"


@pytest.mark.parametrize(("trunk", "inherited"), [(10, 10), (20, 20), (30, 0)])
def test_steps_that_a_trial_would_not_have_trained_are_not_inherited(trunk, inherited, tmp_path):
    """The curve is best at 10 and stops at 20: a trunk beyond has steps that the trial has not."""
    whole = passing_study(0)
    stopping = passing_study(10, name="round-2", round=2)
    with bench(tmp_path / "alone", Passing()) as alone:
        row = alone.train(stopping, [trial_of(stopping, 0.01)])
        expected = alone.meaning(row, 0)
        assert expected[1] == 20
    with bench(tmp_path / "shared", Passing()) as shared:
        first = trial_of(whole, 0.01)
        shared.train(whole, [replace(first, pins=(trunk,))])
        same = replace(trial_of(stopping, 0.01), seed=first.seed, data_seed=first.data_seed)
        row = shared.train(stopping, [same])
        assert shared.inherited(row) == [inherited]
        assert shared.meaning(row, 0)[1:] == expected[1:]
        assert shared.ledger.trial(row.study_id, 0).stopped_early


def test_a_longer_trial_goes_on_from_one_that_stopped_early_with_the_bits_of_its_own(tmp_path):
    """What it trained is what any trial trains that begins so: a source up to its step, and never beyond."""
    stopping = passing_study(10)
    long = passing_study(0, name="round-2", round=2)
    trial = trial_of(stopping, 0.01)
    with bench(tmp_path / "alone", Passing()) as alone:
        expected = alone.meaning(alone.train(long, [trial]), 0)
    with bench(tmp_path / "shared", Passing()) as shared:
        shared.train(stopping, [trial])
        row = shared.train(long, [trial])
        assert shared.inherited(row) == [20]
        assert shared.meaning(row, 0) == expected


def test_evaluations_at_two_distances_are_counted_in_steps(tmp_path):
    study = passing_study(10, budget=StepBudget(12, 2).lengthened_to(StepBudget(60, 10)))
    recorder = MemoryRecorder()
    update = train_alone(setting_for(study, tmp_path, Passing()), recorder, recorder.claim(trial_of(study, 0.02)))
    assert update.step == 20, "best at 6; 12 is 6 steps later, 20 the first evaluation that is 10 or more later"


class NeverFinite(Passing):
    """Its metric has no value, ever."""

    def metrics(self, model, batch):
        return {"distance": super().metrics(model, batch)["distance"] * float("inf")}


def test_a_metric_without_any_value_is_no_early_stop(tmp_path):
    study = passing_study(10)
    recorder = MemoryRecorder()
    update = train_alone(setting_for(study, tmp_path, NeverFinite()), recorder, recorder.claim(trial_of(study, 0.01)))
    assert update.state is State.INFEASIBLE
    assert not update.reason.startswith(STOPPED_EARLY)
