"""What a log says of a study whose trials take long: worked by hand."""

import pytest
from support.tiny import tiny_study

from tuner.budget.step_budget import StepBudget
from tuner.cli.output import say
from tuner.progress import Lines
from tuner.records import Checkpoint, Claim, State, TrialUpdate
from tuner.rounds.plan import planned_trials


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def log():
    study = tiny_study(num_trials=4, budget=StepBudget(1000, 20))
    clock = Clock()
    claims = [Claim(10 + trial.number, 1, trial, 1) for trial in planned_trials(study)]
    return Lines(study, 1, say, clock), clock, claims


def test_a_minute_without_a_word_is_ended_by_how_far_the_trials_are(log, capsys):
    lines, clock, claims = log
    for claim in claims[1:3]:
        lines.trial_started(claim)
    clock.now += 59
    lines.trial_stepped(claims[1], 300)
    assert capsys.readouterr().err == ""
    clock.now += 1
    lines.trial_stepped(claims[2], 100)
    # 400 steps in 60 s; left: 3 trials of 1,000 less 400 = 2,600 steps, 390 s
    assert capsys.readouterr().err == (
        "round-1 1/4  2 in training at step 100 to 300 of 1,000; 7 steps/s, about 6 min left\n"
    )
    clock.now += 59
    lines.trial_stepped(claims[2], 150)
    assert capsys.readouterr().err == ""


def test_a_finished_trial_is_a_word_too(log, capsys):
    lines, clock, claims = log
    for claim in claims[1:3]:
        lines.trial_started(claim)
    clock.now += 50
    lines.trial_ended(claims[1], TrialUpdate(claims[1].trial_id, 1, 1000, (), None, State.INFEASIBLE, "loss is nan"))
    assert "2/4  trial 1: infeasible (loss is nan), after 50 s" in capsys.readouterr().err
    clock.now += 20
    lines.trial_stepped(claims[2], 500)
    assert capsys.readouterr().err == ""


def test_steps_of_an_earlier_launch_are_not_of_this_rate(log, capsys):
    lines, clock, claims = log
    saved = Checkpoint("latest", 800, "file", "digest", 1, None)
    lines.trial_started(Claim(11, 1, claims[1].trial, 1, (saved,)))
    clock.now += 100
    lines.trial_stepped(claims[1], 900)
    # 100 steps in 100 s; left: 3 trials of 1,000 less 900 = 2,100 s
    assert "1 in training at step 900 of 1,000; 1 steps/s, about 35 min left" in capsys.readouterr().err
