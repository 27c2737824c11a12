"""Studies of datasets, streams and metrics of the whole split: a gang leaves the bits of one process."""

import logging
import random
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.drawing import Drawing
from support.gang_studies import GangBench
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner import Splits, Stream, minimize
from tuner.budget.step_budget import StepBudget
from tuner.records import State
from tuner.training import gang, gang_evaluation

EVALUATIONS = 2


class Net(Tiny):
    """Tiny without batch norms, from a dataset that draws; its metrics are kept for the whole split."""

    evaluation_batch_size = 4
    not_averaged = ("score", "words", "right")
    select_by = minimize("validation/loss")

    def __init__(self, workers=0, kind="dataset"):
        self.data_workers = workers
        self.kind = kind

    def data(self):
        splits = super().data()
        training, validation = (Drawing(part) for part in (splits.training, splits.validation))
        if self.kind == "dataset":
            return Splits(training, validation)

        def at(data):
            return lambda start: (data[number % len(data)] for number in range(start, 10_000))

        seekable = self.kind == "seekable"
        return Splits(Stream(at(training), 30, seekable), Stream(at(validation), 22, seekable))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))

    def metrics(self, model, batch):
        x, y = batch
        logits = model(x)
        loss = F.cross_entropy(logits, y, reduction="none")
        words = [row[: 1 + int(label)] for row, label in zip(x, y, strict=True)]
        return {"loss": loss, "score": logits[:, 1], "words": words, "right": y == 1}

    def split_metrics(self, each):
        chosen = np.random.permutation(len(each["score"]))[:9]  # a bootstrap, say
        return {"mean": float(each["score"][chosen].mean()), "nothing": None} | {
            "above": float((each["score"][each["right"]] > 0).double().mean())
        }


class Endless(Net):
    """A stream without an end, of which some examples are evaluated."""

    training_evaluation_examples = 12

    def data(self):
        splits = super().data()
        return Splits(Stream(splits.training.at, seekable=splits.training.seekable), splits.validation)


class Weighted(Net):
    """Examples that collate leaves out; slices count as many as are left."""

    def collate(self, examples):
        kept = [one for one in examples if float(one[0][0]) > -0.7] or examples[:1]
        return torch.stack([one[0] for one in kept]), torch.stack([one[1] for one in kept])

    def num_examples(self, batch):
        return len(batch[0])


class DrawingMetrics(Net):
    """Draws for each batch of an evaluation."""

    def metrics(self, model, batch):
        found = super().metrics(model, batch)
        return found | {"noise": torch.rand(len(batch[0])) + random.random() + float(np.random.rand())}


class ChangingMetrics(Net):
    """Evaluates with the statistics of each batch, and moves the running ones."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))

    def metrics(self, model, batch):
        model.train()
        return super().metrics(model, batch)


def study_of(**changes):
    return tiny_study(**{"slices": 4, "num_trials": 1, "budget": StepBudget(16, EVALUATIONS)} | changes)


def left_by(folder, world, workload, study=None):
    bench = GangBench(folder / f"{world}", study or study_of(), workload)
    assert [(life.code, life.text) for life in bench.run(world)] == [(0, "")] * world
    found = bench.meaning()
    assert {state for _, state, *_ in found} == {State.COMPLETE}
    return found


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "workload",
    [Net(kind="stream"), DrawingMetrics(), slow(Net()), slow(Weighted()), slow(ChangingMetrics())],
    ids=lambda one: f"{type(one).__name__}-{one.kind}",
)
def test_two_ranks_leave_the_bits_of_one_process(workload, tmp_path):
    assert left_by(tmp_path, 2, workload) == left_by(tmp_path, 1, workload)


class Leaving(Net):
    """One rank leaves an evaluation at its first batch, the other one is slow; counts the batches of that one."""

    def __init__(self, rank, leaves):
        super().__init__()
        self.rank, self.leaves = rank, leaves
        self.made = torch.zeros(1, dtype=torch.int64).share_memory_()

    def metrics(self, model, batch):
        if rank_here() == self.rank:
            self.leaves()
        elif rank_here() >= 0:
            self.made += 1
            time.sleep(0.5)
        return super().metrics(model, batch)


def rank_here():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else -1


def fails():
    raise ValueError("a metric of this rank")


@pytest.mark.parametrize("rank", [0, slow(1)])
def test_an_error_within_an_evaluation_ends_it_for_all_ranks_at_once(rank, tmp_path, monkeypatch):
    monkeypatch.setattr(gang, "LOOK_SECONDS", 0.05)
    workload = Leaving(rank, fails)
    bench = GangBench(tmp_path, study_of(), workload)
    assert [life.code for life in bench.run(2)] == [0, 0]
    (record,) = bench.records()
    assert record.state is State.FAILED
    assert "a metric of this rank" in record.reason
    assert ("on rank 1" in record.reason) == (rank == 1)
    assert int(workload.made) < 6, "of about twenty"


def test_rank_0_that_stops_within_an_evaluation_has_the_others_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(gang, "LOOK_SECONDS", 0.05)
    asked = torch.zeros(1, dtype=torch.int64).share_memory_()
    workload = Leaving(0, lambda: asked.add_(1))
    bench = GangBench(tmp_path / "2", study_of(), workload)
    lead, mate = bench.run(2, stops={0: lambda: bool(asked)})
    assert (lead.error, mate.error) == ("Interrupted", "")
    assert int(workload.made) < 6
    assert [record.state for record in bench.records()] == [State.WAITING]
    bench.workload = Net()
    assert [life.code for life in bench.run(1)] == [0]


@pytest.fixture
def said(tmp_path):
    """The file of what is logged of who evaluates, by whichever process."""
    written, log = logging.FileHandler(tmp_path / "said"), logging.getLogger(gang_evaluation.__name__)
    log.addHandler(written)
    yield tmp_path / "said"
    log.removeHandler(written)
    written.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [(DrawingMetrics, "rank 0 evaluates"), (ChangingMetrics, "every rank")])
def test_who_evaluates_is_said_once(kind, words, tmp_path, said):
    bench = GangBench(tmp_path, study_of(budget=StepBudget(16, 4)), kind())
    assert [life.code for life in bench.run(2)] == [0, 0]
    (line,) = said.read_text().splitlines()
    assert words in line


STUDIES = [
    (workload, kind, workers, world)
    for workload in (Net, Endless, Weighted, DrawingMetrics, ChangingMetrics)
    for kind in ("dataset", "stream", "seekable")
    for workers in (0, 1)
    for world in (2, 4)
    if (workload is not Endless or kind != "dataset") and (workload is not Weighted or kind == "dataset")
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, len(STUDIES), 4))
def test_studies_of_any_data_leave_the_bits_of_one_process(number, tmp_path):
    for place, (workload, kind, workers, world) in enumerate(STUDIES[number : number + 4]):
        draw = random.Random(f"{number} {place}")
        slices = draw.choice([4, 8])
        study = study_of(
            slices=slices, batch_size=slices * draw.choice([2, 4]), augment=draw.random() < 0.5,
            ema_steps=draw.choice([0, 8]), precision=draw.choice(["float32", "bf16", "fp16"]), seed=draw.randrange(99),
            budget=StepBudget(draw.randrange(12, 30), draw.randrange(1, 5)),
        )  # fmt: skip
        whole = left_by(tmp_path / f"{place}", 1, workload(0, kind), study)
        assert left_by(tmp_path / f"{place}", world, workload(workers, kind), study) == whole
