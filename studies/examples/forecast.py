"""The next two weeks from the last eight: a forecast judged by the root of the mean squared error of a whole split.

Does a hidden layer beat a linear forecast? A root of a mean is no mean of roots, so it is a metric of the split. The
rate falls in two drops, as it often does for such nets.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Sweep,
    Workload,
    at_most,
    choice,
    log_uniform,
    minimize,
    step_drops,
)

PAST, FUTURE, DAYS, SHOPS = 56, 14, 500, 12


def sales():
    """Daily sales [SHOPS, DAYS]: a level, a trend, a week, a year, and what is left over from the day before."""
    draw = torch.Generator().manual_seed(0)
    normal = torch.randn(SHOPS, DAYS, generator=draw)
    level, trend, weekly, yearly, phase = torch.rand(5, SHOPS, 1, generator=draw)
    day = torch.arange(DAYS)
    noise = torch.zeros(SHOPS, DAYS)
    for today in range(1, DAYS):
        noise[:, today] = 0.7 * noise[:, today - 1] + 0.25 * normal[:, today]
    week = (1 + weekly) * torch.sin(2 * torch.pi * (day / 7 + phase)) * (1 + 0.5 * torch.sin(2 * torch.pi * day / 365))
    return 3 * level + trend * day / 200 + week + yearly * torch.cos(2 * torch.pi * day / 365) + noise


def windows(series):
    """What is known [n, PAST] and what follows [n, FUTURE], from every day of every series."""
    cut = series.unfold(1, PAST + FUTURE, 1).flatten(0, 1)
    return cut[:, :PAST].contiguous(), cut[:, PAST:].contiguous()


class Forecaster(nn.Module):
    """A linear forecast of the distance to the last week's mean, and a hidden layer beside it where it is wanted."""

    def __init__(self, hidden):
        super().__init__()
        self.straight = nn.Linear(PAST, FUTURE)
        self.bent = nn.Sequential(nn.Linear(PAST, hidden), nn.ReLU(), nn.Linear(hidden, FUTURE)) if hidden else None

    def forward(self, past):
        level = past[:, -7:].mean(1, keepdim=True)
        forecast = level + self.straight(past - level)
        return forecast if self.bent is None else forecast + self.bent(past - level)


class Sales(Workload):
    """The first 340 days to train on, the next 80 to select by, the last 80 to test on."""

    batch_size = 64
    select_by = minimize("validation/rmse", worth=0.003)
    fitted_when = at_most("training/rmse", 0.39)  # what is left is noise; 0 would be learned by heart
    not_averaged = ("squared",)

    def data(self):
        series = sales()
        return Splits(*(windows(series[:, first:last]) for first, last in ((0, 340), (284, 420), (364, 500))))

    def model(self, point):
        return Forecaster(64 if point["network"] == "hidden layer" else 0)

    def loss(self, model, batch, point):
        past, future = batch
        return F.mse_loss(model(past), future)

    def metrics(self, model, batch):
        past, future = batch
        errors = model(past) - future
        return {"absolute_error": errors.abs().mean(1), "squared": errors.square().mean(1)}

    def split_metrics(self, each):
        return {"rmse": float(each["squared"].mean().sqrt())}


campaign = Campaign(
    Sales(),
    optimizer="adamw",
    schedule=step_drops((0.6, 0.85)),
    evaluations=25,
    sweep=Sweep(learning_rate=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2), start_steps=250, max_steps=4000, seeds=3),
    rounds=[
        Round("Does a hidden layer pay?", trials=16, scientific=("network",), space=SearchSpace(
            network=choice("linear", "hidden layer"),
            learning_rate=log_uniform(3e-4, 3e-2),
            weight_decay=log_uniform(1e-3, 1.0),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
