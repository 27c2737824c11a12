"""What a first look finds that the loss of a slice changes, and whether a checksum sees a difference."""

import copy

import pytest
import torch
from support.odd_models import Annealed, Base
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn
from torch.nn.utils import parametrizations

from tuner.errors import WorkloadError
from tuner.rounds.plan import planned_trials
from tuner.training import gang_norms
from tuner.training.gang_look import changed_by_loss, state_checksum
from tuner.training.trial_run import TrialRun


class Made(Tiny):
    def __init__(self, make):
        self.make = make

    def model(self, point):
        return self.make()


def run_of(make):
    study = tiny_study(batch_size=16, slices=4)
    return TrialRun(setting_for(study, None, Made(make)), planned_trials(study)[0])


def found_in(make):
    run = run_of(make)
    before = state_checksum(run)
    found = changed_by_loss(run, run.model)
    assert state_checksum(run) == before, "the model stays as it is"
    return found


class Queue(Base):
    """The last examples, as a buffer that is not saved."""

    queue: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(8, 2), persistent=False)

    def forward(self, x):
        output = self.net(x)
        self.queue = torch.cat([output.detach(), self.queue])[:8]
        return output


class Teacher(Base):
    """Weights that follow others within the loss."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Linear(6, 2).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                mine.data.lerp_(theirs.data, 0.1)
        return self.net(x) + self.teacher(x)


class ByHand(Base):
    """Statistics that a call of the function updates."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        norm = self.norm
        return self.net(nn.functional.batch_norm(x, norm.running_mean, norm.running_var, training=True))


def spectral():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 2)))


def instances():
    norm = nn.InstanceNorm1d(2, track_running_stats=True)
    return nn.Sequential(nn.Unflatten(1, (2, 3)), norm, nn.Flatten(), Base())


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Base, []),
        (lambda: Tiny().model({}), []),
        (Queue, ["queue"]),
        (Teacher, ["teacher.weight", "teacher.bias"]),
        (ByHand, ["norm.running_mean", "norm.running_var"]),
        (spectral, ["0.parametrizations.weight.0._u", "0.parametrizations.weight.0._v"]),
        (Annealed, ["the extra state of the model"]),
        (instances, ["1.running_mean", "1.running_var"]),
    ],
    ids=["plain", "batch norm", "queue", "teacher", "by hand", "spectral norm", "extra state", "instance norm"],
)  # fmt: skip
def test_a_look_names_what_the_loss_of_a_slice_changes(make, names):
    found = found_in(make)
    assert found[: len(names)] == names
    assert bool(found) == bool(names)


class Halved(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(Halved(6), Base()), "0 is a Halved"),
        (lambda: nn.Sequential(nn.SyncBatchNorm(6), Base()), "0 is a SyncBatchNorm"),
    ],
)
def test_batch_norms_that_a_gang_cannot_keep_are_refused_by_name(make, words):
    with pytest.raises(WorkloadError, match=words):
        found_in(make)


class Turned(Base):
    """A batch norm of what lies in memory in another order."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        turned = x.view(-1, 3, 2).transpose(1, 2)
        return self.net(self.norm(turned).transpose(1, 2).reshape(-1, 6))


def test_a_norm_of_dimensions_in_an_order_of_their_own_is_none_of_what_changes():
    assert found_in(Turned) == []


def test_a_kernel_of_which_no_formula_is_known_is_refused_with_a_way_out(monkeypatch):
    known = [gang_norms._in_own, gang_norms._moved]
    monkeypatch.setattr(gang_norms, "WAYS", known)
    with pytest.raises(WorkloadError, match=r"norm \(a BatchNorm1d, input \[4, 2, 3\].*Write .contiguous\(\)"):
        found_in(Turned)


def test_a_checksum_sees_a_bit_of_any_tensor():
    run = run_of(lambda: Tiny().model({}))
    run.advance(2)
    tensors = [
        *run.model.parameters(),
        run.model[1].running_var,
        run.model[1].num_batches_tracked,
        *(kept[name] for kept in run.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")),
    ]
    found = [state_checksum(run)]
    for tensor in tensors:
        before = copy.deepcopy(tensor.detach())
        with torch.no_grad():
            tensor.view(-1).view(torch.uint8)[0] ^= 1
            found.append(state_checksum(run))
            tensor.copy_(before)
        assert state_checksum(run) == found[0]
    assert len(set(found)) == len(found)


def test_the_checksum_sees_averages_and_the_scale_of_the_loss():
    study = tiny_study(batch_size=16, slices=4, precision="fp16", ema_steps=5)
    run = TrialRun(setting_for(study, None), planned_trials(study)[0])
    run.advance(2)
    found = [state_checksum(run)]
    run.averages.values[0].view(-1).view(torch.uint8)[0] ^= 1
    found.append(state_checksum(run))
    run.scale.value *= 2
    found.append(state_checksum(run))
    run.scale.good += 1
    found.append(state_checksum(run))
    run.scale.skipped_since += 1  # since an evaluation, which only rank 0 reads
    assert state_checksum(run) == found[-1]
    assert len(set(found)) == 4
