"""Metrics that change the model, and an evaluation that is stopped midway: it is made again from the same model."""

import pytest
import torch
from support.gang_studies import GangBench
from support.prefixes import StopAfter
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn

from tuner.budget.step_budget import StepBudget
from tuner.errors import Interrupted
from tuner.rounds.plan import planned_trials
from tuner.training.trial_run import TrialRun


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))
        self.register_buffer("seen", torch.zeros(()))

    def get_extra_state(self):
        return {"seen": float(self.seen)}

    def set_extra_state(self, state):
        self.seen.fill_(state["seen"])

    def forward(self, x):
        return self.inner(x) * (1 + 0.001 * self.seen)


class Counted(Tiny):
    """Each batch that is evaluated counts, and changes what the next one comes to."""

    def model(self, point):
        return Counting()

    def metrics(self, model, batch):
        model.seen += 1
        return super().metrics(model, batch)


STUDY = tiny_study(slices=4, num_trials=1, budget=StepBudget(8, 4))


@pytest.mark.parametrize("batches", [1, 4, 5])
def test_a_trial_alone_is_as_before_the_evaluation_that_was_stopped(batches, tmp_path):
    (trial,) = planned_trials(STUDY)
    run = TrialRun(setting_for(STUDY, tmp_path, Counted()), trial)
    with pytest.raises(Interrupted):
        run.evaluated(StopAfter(batches))
    assert float(run.model.seen) == 0.0
    straight = TrialRun(setting_for(STUDY, tmp_path, Counted()), trial).evaluate()
    assert run.evaluate() == straight
    assert float(run.model.seen) == 6.0  # of 50 and 30 examples, 16 at a time


@pytest.mark.slow
def test_a_gang_is_stopped_within_any_evaluation(tmp_path):
    def bench(name):
        return GangBench(tmp_path / name, STUDY, Counted())

    alone = bench("alone")
    assert [life.code for life in alone.run(1)] == [0]
    stopped = 0
    for world, rank in ((1, 0), (2, 0), (2, 1)):
        for questions in range(5, 12):
            halfway = bench(f"{world}-{rank}-{questions}")
            error = halfway.run(world, stops={rank: StopAfter(questions)})[0].error
            assert error == "Interrupted"  # no rank has another model than the others
            stopped += halfway.records()[0].step == 4
            assert [life.code for life in halfway.run(2)] == [0, 0]
            assert halfway.meaning() == alone.meaning()
    assert stopped > 6
