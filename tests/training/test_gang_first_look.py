"""The first look with a gang: whatever a slice leaves behind for the next one is refused by its name."""

import logging

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from support.fusible import Images, Mlp, MlpWithDropout, Residual, TransformerEncoderWithDropout, runs_of
from support.tiny import CPU, setting_for, tiny_study
from torch import nn

from tuner.errors import WorkloadError
from tuner.rounds.plan import planned_trials
from tuner.training.engine import Asked
from tuner.training.gang_first_look import look_at_gang
from tuner.training.inspection import inspected

SLICES = 4
RANKS = 2


def looked_at(workload):
    (run,) = runs_of(workload, 1, slices=SLICES)
    look_at_gang(run, run.model, RANKS)


def refused(workload):
    with pytest.raises(WorkloadError) as caught:
        looked_at(workload)
    return str(caught.value)


@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout, Residual, TransformerEncoderWithDropout])
def test_what_depends_on_weights_and_batch_alone_is_fine(workload, caplog):
    with caplog.at_level(logging.WARNING):
        looked_at(workload())
    assert caplog.records == []


class Synced(Images):
    def model(self, point):
        return nn.Sequential(nn.Linear(64, 16), nn.SyncBatchNorm(16), nn.Linear(16, 10))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])


def test_synced_batch_norms_are_refused():
    said = refused(Synced())
    assert "Synced.model has SyncBatchNorm (1)" in said
    assert "write BatchNorm" in said


class Remembers(Mlp):
    """Its loss is scaled by how often it was called, which it counts again in each step."""

    def __init__(self):
        self.calls = 0

    def loss(self, model, batch, point):
        self.calls = self.calls % SLICES + 1
        return super().loss(model, batch, point) * self.calls


class RemembersDeeply(Mlp):
    """The same, where a copy of what the workload holds does not reach."""

    def __init__(self):
        self.kept = {"calls": [0]}

    def loss(self, model, batch, point):
        self.kept["calls"][0] = self.kept["calls"][0] % SLICES + 1
        return super().loss(model, batch, point) * self.kept["calls"][0]


class Before(nn.Module):
    """Adds what the module before it had computed in the last call."""

    def __init__(self):
        super().__init__()
        self.last = None

    def forward(self, x):
        found = x if self.last is None else x + self.last
        self.last = x.detach().mean()
        return found


class KeepsActivations(Mlp):
    def model(self, point):
        return nn.Sequential(nn.Linear(64, 10), Before())


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (Remembers, "Remembers.calls"),
        (RemembersDeeply, "RemembersDeeply.kept['calls'][0]"),
        (KeepsActivations, "1.last"),
    ],
)
def test_what_python_keeps_from_slice_to_slice_is_refused_by_name(workload, name):
    said = refused(workload())
    assert "is another one for a slice after the slice before it" in said
    assert f"({name})" in said
    assert "without a gang" in said


class Counts(Mlp):
    """It counts, and nothing reads the number."""

    def __init__(self):
        self.calls = 0

    def loss(self, model, batch, point):
        self.calls += 1
        return super().loss(model, batch, point)


class Caches(Mlp):
    """What is made at the first call is the same for every rank."""

    def __init__(self):
        self.scale = None

    def loss(self, model, batch, point):
        if self.scale is None:
            self.scale = torch.ones(())
        return super().loss(model, batch, point) * self.scale


def test_a_counter_that_nothing_reads_is_a_warning_and_a_cache_is_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        looked_at(Caches())
        assert caplog.records == []
        looked_at(Counts())
    assert "the loss of Counts changes what Python holds (Counts.calls)" in caplog.text


class Queue(nn.Module):
    """Activations of earlier examples."""

    queue: torch.Tensor

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("queue", torch.zeros(16, 10))

    def forward(self, x):
        found = self.layer(x)
        self.queue = torch.cat([found.detach(), self.queue])[:16]
        return found


class Teacher(nn.Module):
    """A second net follows the first, in the forward pass."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = nn.Linear(64, 10), nn.Linear(64, 10).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            self.teacher.weight.mul_(0.9).add_(self.student.weight, alpha=0.1)
        return self.student(x)


class Codebook(nn.Module):
    """A moving average of what it sees, which nothing reads in training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("codebook", torch.zeros(10))

    def forward(self, x):
        found = self.layer(x)
        self.codebook.mul_(0.9).add_(found.detach().mean(0), alpha=0.1)
        return found


class Keeps(Mlp):
    """Whatever model it is given."""

    def __init__(self, make):
        self.make = make

    def model(self, point):
        return self.make()


@pytest.mark.parametrize(
    ("make", "names", "kind"),
    [
        (Queue, "queue", "a queue of earlier examples"),
        (Teacher, "teacher.weight", "a teacher that follows"),
        (Codebook, "codebook", "a codebook"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(64, 10)), "._u", "a spectral norm"),
    ],
)
def test_what_a_model_keeps_from_slice_to_slice_is_refused_by_name(make, names, kind):
    said = refused(Keeps(make))
    assert "the loss of Keeps changes the model, slice by slice (" in said
    assert names in said
    assert f"): {kind}. Each rank of a gang" in said
    assert "train it without a gang, or do without (" in said


class CachesBuffer(nn.Module):
    """A buffer that the first forward pass makes, and no later one changes."""

    mask: torch.Tensor | None

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("mask", None)

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.ones(10)
        return self.layer(x) * self.mask


def test_a_buffer_that_the_first_pass_makes_is_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        looked_at(Keeps(CachesBuffer))
    assert caplog.records == []


class Gathers(Mlp):
    def loss(self, model, batch, point):
        found = model(batch[0])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
        return F.cross_entropy(found, batch[1])


def test_a_loss_that_gathers_itself_is_refused():
    said = refused(Gathers())
    assert "calls torch.distributed (is_initialized, in test_gang_first_look.py)" in said


def test_the_model_stays_as_it_is():
    (run,) = runs_of(Residual(), 1, slices=SLICES)
    before = {name: one.clone() for name, one in run.model.state_dict().items()}
    look_at_gang(run, run.model, RANKS)
    assert all(torch.equal(one, before[name]) for name, one in run.model.state_dict().items())


def test_the_inspection_looks_for_a_gang_also_after_it_looked_without():
    study = tiny_study(batch_size=32, slices=SLICES)
    setup, trials, asked = setting_for(study, None, Synced(), CPU), planned_trials(study), Asked()
    inspected(setup, trials, asked)
    with pytest.raises(WorkloadError, match="SyncBatchNorm"):
        inspected(setup, trials, Asked(known=asked.known, gang=RANKS))
