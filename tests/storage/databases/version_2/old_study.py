"""A study as tuner 0.1 trained it: two trials of 20 steps; the files beside the database are its checkpoints."""

import torch
import torch.nn.functional as F
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Workload, log_uniform, minimize


class Small(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")

    def data(self):
        x = torch.randn(48, 3, generator=torch.Generator().manual_seed(0))
        y = x.sum(1, keepdim=True)
        return Splits(training=(x[:32], y[:32]), validation=(x[32:], y[32:]))

    def model(self, point):
        return nn.Linear(3, 1)

    def loss(self, model, batch, point):
        return F.mse_loss(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        return {"loss": ((model(batch[0]) - batch[1]) ** 2)[:, 0]}


campaign = Campaign(
    Small(),
    regime="not_compute_bound",
    evaluations=4,
    rounds=[Round("q", trials=2, max_train_steps=20, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)))],
)
