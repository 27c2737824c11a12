"""What happens on one rank of a gang is known to all: they leave together, and the trial ends as it would alone."""

import errno
import gc
import os
import signal
import sqlite3
import time
import weakref

import pytest
import torch
from support.gang_studies import GangBench
from support.prefixes import StopAfter
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner.budget.step_budget import StepBudget
from tuner.errors import AttemptLost, DeviceLost, Infeasible
from tuner.records import State
from tuner.training.gang_follower import Follower

STEPS = 24
RANK = 0  # of this process, once it has forked


class Broken(Tiny):
    """Does something at the 30th call of a method, of a slice that rank 1 of two has."""

    def __init__(self, where, what):
        HOW[id(self)] = where, what

    def model(self, point):
        self._at("model")
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))

    def loss(self, model, batch, point):
        self._at("loss")
        return super().loss(model, batch, point)

    def augment(self, batch, point, generator):
        self._at("augment")
        return super().augment(batch, point, generator)

    def weight(self, batch):
        self._at("weight")
        return float(len(batch[0]))

    def metrics(self, model, batch):
        self._at("metrics")
        return super().metrics(model, batch)

    def _at(self, place):
        where, what = HOW[id(self)]
        if place == where:
            CALLS[place] = CALLS.get(place, 0) + 1
            what(CALLS[place])


HOW, CALLS = {}, {}


def on_rank(rank, call, do):
    """What a method does: `do()` from its call number `call` on, in the process of a rank."""

    def what(count):
        if rank_here() == rank and count >= call:
            do()

    return what


def rank_here():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else -1


def raising(error):
    def do():
        raise error

    return do


def bench_of(folder, workload, **changes):
    study = tiny_study(**{"slices": 4, "num_trials": 1, "budget": StepBudget(STEPS, 4)} | changes.pop("study", {}))
    return GangBench(folder, study, workload, **changes)


WHERE = {"model": 1, "loss": 30, "augment": 30, "weight": 30, "metrics": 6}
QUICK = {("loss", 1), ("weight", 0), ("metrics", 1)}
PLACES = [
    pytest.param(where, rank, marks=() if (where, rank) in QUICK else pytest.mark.slow)
    for where in WHERE
    for rank in (0, 1)
]


@pytest.mark.parametrize(("where", "rank"), PLACES)
def test_an_error_on_one_rank_is_the_end_of_the_trial_with_its_reason(where, rank, tmp_path):
    bench = bench_of(tmp_path, Broken(where, on_rank(rank, WHERE[where], raising(KeyError("gone")))))
    ended = bench.run(2)
    (record,) = bench.records()
    assert record.state is State.FAILED
    assert record.reason.startswith("on rank 1: KeyError: " if rank else "KeyError: ")
    assert "gone" in record.reason
    assert __file__ in record.reason, "the line is told that raised it"
    assert record.attempt == 1
    assert [one.code for one in ended] == [0, 0], [one.text for one in ended]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize("where", [pytest.param("augment", marks=pytest.mark.slow), "loss"])
def test_an_error_that_one_rank_always_has_is_no_other_first_loss_but_the_end_of_the_trial(where, rank, tmp_path):
    bench = bench_of(tmp_path, Broken(where, on_rank(rank, 1, raising(KeyError("gone")))))
    ended = bench.run(2)
    (record,) = bench.records()
    assert record.state is State.FAILED, [one.text for one in ended]
    assert record.reason.startswith("on rank 1: KeyError: " if rank else "KeyError: ")
    assert [one.code for one in ended] == [0, 0], [one.text for one in ended]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "error", [Infeasible("no such point"), torch.OutOfMemoryError("CUDA out of memory"), MemoryError()]
)
def test_a_point_that_one_rank_rejects_or_has_no_memory_for_is_infeasible(error, rank, tmp_path):
    bench = bench_of(tmp_path, Broken("loss", on_rank(rank, 30, raising(error))))
    ended = bench.run(2)
    (record,) = bench.records()
    assert record.state is State.INFEASIBLE
    assert record.reason.startswith("on rank 1: ") == bool(rank)
    assert [one.code for one in ended] == [0, 0], [one.text for one in ended]


