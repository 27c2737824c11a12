"""The first look at slices: the reason why they are another training than whole batches is named."""

import logging

import pytest
import torch
import torch.nn.functional as F
from support.fusible import Images, Mlp, MlpWithDropout, Residual, TiedLm, TransformerEncoderWithDropout, runs_of
from support.tiny import CPU, setting_for, tiny_study
from torch import nn

from tuner import Splits, padded
from tuner.errors import WorkloadError
from tuner.rounds.plan import planned_trials
from tuner.training.preflight import check_workload
from tuner.training.slices_look import look_at_slices

SLICES = 4


def told(workload, caplog, slices=SLICES):
    """What is said of a workload in slices."""
    (run,) = runs_of(workload, 1, slices=slices)
    with caplog.at_level(logging.WARNING):
        look_at_slices(run, run.model)
    return [record.getMessage() for record in caplog.records]


class Gates(Images):
    def model(self, point):
        return nn.LSTM(8, 10, 2, dropout=0.5, batch_first=True)

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0].view(-1, 8, 8))[0][:, -1], batch[1])


@pytest.mark.parametrize("workload", [MlpWithDropout, TransformerEncoderWithDropout, TiedLm, Gates])
def test_nothing_is_said_of_what_sums_up(workload, caplog):
    assert told(workload(), caplog) == []


def test_batch_norms_are_named(caplog):
    (said,) = told(Residual(), caplog)
    assert "batch norms (stem.1, blocks.0.b1, blocks.0.b2) take their statistics from each slice of 8 examples" in said


class Contrast(Images):
    """Each example is told from the others of its batch."""

    def model(self, point):
        return nn.Linear(64, 16)

    def loss(self, model, batch, point):
        found = F.normalize(model(batch[0]), dim=1)
        return F.cross_entropy(found @ found.roll(1, 0).T, torch.arange(len(found)))


def test_a_loss_that_looks_across_the_batch_is_named(caplog):
    (said,) = told(Contrast(), caplog)
    assert "looks across the examples of a batch (in-batch negatives" in said
    assert "compared with 7 others then, and not with 31" in said


class Tokens(Images):
    """A mean over the tokens that are there."""

    def data(self):
        generator = torch.Generator().manual_seed(3)
        examples = [torch.randint(0, 5, (3 + place % 9 * 4,), generator=generator) for place in range(96)]
        return Splits(training=examples, validation=examples[:8])

    def collate(self, examples):
        return (padded(examples, value=-1),)

    def model(self, point):
        return nn.Embedding(5, 5)

    def loss(self, model, batch, point):
        (ids,) = batch
        return F.cross_entropy(model(ids.clamp(min=0)).flatten(0, 1), ids.flatten(), ignore_index=-1)

    def metrics(self, model, batch):
        return {"loss": torch.zeros(len(batch[0])), "error_rate": torch.zeros(len(batch[0]))}


class Weighed(Tokens):
    def weight(self, batch):
        return (batch[0] >= 0).sum()


class Misjudged(Tokens):
    def weight(self, batch):
        return batch[0].numel() ** 2


def test_means_over_tokens_need_their_weight(caplog):
    assert told(Weighed(), caplog, 32) == []
    (said,) = told(Tokens(), caplog, 32)
    counts = [
        (one.batches.fetched(0, part)[0] >= 0).sum() for one in runs_of(Tokens(), 1, slices=32) for part in (0, 31)
    ]
    shares = [f"{float(count / sum(counts)):.3g}" for count in counts]
    assert (
        f"by their examples two slices the shares 0.5 and 0.5, and as one batch they have {' and '.join(shares)}"
        in said
    )


def test_a_wrong_weight_is_named(caplog):
    (said,) = told(Misjudged(), caplog, 32)
    assert "Misjudged.weight() gives two slices the shares" in said


class Summed(MlpWithDropout):
    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def test_a_sum_is_named(caplog):
    (said,) = told(Summed(), caplog)
    assert "Summed.loss is a sum over the batch; return a mean" in said


class NormedSum(Summed):
    """Two reasons at once."""

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


class NormedContrast(Contrast):
    def model(self, point):
        return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16))


class FrozenNorm(NormedContrast):
    """Batch norms that use their running statistics in training, too, are no reason."""

    def loss(self, model, batch, point):
        model[1].eval()
        return super().loss(model, batch, point)


@pytest.mark.parametrize(
    ("workload", "reason"), [(NormedSum, "is a sum over the batch; return a mean"), (NormedContrast, "looks across")]
)
def test_two_reasons_are_both_named(workload, reason, caplog):
    (said,) = told(workload(), caplog)
    assert reason in said
    assert "Besides, batch norms (1) take their statistics from each slice" in said
    assert ("looks across" in said) == (workload is NormedContrast)


def test_batch_norms_that_are_at_rest_are_no_reason(caplog):
    (said,) = told(FrozenNorm(), caplog)
    assert "looks across" in said
    assert "batch norms" not in said


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (
            lambda batch: batch[0][:, 0],
            r"weight must return a number, or a tensor without dimensions.*got a tensor \[8\]",
        ),
        (lambda batch: None, "got None"),
        (lambda batch: True, "got True"),
        (lambda batch: -1.0, r"returned -1 for a slice of the batch of step 1"),
        (lambda batch: float("nan"), "returned nan"),
        (lambda batch: 0, "all slices of the batch of step 1 are 0"),
    ],
)
def test_weights_that_are_none_are_refused_before_anything_is_trained(weight, message):
    class Strange(Mlp):
        def loss(self, model, batch, point):
            return F.cross_entropy(model(batch[0]), batch[1])

    Strange.weight = lambda self, batch: weight(batch)
    study = tiny_study(batch_size=32, slices=SLICES)
    with pytest.raises(WorkloadError, match=message):
        check_workload(setting_for(study, None, Strange(), CPU), planned_trials(study)[0])


def test_a_look_leaves_the_model_as_it_is(caplog):
    (run,) = runs_of(Residual(), 1, slices=SLICES)
    before = {name: one.clone() for name, one in run.model.state_dict().items()}
    look_at_slices(run, run.model)
    assert all(torch.equal(one, before[name]) for name, one in run.model.state_dict().items())
