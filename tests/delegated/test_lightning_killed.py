"""A study of a LightningModule, killed again and again: the same rows as without, and everything complete."""

import random
import signal

import pytest
from support.patience import wait_for
from support.processes import started, told

from tuner.storage.store import open_ledger

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


def write_study(folder, trials, steps):
    folder.mkdir()
    (folder / "study.py").write_text(STUDY.format(trials=trials, steps=steps))
    (folder / "count").touch()
    return folder


def rows_of(folder):
    """Each value of each curve, by study, trial, step and metric; all trials are complete and their curves dense."""
    found = {}
    with open_ledger(str(folder / "study.sqlite"), create=False) as ledger:
        for row in ledger.studies("study"):
            records = ledger.trials(row.study_id)
            assert {record.state.value for record in records} == {"complete"}, [one.reason for one in records]
            stored = ledger.measurements(row.study_id)
            columns = zip(stored.trial_numbers, stored.steps, stored.metrics, stored.values, strict=True)
            rows = {(row.study.name, trial, step, name): value.hex() for trial, step, name, value in columns}
            assert len(rows) == 3 * len(records) * len(row.study.budget.evaluation_steps)
            found |= rows
    return found


def killed(folder, kills, least, most, *verb):
    """Run, and kill the program with SIGKILL at some number of batches, so many times; then to the end."""
    source, count = random.Random(kills), folder / "count"
    for _ in range(kills):
        process = started(folder, *verb, "--storage", "study.sqlite")
        until = count.stat().st_size + source.randrange(least, most)
        wait_for(lambda until=until, process=process: count.stat().st_size >= until or process.poll() is not None,
                 moves=lambda: count.stat().st_size)  # fmt: skip
        process.send_signal(signal.SIGKILL)
        told(process)
    code, said = told(started(folder, *verb, "--storage", "study.sqlite"))
    assert code in (0, 3), said
    return rows_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_killed_ten_times_it_has_the_same_rows(tmp_path, workers):
    verb = ("run", "study.py", "--yes")
    whole = killed(write_study(tmp_path / "whole", 6, 200), 0, 0, 0, *verb)
    again = killed(write_study(tmp_path / "killed", 6, 200), 10, 40, 300, *verb, *workers)
    assert whole == again
