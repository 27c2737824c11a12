"""Every kind of training has in a gang the bits of one process: states of optimizers, precisions, adapters, starts."""

import hashlib
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from support.gang_studies import GangBench
from support.prefixes import StopAfter
from support.tiny import Tiny, tiny_study
from torch import nn

from tuner import SearchSpace, Splits, Stream, log_uniform, with_lora
from tuner.budget.step_budget import StepBudget
from tuner.records.conclusions import Selected, StageStart
from tuner.training.checkpoints import weights_as_file
from tuner.training.inherited import StartWeights

pytestmark = pytest.mark.slow
RATE = log_uniform(1e-3, 1e-1)


class Plain(Tiny):
    """Without batch norms."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def same_bits(folder, workload=None, inherited=None, **changes):
    """Straight by two and by four, and stopped halfway by two and resumed by four: as by one. What one left."""
    study = tiny_study(**{"slices": 4, "num_trials": 1, "budget": StepBudget(24, 4)} | changes)

    def bench(name):
        return GangBench(folder / name, study, workload or Plain(), inherited=inherited)

    alone = bench("alone")
    assert [(life.code, life.text) for life in alone.run(1)] == [(0, "")]
    for world in (2, 4):
        straight = bench(f"straight-{world}")
        assert [(life.code, life.text) for life in straight.run(world)] == [(0, "")] * world
        assert straight.meaning() == alone.meaning()
    halfway = bench("halfway")
    assert halfway.run(2, stops={1: StopAfter(15)})[0].error == "Interrupted"
    assert [(life.code, life.text) for life in halfway.run(4)] == [(0, "")] * 4
    assert halfway.meaning() == alone.meaning()
    return alone


OPTIMIZERS = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {"clip_norm": 0.5},
    "adamw": {"weight_decay": 0.1},
    "nadam": {},
    "radam": {},
    "adagrad": {},
    "rmsprop": {"momentum": 0.7},
    "adafactor": {},
    "lion": {},
    "muon": {"adamw_rate": 0.3},
    "schedule_free_adamw": {},
    "adamw_8bit": {},
}


INSTALLED = [
    pytest.param(name, marks=pytest.mark.needs("bitsandbytes")) if name == "adamw_8bit" else name for name in OPTIMIZERS
]


@pytest.mark.parametrize("name", INSTALLED)
def test_states_of_optimizers(name, tmp_path):
    same_bits(tmp_path, optimizer=name, space=SearchSpace(learning_rate=RATE, **OPTIMIZERS[name]))


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_precisions(precision, tmp_path):
    same_bits(tmp_path, precision=precision)


class Overflowing(Plain):
    """One batch has a loss whose gradient is too large for fp16 at the first scales: updates are skipped."""

    def data(self):
        splits = super().data()
        splits.training[0][:, 0] = 0.0
        splits.training[0][5, 0] = 1.0
        return splits

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * (512.0 if bool((batch[0][:, 0] > 0.5).any()) else 1.0)


def test_updates_that_are_skipped_because_one_rank_has_no_finite_gradient(tmp_path):
    alone = same_bits(tmp_path, Overflowing(), precision="fp16", augment=False)
    (found,) = alone.meaning()
    skipped = [float.fromhex(value) for _, metric, value in found[4] if metric.endswith("skipped_updates")]
    assert sum(skipped) > 0


def test_averages_of_the_weights(tmp_path):
    same_bits(tmp_path, ema_steps=5)


class Adapted(Plain):
    def model(self, point):
        return with_lora(super().model(point), "*", rank=2, alpha=4.0)


def test_adapters_and_what_is_frozen(tmp_path):
    same_bits(tmp_path, Adapted())


def test_weights_of_an_earlier_stage(tmp_path):
    generator = torch.Generator().manual_seed(5)
    weights = {
        name: torch.randn(one.shape, generator=generator) for name, one in Plain().model({}).state_dict().items()
    }
    content = weights_as_file(weights)
    chosen = Selected(hashlib.sha256(content).hexdigest(), len(content), campaign="pre", study="round-1")
    same_bits(tmp_path, inherited=StartWeights(StageStart((chosen,)), contents=(content,)))


class Weighted(Plain):
    """Slices of different weights, which every rank has to know of all."""

    def loss(self, model, batch, point):
        return (F.cross_entropy(model(batch[0]), batch[1], reduction="none") * self._each(batch)).sum() / self.weight(
            batch
        )

    def _each(self, batch):
        return (batch[0][:, 1] > -0.5).float() + 0.01

    def weight(self, batch):
        return self._each(batch).sum()


def test_weights_of_slices(tmp_path):
    same_bits(tmp_path, Weighted())


class Branching(Plain):
    """Some slices do not reach some parameters: a gradient that one rank has, and another one has not."""

    def model(self, point):
        return nn.ModuleDict({"a": nn.Linear(6, 2), "b": nn.Linear(6, 2), "never": nn.Linear(3, 3)})

    def loss(self, model, batch, point):
        branch = model["a"] if float(batch[0][0, 0]) > 0 else model["b"]
        return F.cross_entropy(branch(batch[0]), batch[1])

    def metrics(self, model, batch):
        logits = model["a"](batch[0]) + model["b"](batch[0])
        return {
            "loss": F.cross_entropy(logits, batch[1], reduction="none"),
            "error_rate": logits.argmax(-1) != batch[1],
        }


def test_parameters_that_only_some_slices_reach(tmp_path):
    same_bits(tmp_path, Branching())


class Compiled(Plain):
    def model(self, point):
        return torch.compile(super().model(point), backend="aot_eager")


def test_models_that_are_compiled(tmp_path):
    same_bits(tmp_path, Compiled())


class Fetched(Plain):
    """Examples of a dataset, fetched by processes, whose examples draw random numbers."""

    data_workers = 1

    def data(self):
        splits = super().data()
        return Splits(*(list(zip(*split, strict=True)) for split in (splits.training, splits.validation)))

    def collate(self, examples):
        x, y = zip(*examples, strict=True)
        return torch.stack(x) + 0.1 * torch.randn(len(x), 6), torch.stack(y)


def test_examples_of_a_dataset(tmp_path):
    same_bits(tmp_path, Fetched())


def _numbers(start):
    for number in count(start):
        x = torch.randn(6, generator=torch.Generator().manual_seed(number))
        yield x, (x[0] > 0).long()


class Streamed(Plain):
    training_evaluation_examples = 50

    def data(self):
        return Splits(training=Stream(_numbers, length=1000), validation=super().data().validation)


def test_examples_of_a_stream(tmp_path):
    same_bits(tmp_path, Streamed())
