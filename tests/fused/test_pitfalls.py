"""Code that a recording, or one model for all, would get wrong without a sound: refused by name, or the same bits.

Each shows only late, or in a trial that no comparison happened to meet, so that the self-check would let it pass.
"""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.fusible import Images, Mlp, runs_of
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import setting_for, tiny_study
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tuner import SearchSpace, Splits, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.errors import NotFusible
from tuner.fused.group import Group
from tuner.fused.making import exact_group, make_group
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest
from tuner.training.compiler import spare_compiler

SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-2), dropout=uniform(0.1, 0.5), label_smoothing=0.0)


class Of(nn.Module):
    """A small model that prepares something in `make` and uses it in `use`, in place of the activation."""

    def __init__(self, make, use, point):
        super().__init__()
        self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 10)
        self.use = use
        make(self, point)

    def forward(self, x):
        return self.b(self.use(self, self.a(x)))


def workload(use, make=lambda model, point: None):
    class Made(Images):
        def model(self, point):
            return Of(make, use, point)

    return Made


def buffer(model, point):
    model.register_buffer("kept", torch.zeros(32))


def counter(model, point):
    model.register_buffer("calls", torch.zeros((), dtype=torch.long))


def frozen(model, point):
    model.target = nn.Linear(32, 32).requires_grad_(requires_grad=False)


def count_in_python(model, hidden):
    model.calls = getattr(model, "calls", 0) + model.training
    return hidden * (2.0 if model.calls > 6 else 1.0)


def put_a_new_buffer(model, hidden):
    if model.training:
        model.kept = 0.9 * model.kept + 0.1 * hidden.detach().mean(0)
    return torch.relu(hidden - model.kept)


def follow_by_lerp(model, hidden):
    if model.training:
        model.kept.lerp_(hidden.detach().mean(0), 0.1)
    return torch.relu(hidden - model.kept)


def count_every_call(model, hidden):
    model.calls += 1
    return torch.relu(hidden)


def put_a_new_counter(model, hidden):
    model.calls = model.calls + 1
    return torch.relu(hidden) * (1.0 + 0.01 * model.calls)


def follow_the_weights(model, hidden):
    if model.training:
        with torch.no_grad():
            model.target.bias.mul_(0.9).add_(model.a.bias, alpha=0.1)
    return torch.relu(hidden) + model.target(hidden)


def noisy_when_evaluated(model, hidden):
    return torch.relu(hidden) if model.training else torch.relu(hidden + torch.randn_like(hidden))


def count_evaluations(model, hidden):
    model.evaluated = getattr(model, "evaluated", 0) + (not model.training)
    return hidden * (2.0 if model.evaluated > 4 else 1.0)


def remember(model, hidden):
    model.last = torch.relu(hidden)
    return model.last


SAME_BITS = {
    "a buffer is replaced": workload(put_a_new_buffer, buffer),
    "a buffer is interpolated": workload(follow_by_lerp, buffer),
    "a buffer counts evaluations too": workload(count_every_call, counter),
    "a buffer is replaced in evaluations too": workload(put_a_new_counter, counter),
    "a frozen parameter follows another": workload(follow_the_weights, frozen),
    "metrics draw random numbers": workload(noisy_when_evaluated),
    "a tensor is left behind": workload(remember),
    "a tensor that is no buffer": workload(
        lambda model, hidden: torch.sin(hidden @ model.frequencies),
        lambda model, point: setattr(model, "frequencies", torch.randn(32, 32)),
    ),
}


@pytest.mark.parametrize("kind", SAME_BITS)
def test_what_a_model_keeps_is_kept_as_if_it_trained_alone(kind, tmp_path):
    study = tiny_study(space=SPACE, num_trials=3, budget=StepBudget(8, 2), fitted_when=None, batch_size=32)
    trials = planned_trials(study)
    folders = tmp_path / "together", tmp_path / "alone"
    together, alone = (
        train(setting_for(study, folder, SAME_BITS[kind]()), trials)
        for train, folder in zip((trained_together, trained_alone), folders, strict=True)
    )
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial)


class RareLabels(Images):
    """One label of 128 does not count: most batches are whole."""

    def data(self):
        splits = super().data()
        labels = splits.training[1].clone()
        labels[100] = -1
        return Splits(training=(splits.training[0], labels), validation=splits.validation)

    def model(self, point):
        return nn.Linear(64, 10)


class CountsTheMask(RareLabels):
    def loss(self, model, batch, point):
        counts = batch[1] >= 0
        losses = F.cross_entropy(model(batch[0]), batch[1].clamp(min=0), reduction="none")
        return losses[counts].sum() / losses[counts].shape[0]


class ListsTheLabels(RareLabels):
    def loss(self, model, batch, point):
        left = sum(label >= 0 for label in batch[1].tolist())
        return F.cross_entropy(model(batch[0]), batch[1], ignore_index=-1, reduction="sum") / left


class AsksNumPy(RareLabels):
    def loss(self, model, batch, point):
        left = float((np.asarray(batch[1]) >= 0).sum())
        return F.cross_entropy(model(batch[0]), batch[1], ignore_index=-1, reduction="sum") / left


class Draws(Mlp):
    """Seldom more than nothing: two steps show no difference."""

    def draw(self):
        return random.random()

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * (2.0 if self.draw() < 1e-6 else 1.0)


class DrawsByNumPy(Draws):
    def draw(self):
        return np.random.rand()


class DrawsByItsOwn(Draws):
    def draw(self):
        return torch.rand((), generator=torch.Generator().manual_seed(1)) + 1.0


