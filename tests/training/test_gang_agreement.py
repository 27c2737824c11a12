"""Ranks that are not alike are refused, and named, before anything is trained; those that drift apart are found."""

import re
import signal

import pytest
import torch
from support.gang_studies import GangBench
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner.budget.step_budget import StepBudget
from tuner.records import State
from tuner.training import numerics


class Plain(Tiny):
    """Without batch norms."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def bench_of(folder, workload=None, **changes):
    study = tiny_study(slices=4, num_trials=1, budget=StepBudget(24, 4))
    return GangBench(folder, study, workload or Plain(), **changes)


def nothing_trained(bench):
    (record,) = bench.records()
    return record.state is State.WAITING and record.step == 0 and not record.checkpoints


def rank_here():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def test_a_rank_that_would_compute_other_bits_is_refused_with_what_differs(tmp_path, monkeypatch):
    known = numerics._processor
    monkeypatch.setattr(numerics, "_processor", lambda: "AuthenticAMD avx2" if rank_here() else known())
    bench = bench_of(tmp_path)
    lead, mate = bench.run(2)
    assert lead.error == "StudyChanged"
    assert "on rank 1: it would compute other bits than rank 0 (processor AuthenticAMD avx2, not " in lead.text
    assert mate.code == 0
    assert nothing_trained(bench)


def test_a_rank_that_starts_from_other_weights_is_refused(tmp_path):
    class Drawing(Plain):
        def model(self, point):
            model = super().model(point)
            with torch.no_grad():
                model[0].weight += rank_here()
            return model

    bench = bench_of(tmp_path, Drawing())
    lead, _ = bench.run(2)
    assert lead.error == "StudyChanged"
    assert lead.text.startswith("rank 0 and rank 1 of the gang differ in initial weights, in trial 0 of round-1: ")
    assert nothing_trained(bench)


@pytest.mark.slow
def test_a_rank_with_other_data_is_refused_by_its_first_loss(tmp_path):
    class Other(Plain):
        def loss(self, model, batch, point):
            return super().loss(model, batch, point) + rank_here()

    bench = bench_of(tmp_path, Other())
    lead, _ = bench.run(2)
    assert lead.error == "StudyChanged"
    assert "rank 0 and rank 1 of the gang differ in the loss of the first batch" in lead.text
    assert nothing_trained(bench)


@pytest.mark.parametrize("often", [0.0, pytest.param(1e9, marks=pytest.mark.slow)])
def test_ranks_that_drift_apart_are_found_before_a_state_is_saved_or_evaluated(often, tmp_path):
    class Drifting(Plain):
        calls = 0

        def loss(self, model, batch, point):
            type(self).calls += 1
            if rank_here() == 1 and type(self).calls == 30:
                with torch.no_grad():
                    model[3].weight[0, 0] += 1e-7
            return super().loss(model, batch, point)

    bench = bench_of(tmp_path / "gang", Drifting(), options={"commit_seconds": often})
    lead, _ = bench.run(2)
    assert lead.error == "GangLost"
    assert re.match(r"rank 1 of the gang came to other weights than rank 0 by step \d+ of trial 0: ", lead.text)
    (record,) = bench.records()
    assert (record.state, record.attempt) == (State.WAITING, 1)
    assert [life.code for life in bench.run(1)] == [0]
    alone = bench_of(tmp_path / "alone", Drifting())
    assert alone.run(1)[0].code == 0
    assert bench.meaning() == alone.meaning()


POINTS = ("gang-heard", "gang-exchange", "gang-exchanged", "gang-reporting")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("point", POINTS)
def test_a_rank_killed_at_any_failpoint_costs_no_bit(point, rank, tmp_path):
    whole = bench_of(tmp_path / "whole")
    assert whole.run(1)[0].code == 0
    for place in (1, 7):
        bench = bench_of(tmp_path / f"killed-{place}", options={"commit_seconds": 0.0}, ending=5.0)
        if rank == 0 and point == "gang-heard":
            continue  # rank 0 hears nothing
        lives = bench.run(2, armed={rank: f"{point}@{place}=kill9"})
        assert lives[rank].code == -signal.SIGKILL, lives
        assert lives[1 - rank].code != 0
        assert [life.code for life in bench.run(4)] == [0] * 4
        assert bench.meaning() == whole.meaning()
