"""Handwritten digits: the training set can be fitted perfectly, so a sweep decides how long to train."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tuner import (
    Campaign,
    Round,
    SearchSpace,
    Splits,
    Sweep,
    Workload,
    at_most,
    constant_then_decay,
    log_grid,
    log_uniform,
    minimize,
    uniform,
)


class Digits(Workload):
    """1,797 images of 8 x 8 pixels: 1,000 to train on, 397 to select by, 400 to test on."""

    batch_size = 64
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def data(self):
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        x = torch.tensor(images / 16.0, dtype=torch.float32)[order]
        y = torch.tensor(labels)[order]
        return Splits(training=(x[:1000], y[:1000]), validation=(x[1000:1397], y[1000:1397]), test=(x[1397:], y[1397:]))

    def model(self, point):
        return nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Dropout(point["dropout"]),
            nn.Linear(128, 128), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(128, 10),
        )  # fmt: skip

    def loss(self, model, batch, point):
        images, labels = batch
        return F.cross_entropy(model(images), labels, label_smoothing=point["label_smoothing"])

    def metrics(self, model, batch):
        images, labels = batch
        logits = model(images)
        return {"loss": F.cross_entropy(logits, labels, reduction="none"), "error_rate": logits.argmax(-1) != labels}


campaign = Campaign(
    Digits(),
    optimizer="adamw",
    schedule=constant_then_decay(0.2),
    warmup_steps=20,
    sweep=Sweep(learning_rate=log_grid(1e-4, 1.0, per_decade=3)),
    rounds=[
        Round("Which learning rate, and does regularization help?", trials=32, space=SearchSpace(
            learning_rate=log_uniform(1e-4, 1e-1),
            weight_decay=log_uniform(1e-5, 1e-1),
            dropout=uniform(0.0, 0.5, limits="low"),
            label_smoothing=uniform(0.0, 0.2, limits="low"),
        )),
        Round("The final model", promote=3),
    ],
)  # fmt: skip
