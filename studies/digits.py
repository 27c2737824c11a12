"""Is a handwritten digit odd? The training set can be fitted, so a sweep decides how long to train."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Sweep, Workload, at_most, choice, log_uniform, minimize


class Digits(Workload):
    """1,797 images of 8 x 8 pixels: 1,000 to train on, 400 to select by, 397 to test on."""

    batch_size = 64
    select_by = minimize("validation/loss", worth=0.03)  # ranks trials; a smaller gain is worth nothing
    fitted_when = at_most("training/error_rate", 0.0)  # needed by the sweep

    def data(self):  # tensors [examples, ...] in memory, or map-style datasets
        x, y = load_digits(return_X_y=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y % 2)[order]
        return Splits(training=(x[:1000], y[:1000]), validation=(x[1000:1400], y[1000:1400]), test=(x[1400:], y[1400:]))

    def model(self, point):  # a fresh torch module; `point` has a value for each hyperparameter
        layers = 2 if point["network"] == "deep" else 0
        hidden = [part for _ in range(layers) for part in (nn.Linear(64, 64), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(64, 2))

    def loss(self, model, batch, point):  # a scalar, penalty terms included
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):  # one value per example; the tool averages, short batches weighted right
        logits, labels = model(batch[0]), batch[1]
        return {"loss": F.cross_entropy(logits, labels, reduction="none"), "error_rate": logits.argmax(-1) != labels}


campaign = Campaign(
    Digits(),
    optimizer="adamw",
    warmup_steps=20,
    sweep=Sweep(),  # for a model that never fits its data, production_steps=20_000 instead
    rounds=[
        Round("Do hidden layers pay?", trials=80, scientific=("network",), space=SearchSpace(
            network=choice("linear", "deep"),
            learning_rate=log_uniform(1e-4, 1.0),
            weight_decay=log_uniform(1e-3, 1.0),
        )),
        Round("The final model", promote=2),
    ],
)  # fmt: skip
