"""A stop, a pause or an end that one rank meets is that of all: what was committed stays, and training goes on."""

import inspect
from dataclasses import replace

import pytest
from support.gang_studies import GangBench
from support.prefixes import StopAfter
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner.budget.step_budget import StepBudget
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger
from tuner.training import committing
from tuner.training.evaluation import check_going_on


class Plain(Tiny):
    """Without batch norms."""

    evaluation_batch_size = 10

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def bench_of(folder, steps=60, **changes):
    study = tiny_study(**{"slices": 4, "num_trials": 1, "budget": StepBudget(steps, 4)} | changes.pop("study", {}))
    return GangBench(folder, study, changes.pop("workload", Plain()), **changes)


def whole(folder, **changes):
    bench = bench_of(folder / "whole", **changes)
    assert bench.run(1)[0].code == 0
    return bench.meaning()


@pytest.mark.slow
def test_a_trial_resumed_by_another_number_of_ranks_every_tenth_step_has_the_same_bits(tmp_path):
    bench = bench_of(tmp_path / "many")
    for world in (2, 1, 2, 4, 1):
        lives = bench.run(world, stops={0: StopAfter(10 + (world > 1))})
        assert lives[0].error == "Interrupted"
        assert {life.code for life in lives[1:]} <= {0}
    before = bench.records()[0].step
    assert 0 < before < 60
    assert [life.code for life in bench.run(2)] == [0, 0]
    assert bench.meaning() == whole(tmp_path)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_stop_of_any_rank_is_that_of_all(rank, tmp_path):
    rarely = {"study": {"budget": StepBudget(60, 30)}}
    bench = bench_of(tmp_path / "stopped", **rarely)
    lead, mate = bench.run(2, stops={rank: StopAfter(10)})
    assert (lead.error, mate.error) == ("Interrupted", "")
    (record,) = bench.records()
    assert (record.state, record.attempt) == (State.WAITING, 0)
    assert 0 < record.step <= 11, "in the update at which it was asked, and not at the end of the block"
    assert [life.code for life in bench.run(2)] == [0, 0]
    assert bench.meaning() == whole(tmp_path, **rarely)


class InEvaluation:
    """Says stop from a batch of an evaluation on."""

    def __init__(self, batch):
        self.left = batch

    def __call__(self):
        frame = inspect.currentframe()
        callers = []
        while frame is not None:
            callers.append(frame.f_code)
            frame = frame.f_back
        self.left -= check_going_on.__code__ in callers
        return self.left < 0


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_stop_within_an_evaluation_leaves_it_to_who_goes_on(rank, tmp_path):
    bench = bench_of(tmp_path / "stopped")
    lead, mate = bench.run(2, stops={rank: InEvaluation(4)})
    assert (lead.error, mate.error) == ("Interrupted", "")
    (record,) = bench.records()
    assert record.state is State.WAITING
    assert record.step in bench.study.budget.evaluation_steps
    assert [life.code for life in bench.run(1)] == [0]
    assert bench.meaning() == whole(tmp_path)


@pytest.mark.slow
def test_states_saved_in_the_background_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(committing, "BACKGROUND_BYTES", 0)
    bench = bench_of(tmp_path / "often", options={"commit_seconds": 0.0})
    assert [life.code for life in bench.run(2)] == [0, 0]
    assert bench.meaning() == whole(tmp_path)


@pytest.mark.slow
def test_a_trial_that_diverges_is_infeasible_as_alone(tmp_path):
    class Diverging(Plain):
        def loss(self, model, batch, point):
            return super().loss(model, batch, point) * 1e30**4

    bench, alone = (bench_of(tmp_path / name, workload=Diverging()) for name in ("gang", "alone"))
    assert [life.code for life in bench.run(2)] == [0, 0]
    assert alone.run(1)[0].code == 0
    assert bench.meaning() == alone.meaning()
    assert [one.reason for one in bench.records()] == [one.reason for one in alone.records()]
    assert bench.records()[0].state is State.INFEASIBLE


@pytest.mark.slow
def test_early_stopping_and_averages_of_the_weights_are_those_of_one_process(tmp_path):
    changes = {"study": {"patience_steps": 15, "ema_steps": 5, "budget": StepBudget(90, 6)}}
    bench = bench_of(tmp_path / "gang", **changes)
    assert [life.code for life in bench.run(2)] == [0, 0]
    assert bench.meaning() == whole(tmp_path, **changes)


@pytest.mark.slow
def test_first_steps_are_inherited_by_a_gang_and_from_a_gang(tmp_path):
    """The second study has the same trial, twice as long: its first steps are those of the first one."""
    for first, second in ((1, 2), (2, 1)):
        folder = tmp_path / f"{first}-{second}"
        bench = bench_of(folder)
        (trial,) = planned_trials(bench.study)
        pinned = replace(bench, trials=[replace(trial, pins=(20,))])
        assert [life.code for life in pinned.run(first)] == [0] * first
        longer = replace(bench.study, name="round-2", num_trials=2)
        again = replace(bench, study=longer, trials=[trial, replace(trial, number=1, seed=trial.seed + 1)])
        assert [life.code for life in again.run(second)] == [0] * second
        assert again.records()[0].inherited.steps > 0
        fresh = replace(again, folder=tmp_path / f"fresh-{first}-{second}")
        assert [life.code for life in fresh.run(1)] == [0]
        assert again.meaning() == fresh.meaning()


def test_a_stop_of_a_rank_is_heard_while_rank_0_waits_for_another_worker(tmp_path):
    """The only trial belongs to a worker elsewhere, whose lease holds: rank 0 waits, and rank 1 is told to end."""
    bench = bench_of(tmp_path)
    with open_ledger(bench.url) as ledger:
        row = ledger.start_study("tiny", bench.study, bench.loaded().fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(bench.study))
        assert ledger.claim(row, worker="elsewhere:1", lease_seconds=1e6, max_trials=1)
    lead, mate = bench.run(2, stops={1: StopAfter(2)})
    assert (lead.error, mate.error, mate.code) == ("Interrupted", "", 0)
    assert bench.records()[0].state is State.RUNNING
