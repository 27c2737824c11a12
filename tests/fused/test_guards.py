"""Each guard against a silent error: what it refuses, and what would happen without it."""

from typing import Any

import pytest
import torch
from support.fusible import MUST_FUSE, Mlp, runs_of
from torch import nn

from tuner import SearchSpace, log_uniform
from tuner.errors import NotFusible
from tuner.fused import group, making, recording
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.group import Group
from tuner.fused.making import exact_group, first_difference
from tuner.fused.noise import Sites
from tuner.fused.operations import Operations
from tuner.fused.rules import TABLE

Branching = next(each for each in MUST_FUSE if each.__name__ == "Branching")


class GlobalNoise(Mlp):
    """Noise on the shared batch: one draw for all trials, where each alone would draw its own."""

    def loss(self, model, batch, point):
        return super().loss(model, (batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]), point)


def test_noise_of_the_global_generator_is_refused_and_would_be_shared_by_all_trials(monkeypatch):
    with pytest.raises(NotFusible, match="randn_like: random numbers besides dropout"):
        Group(runs_of(GlobalNoise(), 2))
    monkeypatch.setattr(recording, "_generators", lambda batch: torch.zeros(1))
    runs = runs_of(GlobalNoise(), 2)
    for run in runs[1:]:  # two equal trials but for their seeds of noise
        run.model.load_state_dict(runs[0].model.state_dict())
    unguarded = Group(runs)
    unguarded.advance(1)
    alone = runs_of(GlobalNoise(), 2)
    for run in alone:
        run.model.load_state_dict(runs_of(GlobalNoise(), 1)[0].model.state_dict())
        run.advance(1)
    assert [float(run.losses[0]) for run in runs] != [float(run.losses[0]) for run in alone]
    assert "the loss" in first_difference(Group(runs_of(GlobalNoise(), 2))), "the self-check is a second guard"


class WritesIntoTheBatch(Mlp):
    def loss(self, model, batch, point):
        batch[0].mul_(1.0)
        return super().loss(model, batch, point)


def test_writes_into_what_trials_share_are_refused(monkeypatch):
    with pytest.raises(NotFusible, match="mul_ writes into the batch or into a hyperparameter"):
        Group(runs_of(WritesIntoTheBatch(), 2))
    monkeypatch.setattr(recording, "check_graph", lambda graph, num_own: None)
    assert Group(runs_of(WritesIntoTheBatch(), 2)).ways, "nothing else would notice"


class Counting(nn.Sequential):
    """Multiplies by how often it was called: a Python number that a recording freezes."""

    calls = 0.0

    def forward(self, x):
        self.calls = self.calls + 1.0
        return super().forward(x) * (1.0 + 0.1 * self.calls)


class BakedNumber(Mlp):
    def model(self, point):
        return Counting(nn.Linear(64, 10))


def test_a_python_number_that_a_recording_froze_shows_at_the_second_batch(monkeypatch):
    monkeypatch.setattr(recording, "changed", lambda *seen: "")  # the guard that looks at such numbers
    with pytest.raises(NotFusible, match="not those of each trial alone: trial 0: the loss"):
        exact_group(runs_of(BakedNumber(), 2))
    monkeypatch.setattr(making, "UPDATES", 1)
    assert exact_group(runs_of(BakedNumber(), 2)), "one batch alone does not show it"


def test_unused_parameters_are_left_alone_and_would_be_decayed(monkeypatch):
    assert first_difference(Group(runs_of(Branching(), 2))) is None

    def all_of_them(task, losses, parameters):
        found = torch.autograd.grad(losses.sum(), parameters, allow_unused=True, materialize_grads=True)
        return list(task.model.parameters), list(found)

    monkeypatch.setattr(recording, "_gradients", all_of_them)
    runs = runs_of(Branching(), 2)
    before = runs[0].model.unused.weight.clone()
    unguarded = Group(runs)
    assert "unused.weight has a gradient" in first_difference(unguarded)
    unguarded.advance(1)
    assert not torch.equal(runs[0].model.unused.weight, before)


def test_batches_of_ever_new_forms_are_refused(monkeypatch):
    monkeypatch.setattr(group, "MAX_RECORDINGS", 0)
    with pytest.raises(NotFusible, match="batches of more than 0 forms"):
        Group(runs_of(Mlp(), 2))


class SeldomNoisy(Mlp):
    """Draws at each evaluation what almost never matters: the same bits, until it does."""

    def metrics(self, model, batch):
        scale = 2.0 if torch.rand(()) < 1e-6 else 1.0
        return {name: scale * values for name, values in super().metrics(model, batch).items()}


def test_metrics_that_draw_random_numbers_are_evaluated_trial_by_trial():
    evaluation = GroupEvaluation(Group(runs_of(SeldomNoisy(), 2)))
    assert evaluation.of([0, 1]) == {}
    assert "rand: random numbers besides dropout" in evaluation.refused


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("total", [torch.sum, torch.mean, lambda x: x.sum((0, 1)), torch.logsumexp])
def test_a_total_that_threads_share_is_each_trials_own(total, two_threads):
    """A total is one number: in another order it may have the same bits at a few updates, by chance."""
    values = torch.randn(3, 500, 400, generator=torch.Generator().manual_seed(0))
    operations = Operations(3, TABLE, Sites(lambda mask: None))
    arguments = ((0, 1),) if total is torch.logsumexp else ()
    found = total(operations.trial(values), *arguments).stacked
    assert torch.equal(found, torch.stack([total(each, *arguments) for each in values]))
    assert set(operations.ways.values()) == {"loop"}


VIEWS = {
    "repeated": lambda x: torch.meshgrid(x[0], x[1], indexing="ij")[0],
    "transposed back": lambda x: torch.rot90(x).mT,
    "with gaps": lambda x: torch.hsplit(x, 2)[1],
    "every other": lambda x: torch.as_strided(x, (10, 5), (10, 2)),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_what_a_loop_gives_is_added_up_in_the_order_of_each_trials_own(kind):
    """A mean goes through memory in its order, so copies in another would give other sums."""
    for seed in range(5):
        values = torch.randn(3, 10, 10, generator=torch.Generator().manual_seed(seed))
        operations = Operations(3, TABLE, Sites(lambda mask: None))
        found: Any = VIEWS[kind](operations.trial(values)).mean()
        assert torch.equal(found.stacked, torch.stack([VIEWS[kind](each).mean() for each in values]))
        assert "loop" in operations.ways.values()


def test_a_norm_of_the_gradient_that_is_not_that_of_the_trial_alone_is_noticed(monkeypatch):
    """The weights have the right bits then, and only what is recorded of the norms is wrong."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=0.1, label_smoothing=0.1, clip_norm=0.5)
    clip = Group._clip

    def wrong(self, trial, limit):
        clip(self, trial, limit)
        self.norms[trial].add_(1.0)

    assert first_difference(Group(runs_of(Mlp(), 2, space))) is None
    monkeypatch.setattr(Group, "_clip", wrong)
    assert "trial 0: the norm of the gradient" in first_difference(Group(runs_of(Mlp(), 2, space)))