@pytest.mark.slow
def test_a_full_disk_on_one_rank_pauses_and_the_trial_goes_on(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data")
    workload = Broken("loss", on_rank(1, 30, raising(full)))
    bench = bench_of(tmp_path, workload)
    lead, _ = bench.run(2)
    assert (lead.error, lead.code) == ("Paused", 1)
    assert lead.text.startswith("on rank 1: No space left on device at /data: no trial is to blame")
    (record,) = bench.records()
    assert (record.state, record.attempt) == (State.WAITING, 0)
    goes_on(bench, workload, tmp_path)


def goes_on(bench, workload, folder, world=1):
    """The trial is trained to its end by another number of ranks, with the bits of one that nothing befell."""
    HOW[id(workload)] = "nowhere", None
    assert [one.code for one in bench.run(world)] == [0] * world
    whole = bench_of(folder / "whole", workload)
    assert whole.run(1)[0].code == 0
    assert bench.meaning() == whole.meaning()


def test_a_device_that_one_rank_lost_counts_one_attempt_and_the_trial_goes_on(tmp_path):
    workload = Broken("loss", on_rank(1, 30, raising(DeviceLost("ECC"))))
    bench = bench_of(tmp_path, workload, options={"commit_seconds": 0.0})
    lead, mate = bench.run(2)
    assert (lead.error, lead.text) == ("DeviceLost", "on rank 1: ECC")
    assert mate.error == "DeviceLost"
    (record,) = bench.records()
    assert (record.state, record.attempt) == (State.WAITING, 1)
    assert record.checkpoints
    goes_on(bench, workload, tmp_path)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_rank_that_dies_ends_the_gang_and_counts_one_attempt(rank, tmp_path):
    workload = Broken("loss", on_rank(rank, 30, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    bench = bench_of(tmp_path, workload, options={"commit_seconds": 0.0})
    lead, mate = bench.run(2)
    died, other = (mate, lead) if rank else (lead, mate)
    assert died.code == -signal.SIGKILL
    assert other.error == "GangLost"
    assert f"rank {rank} of the gang ended, or did not answer in time" in other.text
    goes_on(bench, workload, tmp_path)


def test_a_rank_that_hangs_is_named_once_the_time_is_over(tmp_path):
    workload = Broken("loss", on_rank(1, 30, lambda: time.sleep(1e6)))
    bench = bench_of(tmp_path, workload, seconds=5.0, ending=0.0)
    lead, mate = bench.run(2)
    assert lead.error == "GangLost"
    assert "rank 1 of the gang ended, or did not answer in time" in lead.text
    assert mate.code == -signal.SIGKILL  # by who started it
    (record,) = bench.records()
    assert (record.state, record.attempt) == (State.WAITING, 1)


@pytest.mark.slow
def test_an_attempt_that_one_rank_lost_is_tried_again_by_the_same_gang(tmp_path):
    once = on_rank(1, 30, raising(AttemptLost("its program was killed")))
    workload = Broken("loss", lambda count: once(count) if count == 30 else None)
    bench = bench_of(tmp_path / "gang", workload, options={"commit_seconds": 0.0})
    assert [one.code for one in bench.run(2)] == [0, 0]
    (record,) = bench.records()
    assert (record.state, record.step) == (State.COMPLETE, STEPS)
    goes_on(bench, workload, tmp_path)


@pytest.mark.slow
def test_an_error_in_the_optimizers_step_of_one_rank_is_that_of_the_trial(tmp_path, monkeypatch):
    """After the gradients were exchanged: the others hear of it in the next update, or at the end of the block."""
    usual, steps = torch.optim.AdamW.step, []

    def step(self, *rest):
        steps.append(0)
        if rank_here() == 1 and len(steps) == fails_at:
            raise ValueError("no step")
        return usual(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    for fails_at in (4, 6):  # the last step of a block, and one within
        bench = bench_of(tmp_path / f"{fails_at}", Broken("nowhere", None))
        assert [one.code for one in bench.run(2)] == [0, 0]
        (record,) = bench.records()
        assert record.state is State.FAILED
        assert record.reason.startswith("on rank 1: ValueError: no step")


@pytest.mark.slow
def test_errors_of_several_ranks_are_told_apart_by_what_decides(tmp_path):
    """All ranks fail in one update: what is the machine's fault decides, then the point's, then the lowest rank."""

    def what(count):
        if count == 10:
            raise [ValueError("code"), Infeasible("point"), KeyError("more"), Infeasible("another")][rank_here()]

    bench = bench_of(tmp_path, Broken("loss", what))
    assert [one.code for one in bench.run(4)] == [0] * 4
    (record,) = bench.records()
    assert (record.state, record.reason) == (State.INFEASIBLE, "on rank 1: point")


@pytest.mark.slow
def test_a_trial_that_another_worker_took_is_left_by_all_ranks(tmp_path):
    """Rank 0 sees it at its next commit; then the gang trains what is left."""

    def taken():
        connection = sqlite3.connect(tmp_path / "tuner.sqlite", timeout=60)
        connection.execute(
            "update trial set fence = fence + 1, state = 'infeasible', reason = 'by hand' where number = 0"
        )
        connection.commit()
        connection.close()

    workload = Broken("loss", lambda count: taken() if rank_here() == 0 and count == 30 else None)
    bench = bench_of(tmp_path, workload, options={"commit_seconds": 0.0}, study={"num_trials": 2})
    assert [one.code for one in bench.run(2)] == [0, 0]
    taken_away, trained = bench.records()
    assert (taken_away.state, taken_away.reason) == (State.INFEASIBLE, "by hand")
    assert (trained.state, trained.step) == (State.COMPLETE, STEPS)


def test_a_follower_keeps_nothing_that_grows_and_nothing_of_a_trial_that_is_over(tmp_path, monkeypatch):
    seen = []
    usual = Follower.forget, Follower.close

    def forget(self):
        usual[0](self)
        seen.append(len(self.run.losses) + len(self.run.norms) + len(self.run.totals))

    def close(self):
        run = weakref.ref(self._run) if self._run is not None else lambda: None
        usual[1](self)
        gc.collect()
        assert run() is None
        assert not any(seen)
        (tmp_path / "closed").write_text(str(len(seen)))

    monkeypatch.setattr(Follower, "forget", forget)
    monkeypatch.setattr(Follower, "close", close)
    bench = bench_of(tmp_path, Broken("nowhere", None), study={"num_trials": 2})
    assert [one.code for one in bench.run(2)] == [0, 0], bench
    assert int((tmp_path / "closed").read_text()) > 2


class OfTheSplit(Broken):
    """A metric of the whole split, which rank 0 computes; what it computes it of comes from all ranks."""

    not_averaged = ("logit",)

    def metrics(self, model, batch):
        return super().metrics(model, batch) | {"logit": model(batch[0])[:, 0]}

    def split_metrics(self, values):
        self._at("split_metrics")
        return {"spread": float(values["logit"].max() - values["logit"].min())}


@pytest.mark.slow
def test_an_error_in_the_metrics_of_a_whole_split_is_the_end_of_the_trial(tmp_path):
    bench = bench_of(tmp_path, OfTheSplit("split_metrics", on_rank(0, 4, raising(KeyError("gone")))))
    assert [one.code for one in bench.run(2)] == [0, 0]
    (record,) = bench.records()
    assert (record.state, record.reason.partition(" (")[0]) == (State.FAILED, "KeyError: 'gone'")


class Extra(nn.Module):
    """Extra state that one rank cannot be given back."""

    def get_extra_state(self):
        return {"x": 1}

    def set_extra_state(self, state):
        if rank_here() == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, x):
        return x


class WithExtra(Broken):
    def model(self, point):
        return nn.Sequential(*super().model(point), Extra())


@pytest.mark.slow
def test_a_state_that_one_rank_has_no_memory_for_is_infeasible(tmp_path):
    bench = bench_of(tmp_path, WithExtra("nowhere", None))
    assert bench.run(1, stops={0: StopAfter(10)})[0].error == "Interrupted"
    assert [one.code for one in bench.run(2)] == [0, 0]
    (record,) = bench.records()
    assert record.state is State.INFEASIBLE
    assert record.reason.startswith("on rank 1: OutOfMemoryError: CUDA out of memory")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 3])
def test_of_four_ranks_the_one_that_died_is_named(rank, tmp_path):
    workload = Broken("loss", on_rank(rank, 12, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    bench = bench_of(tmp_path, workload)
    ended = bench.run(4)
    assert ended[rank].code == -signal.SIGKILL
    assert ended[0].error == "GangLost"
    assert f"rank {rank} of the gang ended" in ended[0].text
    (record,) = bench.records()
    assert (record.state, record.attempt) == (State.WAITING, 1)
    goes_on(bench, workload, tmp_path, 2)
