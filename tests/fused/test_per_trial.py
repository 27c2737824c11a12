"""All that may differ between the trials of a group: each has its own, with the bits of the trial alone."""

import pytest
import torch
import torch.nn.functional as F
from support.fusible import Images, Mlp, MlpWithDropout, Temperature, runs_of
from support.fusing import trained_together
from support.tiny import setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform, uniform
from tuner.fused import engine as fused_engine
from tuner.fused.making import exact_group, make_group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest

RATE = log_uniform(1e-3, 1e-2)
NUMBERS = {"dropout": 0.1, "label_smoothing": 0.1}


class Slope(Images):
    """A number of each trial inside a module of torch's own."""

    def model(self, point):
        return nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.1), nn.Linear(32, 10))

    def loss(self, model, batch, point):
        return super().loss(model, (batch[0] * point["temperature"], batch[1]), point)


# hyperparameter: (workload, optimizer, its range)
VARYING = {
    "learning_rate": (Mlp, "adamw", RATE),
    "weight_decay": (Mlp, "adamw", log_uniform(1e-3, 1.0)),
    "one_minus_beta1": (Mlp, "adamw", uniform(0.05, 0.5)),
    "one_minus_beta2": (Mlp, "adam", log_uniform(1e-3, 0.1)),
    "epsilon": (Mlp, "adamw", log_uniform(1e-8, 1e-3)),
    "momentum": (Mlp, "sgd", uniform(0.5, 0.95)),
    "one_minus_momentum": (Mlp, "sgd", log_uniform(0.05, 0.5)),
    "clip_norm": (Mlp, "adamw", uniform(0.1, 1.0)),
    "label_smoothing": (Mlp, "adamw", uniform(0.0, 0.2)),
    "dropout": (MlpWithDropout, "adamw", uniform(0.1, 0.5)),
    "temperature": (Slope, "adamw", uniform(0.5, 2.0)),
    "decay_fraction": (Mlp, "adamw", uniform(0.1, 0.9)),
}


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


def assert_the_same_together(make):
    together, alone = make(), make()
    exact_group(together).advance(5)
    for run in alone:
        run.advance(5)
    assert digests(together) == digests(alone)
    assert len(set(digests(alone))) == len(alone)


@pytest.mark.parametrize("name", VARYING)
def test_each_trial_has_its_own(name, tmp_path):
    workload, optimizer, values = VARYING[name]
    space = SearchSpace(**(NUMBERS | {"learning_rate": 3e-3, name: values}))

    def make():
        return runs_of(workload(), 3, space, optimizer=optimizer)

    assert len({run.point.get(name, run.trial.schedule) for run in make()}) == 3
    assert_the_same_together(make)


def test_each_trial_has_its_own_initialization_and_noise():
    runs = runs_of(MlpWithDropout(), 3)
    assert len({run.trial.seed for run in runs}) == 3
    weights = [run.model[1].weight for run in runs]
    assert not torch.equal(weights[0], weights[1])
    assert_the_same_together(lambda: runs_of(MlpWithDropout(), 3))


@pytest.mark.parametrize("smoothing", [0.0, uniform(0.05, 0.2)])
def test_labels_that_do_not_count_do_not_count_in_a_group(smoothing):
    class Padded(Mlp):
        def loss(self, model, batch, point):
            labels = torch.where(batch[1] < 3, -100, batch[1])
            return F.cross_entropy(model(batch[0]), labels, label_smoothing=point["label_smoothing"])

    space = SearchSpace(learning_rate=RATE, dropout=0.1, label_smoothing=smoothing)
    assert_the_same_together(lambda: runs_of(Padded(), 3, space))


def test_any_number_may_stand_in_the_loss():
    assert_the_same_together(lambda: runs_of(Temperature(), 3))


def test_a_group_becomes_smaller_when_trials_diverge_and_the_others_do_not_notice(tmp_path, monkeypatch):
    sizes = []
    counted = lambda runs, **rest: sizes.append(len(runs)) or make_group(runs, **rest)  # noqa: E731
    monkeypatch.setattr(fused_engine, "make_group", counted)
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e9), **NUMBERS)
    study = tiny_study(num_trials=8, space=space, optimizer="sgd")
    trials = planned_trials(study)
    recorder = trained_together(setting_for(study, tmp_path), trials)
    diverged = [trial for trial in trials if recorder.state(trial) is State.INFEASIBLE]
    assert len(diverged) >= 4, "half of them must end early"
    assert sizes[0] == 8
    assert 8 - len(diverged) in sizes[1:] or 8 - len(diverged) == 1
