"""A study of a LightningModule, killed again and again: the same rows as without, and everything complete."""

from functools import partial

import pytest
from support import kills
from support.processes import started

STUDY = """
import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from tuner import *


class Digits(L.LightningModule):
    def __init__(self, learning_rate, dropout=0.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(32, 10)
        )

    def training_step(self, batch, batch_idx):
        open("count", "a").write(".")
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        right = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({{"val_loss": F.cross_entropy(logits, batch[1]), "val_acc": right}})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate, momentum=0.9)


class Data(L.LightningDataModule):
    def setup(self, stage):
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
        self.training, self.validation = TensorDataset(x[:1400], y[:1400]), TensorDataset(x[1400:], y[1400:])

    def train_dataloader(self):
        return DataLoader(self.training, batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.validation, batch_size=397)


space = SearchSpace(learning_rate=log_uniform(1e-2, 1.0), dropout=uniform(0.0, 0.5))
campaign = Campaign(
    LightningWorkload(module=lambda point: Digits(**point), datamodule=Data, select_by=minimize("validation/loss")),
    rounds=[
        Round("Which rate?", trials={trials}, max_train_steps={steps}, space=space),
        Round("Is it still best?", promote=2, max_train_steps={steps}),
    ],
)
"""


def write_study(folder):
    folder.mkdir()
    (folder / "study.py").write_text(STUDY.format(trials=6, steps=200))
    (folder / "count").touch()
    return folder


def killed(folder, times, *verb):
    """The rows of a run that is killed at some number of batches, so many times."""
    begin = partial(started, folder, *verb, "--storage", "study.sqlite")
    kills.killed(begin, folder / "count", times, (40, 300))
    return kills.rows_of(folder, 3)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_killed_ten_times_it_has_the_same_rows(tmp_path, workers):
    verb = ("run", "study.py", "--yes")
    whole = killed(write_study(tmp_path / "whole"), 0, *verb)
    again = killed(write_study(tmp_path / "killed"), 10, *verb, *workers)
    assert whole == again
