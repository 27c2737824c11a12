"""What a rank of a gang sums up with the others: the bits of one process, whatever a model has."""

import functools
import random
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from support.gangs import run_gang
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn
from torch.utils.checkpoint import checkpoint

from tuner import SearchSpace, log_uniform
from tuner.budget.step_budget import StepBudget
from tuner.rounds.plan import planned_trials
from tuner.training import gang_sums
from tuner.training.checkpoints import canonical_digest
from tuner.training.gang_sums import GangSums, TreeReduction, payload_of
from tuner.training.slices import WeightedSum
from tuner.training.tree_sum import tree_sum
from tuner.training.trial_run import TrialRun

SLICES = 4
RATE = log_uniform(1e-3, 1e-1)
CLIPPED = SearchSpace(learning_rate=RATE, weight_decay=0.1, clip_norm=0.5)


def of_(model):
    """Tiny with another model."""

    class Tinier(Tiny):
        def model(self, point):
            return model()

    return Tinier


class Cleared(Tiny):
    """A weight for each slice, of which some have none."""

    def weight(self, batch):
        return batch[1].sum()

    def loss(self, model, batch, point):
        counted = batch[1] == 1
        return F.cross_entropy(model(batch[0])[counted], batch[1][counted])


class Numbered(Cleared):
    """The same as numbers of Python."""

    def weight(self, batch):
        return int(batch[1].sum())


class Overflowing(Tiny):
    """Gradients that fp16 has no numbers for, until the scale is small: its first updates are skipped."""

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * 4000


class Embedded(nn.Module):
    """Rows of a table by what the examples are; gradients sparse, and absent where no example is of a kind."""

    def __init__(self, *, sparse, also_dense=False):
        super().__init__()
        self.table = nn.Embedding(20, 6, sparse=sparse)
        self.last = nn.Linear(6, 2)
        self.rare = nn.Linear(6, 2, bias=False)
        self.also_dense = also_dense

    def forward(self, x):
        ids = (x[:, 0].abs() * 8).long().clamp(max=19)
        found = self.last(x + self.table(ids))
        if x[0, 1] > 1.0:  # in a slice of some batches only
            found = found + self.rare(x)
        if self.also_dense and x[0, 2] > 0:
            found = found + (self.table.weight.sum(0) * x).sum(1, keepdim=True)
        return found


class Never(nn.Module):
    """Parameters of which one has no gradient anywhere, others float64, complex, and none at all."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))
        self.wide = nn.Parameter(torch.randn(6, 5, dtype=torch.float64))
        self.waves = nn.Parameter(torch.randn(5, 3, dtype=torch.complex64))
        self.empty = nn.Parameter(torch.ones(0))
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        waves = (x.double() @ self.wide).to(torch.complex64) @ self.waves
        return self.last(waves.real + waves.imag) + self.empty.sum()


class Image(nn.Module):
    """Convolutions in channels_last, with batch norms of any kind."""

    def __init__(self, momentum=0.1, *, checkpointed=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 2, padding=1).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(5, momentum=momentum)
        self.again = nn.BatchNorm1d(5)
        self.frozen = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 2)
        self.checkpointed = checkpointed

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x):
        image = x.view(-1, 1, 2, 3).contiguous(memory_format=torch.channels_last)
        normed = self.norm(self.conv(image))
        if self.checkpointed:
            normed = normed + checkpoint(lambda one: self.norm(self.conv(one)).relu(), image, use_reentrant=False)
        means = self.again(self.again(normed.mean((2, 3))))
        return self.last(self.frozen(means).relu())


class Deep(nn.Module):
    """Of random depth: a slice leaves out a norm now and then."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(6) for _ in range(3)])
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        for norm in self.norms:
            if not self.training or float(torch.rand(())) < 0.6 or random.random() < 0.2:
                x = norm(x).tanh() + x
        return self.last(x)


CASES = {
    "adamw": (Tiny, {"space": CLIPPED}),
    "sgd": (Tiny, {"optimizer": "sgd", "space": SearchSpace(learning_rate=RATE, momentum=0.9, clip_norm=0.5)}),
    "bf16": (Tiny, {"precision": "bf16", "space": CLIPPED}),
    "fp16": (Tiny, {"precision": "fp16"}),
    "skipped": (Overflowing, {"precision": "fp16", "space": CLIPPED}),
    "traced": (Tiny, {"kind": "stability"}),
    "averages": (Tiny, {"ema_steps": 4}),
    "weights": (Cleared, {}),
    "weights as numbers": (Numbered, {}),
    "sparse": (of_(functools.partial(Embedded, sparse=True)), {"optimizer": "sgd"}),
    "sparse and dense": (of_(functools.partial(Embedded, sparse=True, also_dense=True)), {"optimizer": "sgd"}),
    "absent": (of_(functools.partial(Embedded, sparse=False)), {"space": CLIPPED}),
    "dtypes": (of_(Never), {}),
    "images": (of_(Image), {}),
    "mean of all": (of_(functools.partial(Image, momentum=None)), {}),
    "checkpointed": (of_(functools.partial(Image, checkpointed=True)), {}),
    "of random depth": (of_(Deep), {}),
}


