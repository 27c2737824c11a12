import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Sweep, Workload, at_most, log_uniform, minimize, uniform


class Tumors(Workload):
    batch_size = 32
    select_by = minimize("validation/loss")  # ranks trials and picks checkpoints
    fitted_when = at_most("training/error_rate", 0.0)  # needed by the sweep

    def data(self):  # tensors [examples, ...] in memory, or map-style datasets
        x, y = load_breast_cancer(return_X_y=True)
        x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        x, y = x[order], torch.tensor(y)[order]
        return Splits(training=(x[:300], y[:300]), validation=(x[300:430], y[300:430]), test=(x[430:], y[430:]))

    def model(self, point):  # a fresh torch module; `point` has a value for each hyperparameter
        return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Dropout(point["dropout"]), nn.Linear(32, 2))

    def loss(self, model, batch, point):  # a scalar, penalty terms included
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):  # one value per example; the tool averages, short batches weighted right
        logits = model(batch[0])
        loss = F.cross_entropy(logits, batch[1], reduction="none")
        return {"loss": loss, "error_rate": logits.argmax(-1) != batch[1]}


campaign = Campaign(
    Tumors(),
    optimizer="adamw",
    sweep=Sweep(),  # or, for a model that never fits its data: production_steps=20_000
    rounds=[
        Round(
            "Which learning rate, and how much regularization?",
            trials=24,
            space=SearchSpace(
                learning_rate=log_uniform(1e-4, 1.0),
                weight_decay=log_uniform(1e-4, 1.0),
                dropout=uniform(0.0, 0.5, limits="low"),  # 0 is a physical limit, no edge that could be moved
            ),
        ),
        Round("The final model", promote=3),
    ],
)
