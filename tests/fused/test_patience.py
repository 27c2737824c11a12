"""Trials of a group stop early one by one, each at its own step, with the bits of each alone."""

import pytest
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.stopping import Passing, passing_study
from support.tiny import StopAt, Tiny, setting_for, tiny_study

from tuner.design.points import Point
from tuner.records import State
from tuner.rounds.plan import planned_trials, trial_at

RATES = (0.01, 0.006, 0.001, 0.004)  # best at 12, 20, beyond the end, 30
STEPS = [20, 30, 60, 40]


def trials_of(study):
    return [trial_at(study, number, Point.of({"learning_rate": rate}), "by hand") for number, rate in enumerate(RATES)]


def test_each_trial_of_a_group_stops_at_its_own_step_and_its_mates_go_on(tmp_path):
    study = passing_study(10)
    trials = trials_of(study)
    together = trained_together(setting_for(study, tmp_path / "together", Passing()), trials)
    alone = trained_alone(setting_for(study, tmp_path / "alone", Passing()), trials)
    assert [together.of(trial)[-1].step for trial in trials] == STEPS
    for trial in trials:
        assert meaning(together, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)


@pytest.mark.parametrize("stop", [7, 20, 22, 41])
def test_a_group_that_was_stopped_goes_on_to_the_same_steps(stop, tmp_path):
    study = passing_study(10)
    trials = trials_of(study)
    alone = trained_alone(setting_for(study, tmp_path / "alone", Passing()), trials)
    recorder = TrialsRecorder()
    trained_together(setting_for(study, tmp_path, Passing(), stop=StopAt(stop + 1)), trials, recorder)
    left = [trial for trial in trials if recorder.state(trial) is State.RUNNING]
    assert left
    trained_together(setting_for(study, tmp_path, Passing()), left, recorder)
    for trial in trials:
        assert meaning(recorder, tmp_path, trial) == meaning(alone, tmp_path / "alone", trial), f"stopped at {stop}"


def test_batch_norm_and_dropout_of_the_mates_keep_their_bits(tmp_path):
    study = tiny_study(num_trials=6, patience_steps=5)
    trials = planned_trials(study)
    together = trained_together(setting_for(study, tmp_path / "together", Tiny()), trials)
    alone = trained_alone(setting_for(study, tmp_path / "alone", Tiny()), trials)
    steps = {together.of(trial)[-1].step for trial in trials}
    assert len(steps) > 1, "the test needs trials that stop and trials that go on"
    for trial in trials:
        assert meaning(together, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)
