"""The part of the training split that is evaluated: fixed, drawn at random, the same for tensors and datasets."""

import pytest
import torch
import torch.nn.functional as F
from support.fusible import Mlp, runs_of

from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.making import exact_group
from tuner.training.batches import Split

CPU = torch.device("cpu")


class Sampled(Mlp):
    training_evaluation_examples = 37


def test_examples_in_the_order_of_their_classes_are_all_in_the_sample():
    labels = torch.arange(1000) // 100
    (drawn,) = Split("training", (labels,), CPU).sample(200).tensors or ()
    counts = drawn.bincount(minlength=10)
    assert len(drawn) == 200
    assert drawn.tolist() == sorted(drawn.tolist()), "in their own order"
    # hypergeometric: 20 of each class, standard deviation sqrt(200 * .1 * .9 * 800 / 999) = 3.8; four of them
    assert counts.min() >= 5
    assert counts.max() <= 35


def test_a_sample_has_no_example_twice_and_is_always_the_same():
    split = Split("training", torch.arange(500), CPU)
    first, second = (tensor for _ in range(2) for tensor in split.sample(100).tensors or ())
    assert len(set(first.tolist())) == 100
    assert torch.equal(first, second)


@pytest.mark.parametrize("count", [None, 500, 900])
def test_a_sample_of_all_is_the_split_itself(count):
    split = Split("training", torch.arange(500), CPU)
    assert split.sample(count) is split


def test_a_dataset_gives_the_same_sample_as_tensors():
    x, y = torch.randn(60, 3), torch.arange(60)
    pairs = torch.utils.data.TensorDataset(x, y)
    one, other = (Split("training", data, CPU).sample(25) for data in ((x, y), pairs))
    for (mine, count), (theirs, same) in zip(one.in_order(10), other.in_order(10), strict=True):
        assert count == same
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_metrics_are_means_over_the_sample_alone_and_together():
    runs = runs_of(Sampled(), 3)
    setting = runs[0].setup
    images, labels = setting.data.training.sample(37).tensors
    together = GroupEvaluation(exact_group(runs)).of([0, 1, 2])
    for trial, run in enumerate(runs):
        alone = run.evaluate()
        by_hand = F.cross_entropy(run.model(images), labels, reduction="none").double().mean().item()
        assert alone["training/loss"] == pytest.approx(by_hand, rel=1e-6)
        assert together[trial] == alone
