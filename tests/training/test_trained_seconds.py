"""For how long a trial was trained, by a clock that the test moves: shared in a group, and added up over claims."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.tiny import MemoryRecorder, StopAt, setting_for, tiny_study, train_alone

from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training import committing, supervisor
from tuner.training.committing import Committing, Outcome


class Clock:
    """A clock that goes on by a second each time it is read."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    for module in (committing, supervisor):
        monkeypatch.setattr(module, "time", found)
    return found


def book(seconds=0.0):
    return SimpleNamespace(seconds=seconds)


def test_trials_that_train_together_share_the_time_and_what_has_ended_pays_no_more(monkeypatch):
    now = SimpleNamespace(time=0.0)
    now.monotonic = lambda: now.time
    monkeypatch.setattr(committing, "time", now)
    trains = Committing(None, None)
    first, second, third = trains.books = [book(), book(5.0), book()]
    trains.cohort = SimpleNamespace(live=[0, 1, 2])
    now.time = 30.0
    trains._count_time([])
    assert [one.seconds for one in trains.books] == [10.0, 15.0, 10.0]
    trains.cohort.live = [0, 1]  # the third has ended, and its end is what is being committed
    now.time = 36.0
    trains._count_time([Outcome(third, State.COMPLETE)])
    assert [one.seconds for one in (first, second, third)] == [12.0, 17.0, 12.0]
    now.time = 40.0
    trains._count_time([Outcome(first, State.RUNNING)])
    assert [one.seconds for one in (first, second, third)] == [14.0, 19.0, 12.0]
    trains.processes = 4  # of a gang
    trains.books, trains.cohort.live, now.time = [first], [0], 50.0
    trains._count_time([])
    assert first.seconds == 14.0 + 4 * 10.0


def test_a_resumed_trial_adds_to_what_it_was_trained_before(tmp_path, clock):
    recorder, study = MemoryRecorder(), tiny_study()
    trial = planned_trials(study)[0]
    train_alone(setting_for(study, tmp_path, stop=StopAt(10)), recorder, recorder.claim(trial))
    before = recorder.updates[-1].seconds
    assert before > 0.0
    begun = clock.now
    train_alone(setting_for(study, tmp_path), recorder, replace(recorder.claim(trial), seconds=before))
    told = [update.seconds for update in recorder.updates]
    assert told == sorted(told)
    assert before < told[-1] <= before + (clock.now - begun)
