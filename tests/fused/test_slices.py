"""Batches in slices, in a group: the bits of each trial alone."""

import pytest
import torch
import torch.nn.functional as F
from support.fusible import (
    Gru,
    Images,
    Mlp,
    MlpWithDropout,
    Residual,
    TiedLm,
    TransformerEncoder,
    TransformerEncoderWithDropout,
    runs_of,
)
from support.tiny import CPU

from tuner import SearchSpace, Splits, Workload, log_uniform, padded, uniform
from tuner.errors import NotFusible, WorkloadError
from tuner.fused import group
from tuner.fused.group import Group
from tuner.fused.making import exact_group
from tuner.training.allocations import allocated
from tuner.training.checkpoints import canonical_digest

STEPS = 4


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


def both(workload, slices=4, num_trials=3, **changes):
    """Digests of trials together, and of each alone."""
    runs, alone = (runs_of(workload(), num_trials, slices=slices, **changes) for _ in range(2))
    exact_group(runs).advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    return digests(runs), digests(alone)


@pytest.mark.parametrize(
    "workload", [Mlp, MlpWithDropout, Residual, TransformerEncoder, TransformerEncoderWithDropout, TiedLm, Gru]
)
def test_a_group_has_the_bits_of_each_trial_alone(workload):
    together, alone = both(workload)
    assert together == alone
    assert len(set(alone)) == 3


class Heavy(Images):
    """Its gradients take more than all that they are computed from."""

    def model(self, point):
        return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))


@pytest.mark.parametrize("slices", [1, 2, 8])
def test_the_memory_of_a_group_has_room_for_the_sums_of_the_tree(slices):
    together = exact_group(runs_of(Heavy(), 3, slices=slices))
    together.advance(1)
    with allocated(CPU) as more:
        together.advance(1)
    gradients, stacks = (
        sum(one.nbytes for one in each) for each in (together.gradients, together.model.stacks.values())
    )
    counted = together.num_bytes - stacks - gradients - together.optimizer.num_bytes
    assert more.peak <= counted < more.peak + 3 * gradients


@pytest.mark.parametrize("slices", [2, 8, 32])
def test_any_number_of_slices(slices):
    together, alone = both(MlpWithDropout, slices)
    assert together == alone


class Augmented(MlpWithDropout):
    def augment(self, batch, point, generator):
        x, y = batch
        return x + point["dropout"] * torch.randn(x.shape, generator=generator), y


class Weighed(MlpWithDropout):
    """A loss that is a mean over a part of the examples, another one in each slice."""

    augment = Workload.augment

    def counted(self, batch):
        return (batch[1] < 4).float()

    def weight(self, batch):
        return self.counted(batch).sum()

    def loss(self, model, batch, point):
        each = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
        counted = self.counted(batch)
        return (each * counted).sum() / counted.sum().clamp(min=1.0)


class WeighedByTrial(Weighed):
    """Augmentation decides what counts: each trial has weights of its own."""

    def augment(self, batch, point, generator):
        x, y = batch
        return x, torch.randint(0, 10, y.shape, generator=generator)


class Uneven(Weighed):
    def weight(self, batch):
        return int(self.counted(batch).sum())


class NothingCounts(WeighedByTrial):
    """A mean without a guard: of a slice in which nothing counts, loss and gradients are NaN."""

    def loss(self, model, batch, point):
        each = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return (each * self.counted(batch)).sum() / self.counted(batch).sum()


def test_slices_in_which_nothing_counts_add_nothing():
    runs, alone = (runs_of(NothingCounts(), 3, slices=16) for _ in range(2))
    weights = [[float(run.weigh(run.slice_at(0, part))) for part in range(16)] for run in alone]
    assert [0.0 in each for each in weights] == [True] * 3
    exact_group(runs).advance(STEPS)
    for run in alone:
        run.advance(STEPS)
        assert torch.stack(run.losses).isfinite().all()
    assert digests(runs) == digests(alone)


@pytest.mark.parametrize("workload", [Augmented, Weighed, WeighedByTrial, Uneven])
def test_augmentation_and_weights(workload):
    together, alone = both(workload)
    assert together == alone


def test_clipping():
    space = SearchSpace(
        learning_rate=log_uniform(1e-3, 1e-1), clip_norm=log_uniform(1e-2, 1e-1), label_smoothing=uniform(0.0, 0.2),
        dropout=uniform(0.1, 0.5),
    )  # fmt: skip
    runs, alone = (runs_of(MlpWithDropout(), 3, space, slices=4) for _ in range(2))
    exact_group(runs).advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    assert digests(runs) == digests(alone)
    assert [len(run.norms) for run in runs] == [STEPS] * 3


@pytest.mark.parametrize("workload", [Mlp, WeighedByTrial])
def test_a_trial_that_has_ended_leaves_the_others_as_they_are(workload):
    runs, alone = (runs_of(workload(), 3, slices=4) for _ in range(2))
    together = exact_group(runs)
    together.advance(2)
    together.retire(0)
    together.advance(2)
    for run in alone[1:]:
        run.advance(4)
    assert digests(runs[1:]) == digests(alone[1:])


def test_slices_that_are_not_added_up_in_the_order_of_the_tree_are_refused(monkeypatch):
    """The comparison with each trial alone sees it: floating-point sums depend on their order."""

    def from_the_end(leaf, leaves, add):
        found = [leaf(number) for number in leaves]
        whole = found.pop()
        while found:
            whole = add(whole, found.pop())
        return whole

    monkeypatch.setattr(group, "tree_sum", from_the_end)
    with pytest.raises(NotFusible, match="trained together the bits are not those of each trial alone"):
        exact_group(runs_of(Mlp(), 3, slices=8))


def test_trials_of_different_numbers_of_slices_do_not_go_together():
    runs = [runs_of(Mlp(), 1, slices=slices)[0] for slices in (2, 4)]
    with pytest.raises(NotFusible, match=r"different numbers of slices: \[2, 4\]"):
        Group(runs)


def test_a_batch_of_no_weight_is_an_error_of_the_group():
    class Weightless(Weighed):
        def weight(self, batch):
            return 0

    with pytest.raises(WorkloadError, match="all slices of the batch of step 1 are 0"):
        exact_group(runs_of(Weightless(), 2, slices=4)).advance(1)


class Padded(Images):
    """Slices of other widths than their neighbours: each form is recorded for itself."""

    def model(self, point):
        return torch.nn.Embedding(10, 10)

    def data(self):
        generator = torch.Generator().manual_seed(1)
        examples = [torch.randint(0, 10, (2 + place % 3,), generator=generator) for place in range(96)]
        return Splits(training=examples, validation=examples[:8])

    def collate(self, examples):
        return (padded(examples, value=-1),)

    def weight(self, batch):
        return (batch[0] >= 0).sum()

    def loss(self, model, batch, point):
        (ids,) = batch
        return F.cross_entropy(model(ids.clamp(min=0)).flatten(0, 1), ids.flatten(), ignore_index=-1)

    def metrics(self, model, batch):
        return {"loss": torch.zeros(len(batch[0])), "error_rate": torch.zeros(len(batch[0]))}


def test_slices_of_different_widths():
    together, alone = both(Padded, slices=32)
    assert together == alone
