"""Checks before training make a whole update, save it and go on from it; what fails there fails before all else."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.odd_models import (
    WORKS,
    Counting,
    Odd,
    Outside,
    OwnGenerator,
    PlainTensor,
    Unreadable,
    WithoutSetter,
    Words,
)
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform
from tuner.budget.step_budget import StepBudget
from tuner.design.optimizers import one_group, optimizer_named
from tuner.errors import NotFusible, WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.models import build_model
from tuner.training.optimizers import make_optimizer, settle_sparse
from tuner.training.preflight import check_workload
from tuner.training.stability import clip_gradients, total_norm
from tuner.training.trial_run import TrialRun

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")


def study_of(workload, **changes):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **workload.point)
    return replace(tiny_study(space=space), optimizer=workload.optimizer, augment=True, **changes)


@pytest.mark.parametrize("name", WORKS)
def test_an_odd_model_passes_and_a_resumed_trial_has_the_bits_of_a_whole_one(name, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("tuner.training.preflight.SLOW_CHECK", float("inf"))  # however busy the machine is
    workload = WORKS[name]
    study = study_of(workload)
    trial = planned_trials(study)[0]
    check_workload(setting_for(study, tmp_path, workload), trial)
    assert not caplog.records
    assert list(tmp_path.iterdir()) == []
    whole = trained_alone(setting_for(study, tmp_path / "whole", workload), [trial])
    assert whole.state(trial) is State.COMPLETE
    parts, folder = TrialsRecorder(), tmp_path / "parts"
    for stop in (1, 7, 12):
        trained_alone(setting_for(study, folder, workload, stop=StopAt(stop + 1)), [trial], parts)
    trained_alone(setting_for(study, folder, workload), [trial], parts)
    assert meaning(parts, folder, trial) == meaning(whole, tmp_path / "whole", trial)


class HalfLazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.left = nn.Linear(6, 2), nn.LazyLinear(3)

    def forward(self, x):
        return self.net(x)


class ForLater(Tiny):
    """An unknown name is asked for in a part that only the model reads."""

    def model(self, point):
        return nn.Linear(6, int(point["width"]))


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError("no way back")


class NoWayBack(Tiny):
    def loss(self, model, batch, point):
        return Backward.apply(super().loss(model, batch, point))


_ONLY = nn.Linear(6, 2)


class BadAugment(Tiny):
    def augment(self, batch, point, generator):
        raise OSError("no such noise")


REFUSED = {
    "adamw": (Odd(lambda: Words(bag=True), "adamw"), r"optimizer's step failed .*adamw takes no sparse.*sparse=False"),
    "nothing": (Odd(nn.Identity), "no parameter to train"),
    "frozen": (Odd(lambda: nn.Linear(6, 2).requires_grad_(False)), "no parameter to train: .*requires_grad=False"),
    "plain tensor": (Odd(PlainTensor), r"another than one that runs through: the loss .*\(mean\): use register_buffer"),
    "counting": (Odd(Counting), r"no checkpoint holds \(calls\): use .*get_extra_state"),
    "outside": (Odd(Outside), r"no checkpoint holds \(.*_CALLS\)"),
    "generator": (Odd(OwnGenerator), r"another than one that runs through"),
    "unreadable": (Odd(Unreadable), r"'_extra_state' in the model's state_dict cannot be saved .*return numbers"),
    "without setter": (Odd(WithoutSetter), r"loading a saved state into a fresh model failed with RuntimeError"),
    "backward": (NoWayBack(), r"the backward pass of the loss failed with RuntimeError: no way back"),
    "augment": (BadAugment(), r"BadAugment.augment failed with OSError: no such noise"),
    "point": (ForLater(), r"ForLater asks its point for 'width', which the search space does not declare"),
    "same module": (Odd(lambda: _ONLY), r"Odd.model returns the same module at each call"),
    "lazy": (Odd(HalfLazy), r"parameters that a first batch does not make: left.weight, left.bias"),
    "lazy shape": (Odd(lambda: nn.Sequential(nn.LazyConv2d(3, 1))), r"Odd.model failed with"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_or_saved_is_one_error_that_names_the_stage(name, tmp_path):
    workload, message = REFUSED[name]
    study = study_of(workload) if isinstance(workload, Odd) else tiny_study()
    with pytest.raises(WorkloadError, match=message) as raised:
        check_workload(setting_for(study, tmp_path, workload), planned_trials(study)[0])
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


class Remembers(Tiny):
    """Draws from every global generator, and keeps the last batch."""

    def loss(self, model, batch, point):
        self.last = batch
        random.random(), np.random.rand(), torch.rand(1)
        return super().loss(model, batch, point)


class CountingOptimizer(torch.optim.SGD):
    """Counts its steps where torch does not save it."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            group["momentum"] = 0.5 / self.count
        return super().step()