def a_tensor(model, point):
    model.calls = torch.zeros(())


def add_in_place(model, hidden):
    model.calls += model.training
    return hidden * (1.0 + (model.calls > 6))


def put_another(model, hidden):
    model.calls = model.calls + model.training
    return hidden * (1.0 + (model.calls > 6))


def evaluations_add_in_place(model, hidden):
    model.calls += not model.training
    return hidden * (1.0 + (model.calls > 6))


def evaluations_put_another(model, hidden):
    model.calls = model.calls if model.training else model.calls + 1
    return hidden * (1.0 + (model.calls > 6))


spare_compiler(checkpoint)


def late_dropout(model, hidden):
    return checkpoint(lambda x: F.dropout(x, 1e-6, model.training), hidden, use_reentrant=False)


def hooked(model, point):
    """The hook counts in the model that it was made with, whichever copy calls it."""
    model.calls = 0

    def count(module, given, gone):
        model.calls += model.training
        return gone * (2.0 if model.calls > 40 else 1.0)

    model.a.register_forward_hook(count)


REFUSED = {
    workload(remember, hooked): r"the code changes a\._forward_hooks\[0\]'s model\.calls to",
    workload(add_in_place, a_tensor): "add_ writes into a tensor that is no parameter or buffer of the model",
    workload(put_another, a_tensor): "the code changes the tensor calls, at each step",
    workload(evaluations_add_in_place, a_tensor): "add_ writes into a tensor that is no parameter or buffer",
    workload(evaluations_put_another, a_tensor): "each evaluation changes the tensor calls, which a recording",
    workload(late_dropout): r"computed again for the gradient \(torch\.utils\.checkpoint\)",
    workload(count_evaluations): "each evaluation changes evaluated to 2, which a recording would freeze",
    workload(count_in_python): "the code changes calls to 2, at each step",
    CountsTheMask: "index: the code needs the values of a tensor",
    ListsTheLabels: "tolist: the code reads the value of a tensor which a recording would freeze",
    AsksNumPy: "__array__: the code reads the value",
    Draws: "random numbers besides dropout, from a global generator",
    DrawsByNumPy: "random numbers besides dropout, from a global generator",
    DrawsByItsOwn: "rand: random numbers of a generator that a recording would freeze",
}


@pytest.mark.parametrize("made", REFUSED, ids=REFUSED.values())
def test_what_would_be_frozen_is_refused_by_name(made):
    with pytest.raises(NotFusible, match=REFUSED[made]):
        make_group(runs_of(made(), 2))


def acts(chosen):
    return lambda model, point: setattr(model, "act", chosen(point["dropout"]))


DIFFERING = {
    "function": lambda rate: torch.tanh if rate < 0.15 else torch.relu,
    "closure": lambda rate: lambda x: torch.relu(x) * (2.0 if rate < 0.15 else 1.0),
    "list": lambda rate: [rate],
    "none": lambda rate: None if rate < 0.15 else rate,
}


@pytest.mark.parametrize("kind", DIFFERING)
def test_models_that_differ_in_python_alone_are_no_group(kind):
    def use(model, hidden):
        return model.act(hidden) if callable(model.act) else torch.relu(hidden)

    made = workload(use, acts(DIFFERING[kind]))
    with pytest.raises(NotFusible, match="the models of the trials are not alike: act"):
        Group(runs_of(made(), 12))


def test_a_loss_that_leaves_the_model_in_eval_mode_trains_on_in_training_mode():
    """Alone as well: a trial that was stopped and resumed at any step would begin in training mode."""

    class Leaves(Images):
        def model(self, point):
            return nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10))

        def loss(self, model, batch, point):
            loss = super().loss(model, batch, point)
            model.eval()
            return loss

    together, alone, halting = (runs_of(Leaves(), 2, SPACE) for _ in range(3))
    exact_group(together).advance(4)
    for run, other in zip(alone, halting, strict=True):
        run.advance(4)
        for step in range(1, 5):
            other.advance(step)
    digests = [[canonical_digest(run.state()) for run in runs] for runs in (together, alone, halting)]
    assert digests[0] == digests[1] == digests[2]


def test_classes_made_anew_for_each_model_may_be_alike():
    class Normed(Images):
        def model(self, point):
            class Double(nn.Module):
                def forward(self, x):
                    return 2.0 * x

            return nn.Sequential(parametrizations.weight_norm(nn.Linear(64, 32)), Double(), nn.Linear(32, 10))

    assert exact_group(runs_of(Normed(), 3)).ways["linear"] == "rule"


def test_a_branch_on_a_hyperparameter_that_all_trials_take_alike_is_no_difference():
    class Sure(Mlp):
        def loss(self, model, batch, point):
            return super().loss(model, batch, point) * (2.0 if point["dropout"] > 0.0 else 1.0)

    group = exact_group(runs_of(Sure(), 3, SPACE))
    assert len(group.runs) == 3


def test_what_a_loss_puts_into_the_workload_is_of_no_group():
    class Centring(Mlp):
        centre = None

        def loss(self, model, batch, point):
            logits = model(batch[0])
            shift = 0.0 if self.centre is None else self.centre
            self.centre = logits.detach().mean(0)
            return F.cross_entropy(logits - shift, batch[1])

    made = Centring()
    with pytest.raises(NotFusible, match=r"the code changes the tensor Centring\.centre, at each step"):
        exact_group(runs_of(made, 2, SPACE))
    assert made.centre is None, "nothing of the group is left in it"
