"""A trial that a gang trains has the bits of one that one process trains: weights, moments, curves, records."""

import pytest
from support.gang_studies import GangBench
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform
from tuner.budget.step_budget import StepBudget
from tuner.records import State

RATE = log_uniform(1e-3, 1e-1)


class Plain(Tiny):
    """Without batch norms."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def study_of(**changes):
    return tiny_study(**{"slices": 4, "num_trials": 2, "budget": StepBudget(60, 4)} | changes)


def left_by(folder, world, study, workload=None, **how):
    bench = GangBench(folder / f"{world}", study, workload or Plain())
    for rank, ended in enumerate(bench.run(world, **how)):
        assert ended.code == 0, (rank, ended.error, ended.text)
    found = bench.meaning()
    assert {state for _, state, *_ in found} == {State.COMPLETE}
    return found


@pytest.mark.parametrize(
    ("optimizer", "space"),
    [
        ("adamw", {"learning_rate": RATE, "weight_decay": 0.1, "clip_norm": 0.5}),
        ("sgd", {"learning_rate": RATE, "momentum": 0.9, "nesterov": True, "clip_norm": 0.5}),
    ],
)
def test_a_study_by_a_gang_leaves_the_bits_of_one_process(optimizer, space, tmp_path):
    study = study_of(optimizer=optimizer, space=SearchSpace(**space))
    assert left_by(tmp_path, 2, study) == left_by(tmp_path, 1, study)
