"""A LightningModule is a torch module: this one is tuned as it stands, without Lightning's Trainer.

`loss` and `metrics` call the step that training_step and validation_step have in common. The Trainer, its loops and
configure_optimizers are not used: the optimizer, the schedule and the number of steps are what is tuned. Needs
`pip install lightning`.
"""

import lightning
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Sweep, Workload, at_most, log_uniform, minimize, uniform


class DigitClassifier(lightning.LightningModule):
    """As it was written for the Trainer; a script that trains with it can go on to import it from here."""

    def __init__(self, hidden=64, dropout=0.0, learning_rate=1e-3):
        super().__init__()
        self.save_hyperparameters(ignore="dropout")
        self.layers = nn.Sequential(
            nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 10),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images)

    def shared_step(self, batch):
        """Losses [n] and whether each prediction is wrong [n]."""
        images, labels = batch
        logits = self(images)
        return F.cross_entropy(logits, labels, reduction="none"), logits.argmax(-1) != labels

    def training_step(self, batch, batch_index):
        losses, _ = self.shared_step(batch)
        self.log("train_loss", losses.mean())
        return losses.mean()

    def validation_step(self, batch, batch_index):
        losses, wrong = self.shared_step(batch)
        self.log_dict({"val_loss": losses.mean(), "val_error": wrong.float().mean()})

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.learning_rate)


class Digits(Workload):
    """1,797 images of 8 x 8 pixels: 1,000 to train on, 400 to select by, 397 to test on."""

    batch_size = 64
    select_by = minimize("validation/loss", worth=0.01)
    fitted_when = at_most("training/error_rate", 0.0)

    def data(self):
        x, y = load_digits(return_X_y=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]
        return Splits(training=(x[:1000], y[:1000]), validation=(x[1000:1400], y[1000:1400]), test=(x[1400:], y[1400:]))

    def model(self, point):
        return DigitClassifier(hidden=64, dropout=point["dropout"])

    def loss(self, model, batch, point):
        losses, _ = model.shared_step(batch)
        return losses.mean()

    def metrics(self, model, batch):
        losses, wrong = model.shared_step(batch)
        return {"loss": losses, "error_rate": wrong}


campaign = Campaign(
    Digits(),
    optimizer="adam",
    evaluations=25,
    sweep=Sweep(learning_rate=(1e-3, 3e-3, 1e-2, 3e-2), start_steps=100, max_steps=1600, seeds=3),
    rounds=[
        Round("Does dropout pay?", trials=12, space=SearchSpace(
            learning_rate=log_uniform(1e-3, 3e-2),
            dropout=uniform(0.0, 0.5, limits="low"),
        )),
        Round("The final model", promote=2, fresh=2),
    ],
)  # fmt: skip
