"""A training whose validation curve is known by hand, to see at which step it stops early."""

import torch
from torch import nn

from support.tiny import tiny_study
from tuner import SearchSpace, Splits, Workload, constant, log_uniform, minimize
from tuner.budget.step_budget import StepBudget

TARGET = 0.12


class Weight(nn.Module):
    """One weight, which grows by the learning rate at every step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x * self.weight


class Passing(Workload):
    """The loss is minus the weight, so that after s steps of SGD it is s x rate; validation is its distance to TARGET.

    So the best step is TARGET / rate, and validation gets worse from there on.
    """

    batch_size = 4
    select_by = minimize("validation/distance")

    def data(self):
        return Splits(training=(torch.ones(8, 1),), validation=(torch.ones(4, 1),))

    def model(self, point):
        return Weight()

    def loss(self, model, batch, point):
        return -model(batch[0]).mean()

    def metrics(self, model, batch):
        return {"distance": (model(batch[0]) - TARGET).abs().squeeze(1)}


def passing_study(patience_steps, *, steps=60, evaluate_every=5, **changes):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    return tiny_study(
        **{
            "space": space, "optimizer": "sgd", "schedule": constant(), "warmup_steps": 0, "batch_size": 4,
            "budget": StepBudget(steps, evaluate_every), "objective": minimize("validation/distance"),
            "fitted_when": None, "patience_steps": patience_steps, "keep_best": 1, **changes,
        }
    )  # fmt: skip
