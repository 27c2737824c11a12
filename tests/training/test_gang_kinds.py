"""Every kind of training has in a gang the bits that it has in one process: states of optimizers, precisions, stages."""

from dataclasses import replace

import pytest
from support.gang_studies import GangBench
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform
from tuner.budget.step_budget import StepBudget
from tuner.optimizers import OPTIMIZERS
from tuner.records import State

RATE = log_uniform(1e-3, 1e-1)


class Plain(Tiny):
    """Without batch norms."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def same_bits(folder, study, workload, worlds=(2, 4), stopped=True):
    """Straight by each number of ranks, and stopped halfway and resumed by another one."""
    alone = GangBench(folder / "1", study, workload)
    assert [life.code for life in alone.run(1)] == [0], alone.run(1)
    for world in worlds:
        bench = GangBench(folder / f"{world}", study, workload)
        assert [life.code for life in bench.run(world)] == [0] * world
        assert bench.meaning() == alone.meaning()
    return alone.meaning()