def test_an_optimizer_that_keeps_what_torch_does_not_save_is_refused_with_the_place_for_it(tmp_path):
    study = tiny_study(optimizer=optimizer_named(CountingOptimizer))
    with pytest.raises(WorkloadError, match=r"that no checkpoint holds.*self\.state for what an optimizer keeps"):
        check_workload(setting_for(study, tmp_path), planned_trials(study)[0])


def test_the_check_leaves_generators_and_workload_as_they_were(tmp_path):
    study, workload = tiny_study(), Remembers()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check_workload(setting_for(study, tmp_path, workload), planned_trials(study)[0])
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert vars(workload) == {}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_study_of_a_few_steps_can_be_checked(steps, tmp_path):
    study = tiny_study(budget=StepBudget(steps, 1), warmup_steps=0)
    check_workload(setting_for(study, tmp_path), planned_trials(study)[0])


def test_a_gradient_with_repeated_rows_is_measured_and_clipped_as_the_dense_one():
    """Rows 1 and 1 add up to (3, 0): with (4, 0) in row 2 the norm is 5, and clipped to 1 the rows are 0.6 and 0.8."""
    weight = nn.Parameter(torch.zeros(3, 2))
    weight.grad = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 2]]), torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), (3, 2), check_invariants=True
    )
    optimizer = make_optimizer("sgd", one_group([weight]), {}, 0.1)
    assert float(total_norm([weight.grad])) == 5.0
    settle_sparse(optimizer, [weight])
    assert float(clip_gradients([weight], 1.0)) == 5.0
    assert torch.allclose(weight.grad.to_dense(), torch.tensor([[0.0, 0.0], [0.6, 0.0], [0.8, 0.0]]))
    assert optimizer.param_groups[0]["fused"] is False


def test_lazy_parameters_are_a_function_of_the_seed_alone(tmp_path):
    workload = WORKS["lazy in training"]
    study = study_of(workload)
    setting, (trial, other, _) = setting_for(study, tmp_path, workload), planned_trials(study)
    torch.manual_seed(1)
    one = build_model(setting, trial).state_dict()
    torch.manual_seed(2)
    again, another = build_model(setting, trial).state_dict(), build_model(setting, other).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weight"], another["net.weight"])
    assert one["extra.1.num_batches_tracked"] == 0
    assert torch.equal(one["extra.1.running_mean"], torch.zeros(2))
    assert torch.equal(one["norm.running_mean"], torch.zeros(8))


def test_memory_that_ends_in_the_check_is_left_to_the_trial(tmp_path, caplog):
    """A width that does not fit is infeasible, and no fault of the workload."""

    class Hungry(Tiny):
        def loss(self, model, batch, point):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    study = tiny_study()
    check_workload(setting_for(study, tmp_path, Hungry()), planned_trials(study)[0])
    assert "the first point needs more memory than there is" in caplog.text


@pytest.mark.parametrize("name", ["labelled", "lazy", "sparse with momentum"])
def test_odd_models_that_can_be_stacked_have_the_bits_of_each_alone(name, tmp_path):
    workload = WORKS[name]
    study = study_of(workload)
    trials = planned_trials(study)
    if name.startswith("sparse"):
        with pytest.raises(NotFusible, match="sparse gradients, which a stack of trials does not: write sparse=False"):
            trained_together(setting_for(study, tmp_path, workload), trials)
        return
    alone = trained_alone(setting_for(study, tmp_path / "alone", workload), trials)
    together = trained_together(setting_for(study, tmp_path / "together", workload), trials)
    for trial in trials:
        assert meaning(together, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)


def test_a_state_of_an_older_version_without_extra_state_is_marked(tmp_path):
    workload = WORKS["extra state"]
    study = study_of(workload)
    setting, trial = setting_for(study, tmp_path, workload), planned_trials(study)[0]
    run, other = TrialRun(setting, trial), TrialRun(setting, trial)
    run.advance(3)
    old = {name: part for name, part in run.state().items() if name != "extra"}
    other.load(old)
    assert not other.exact