def run_of(case, gang=None, **more):
    workload, changes = CASES[case]
    study = tiny_study(**{"batch_size": 16, "slices": SLICES, "budget": StepBudget(60, 20), **changes, **more})
    run = TrialRun(setting_for(study, None, workload()), planned_trials(study)[0])
    if gang is not None:
        run.gang = gang
        gang.open(payload_of(len(run.parameters), SLICES // gang.world))
    return run


def trained(case, steps, gang=None):
    """A digest of all that a trial has after some steps: weights, moments, losses, norms, averages, the scale."""
    run = run_of(case, gang)
    with run.setup.loading():
        run.advance(steps)
    assert case != "skipped" or run.scale.skipped_since > 1
    return canonical_digest({**run.state(), "gradients": [parts_of(one.grad) for one in run.parameters]})


def parts_of(gradient):
    """Of a sparse one its places and values."""
    is_sparse = gradient is not None and gradient.is_sparse
    return [gradient.indices(), gradient.values()] if is_sparse else [gradient]


def all_trained(cases, steps, gang):
    """By case its digest; on all ranks the same."""
    found = {}
    for case in cases:
        digest = trained(case, steps, gang)
        assert set(gang.all_of(digest.encode())) == {digest.encode()}, case
        found[case] = digest
    return found


def in_gang(world, do):
    return run_gang(world, do, do)


@pytest.mark.parametrize(("world", "small"), [(2, 0), (4, gang_sums.SMALL)])
def test_ranks_together_have_the_bits_of_one_process(world, small, monkeypatch):
    steps = 5
    monkeypatch.setattr(gang_sums, "SMALL", small)
    found = in_gang(world, functools.partial(all_trained, CASES, steps))
    assert found == {case: trained(case, steps) for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize(("world", "small"), [(2, gang_sums.SMALL), (4, 0)])
def test_ranks_together_have_the_bits_of_one_process_after_60_steps(world, small, monkeypatch):
    steps = 60
    monkeypatch.setattr(gang_sums, "SMALL", small)
    found = in_gang(world, functools.partial(all_trained, CASES, steps))
    assert found == {case: trained(case, steps) for case in CASES}


def test_all_reduce_in_place_of_the_tree_gives_other_bits(monkeypatch):
    """The sabotage: torch's own sum depends on the number of ranks, so the comparison above can fail."""

    def reduced(self, tensors):
        for tensor in tensors:
            torch.distributed.all_reduce(tensor, group=self.gang.large)

    monkeypatch.setattr(TreeReduction, "add_up", reduced)
    assert in_gang(4, functools.partial(all_trained, ["adamw"], 3)) != {"adamw": trained("adamw", 3)}


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)


def drawn_branch(seed, bucket):
    """A loss and gradients of all kinds and sizes: some of no rank, some of one alone, zeros of both signs, denormals.

    seed: of this rank's slice, and of what is the same on all ranks.
    """
    common, own = random.Random(seed[0]), random.Random(seed[1])
    numbers = torch.Generator().manual_seed(seed[1])
    gradients = []
    for _ in range(common.randint(1, 9)):
        dtype = common.choice(DTYPES)
        shape = tuple(common.randint(0, 7) for _ in range(common.randint(0, 4)))
        shape = common.choice([shape, (common.randint(1, 2 * bucket),)])
        kind = common.choice(["dense", "absent", "now and then", "sparse", "sparse or dense", "turned"])
        dimensions = common.randint(1, max(1, len(shape)))
        tensor = torch.randn(shape, dtype=dtype, generator=numbers) * 10.0 ** own.randint(-44, 3)
        tensor = tensor * torch.randint(-1, 2, shape, generator=numbers)  # zeros, also negative ones
        kind = own.choice(
            {"now and then": ["dense", "absent"], "sparse or dense": ["sparse", "dense"]}.get(kind, [kind])
        )
        if kind == "sparse" and tensor.dim() and tensor.numel() and dtype in DTYPES[:2]:  # torch adds no others
            tensor = tensor.to_sparse(dimensions).coalesce()
        if kind == "turned" and tensor.dim() > 1:
            tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        gradients.append(None if kind == "absent" else tensor)
    return WeightedSum(torch.randn((), generator=numbers), gradients)


def parameters_like(branches):
    """Parameters that such gradients may be of."""
    found = []
    for same in zip(*(branch.gradients for branch in branches), strict=True):
        one = next((one for one in same if one is not None), torch.zeros(1))
        found.append(torch.empty(one.shape, dtype=one.dtype) if one.is_sparse else torch.empty_like(one))
    return [nn.Parameter(one) for one in found]


def content(total):
    """Bits and places of all numbers."""
    parts = [[total.loss], *map(parts_of, total.gradients)]
    strides = [one if one is None or one.is_sparse else one.stride() for one in total.gradients]
    return canonical_digest(
        {"parts": parts, "strides": [list(one or ()) if isinstance(one, tuple) else [] for one in strides]}
    )


def all_summed(draws, bucket, gang):
    """A digest of each of many sums over the ranks."""
    found = []
    for draw in range(draws):
        branches = [drawn_branch((draw, 1000 * draw + rank), bucket) for rank in range(gang.world)]
        parameters = parameters_like(branches)
        gang.open(payload_of(len(parameters), 1))
        sums = GangSums(gang, nn.Linear(1, 1), parameters)
        sums._reduction.bucket = bucket
        found.append(content(sums.whole(branches[gang.rank])))
    return found


@pytest.mark.parametrize(("world", "flush"), [(2, False), (4, True)], ids=["denormals", "flushed"])
def test_the_tree_over_ranks_is_the_sum_of_one_process(world, flush, monkeypatch):
    """Of drawn gradients, in buckets of a few numbers, with denormals as numbers and as zeros."""
    draws, bucket = 40, 48
    monkeypatch.setattr(gang_sums, "SMALL", 24)  # so that some go either way

    def summed(gang):
        with flushed(flush):
            return all_summed(draws, bucket, gang)

    found = in_gang(world, summed)
    with flushed(flush):
        for draw, digest in enumerate(found):
            branches = [drawn_branch((draw, 1000 * draw + rank), bucket) for rank in range(world)]
            assert content(tree_sum(branches.__getitem__, range(world), WeightedSum.plus)) == digest, draw


@contextmanager
def flushed(flush):
    torch.set_flush_denormal(flush)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
