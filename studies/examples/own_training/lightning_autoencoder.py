"""An autoencoder of handwritten digits, in the form of Lightning's first steps."""

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tuner import Campaign, LightningWorkload, Round, SearchSpace, choice, log_uniform, minimize


class LitAutoEncoder(L.LightningModule):
    def __init__(self, hidden=32, code=8, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def training_step(self, batch, batch_idx):
        x, _ = batch
        x = x.view(x.size(0), -1)
        loss = F.mse_loss(self.decoder(self.encoder(x)), x)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, _ = batch
        x = x.view(x.size(0), -1)
        self.log("val_loss", F.mse_loss(self.decoder(self.encoder(x)), x))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class DigitsData(L.LightningDataModule):
    """1,797 images [8, 8] from 0 to 1 with their labels: 1,400 to train on, 397 to validate on."""

    def setup(self, stage):
        x, y = load_digits(return_X_y=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(x / 16, dtype=torch.float32).view(-1, 8, 8)[order], torch.tensor(y)[order]
        self.train_set, self.val_set = TensorDataset(x[:1400], y[:1400]), TensorDataset(x[1400:], y[1400:])

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=397)


campaign = Campaign(
    LightningWorkload(
        module=lambda point: LitAutoEncoder(code=point["code"], lr=point["learning_rate"]),
        datamodule=DigitsData,
        select_by=minimize("validation/loss"),
    ),
    production_steps=400,
    rounds=[
        Round("How short may the code be?", trials=12, scientific=("code",), max_train_steps=200, space=SearchSpace(
            code=choice(4, 8, 16), learning_rate=log_uniform(1e-4, 0.1),
        )),
        Round("The final model", promote=2),
    ],
)  # fmt: skip
