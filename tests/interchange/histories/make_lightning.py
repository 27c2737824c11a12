"""Six runs of a small regression, logged by Lightning's CSVLogger. In an environment of its own:

pip install 'torch==2.13.0' lightning; python make_lightning.py
"""

import logging
import warnings

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 30.0)
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Regression(lightning.LightningModule):
    def __init__(self, learning_rate, hidden):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))

    def training_step(self, batch, _):
        loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["learning_rate"])


def loader(seed, count):
    torch.manual_seed(seed)
    inputs = torch.randn(count, 4)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True).sin()), batch_size=16)


for number, rate in enumerate(RATES):
    torch.manual_seed(number)
    trainer = lightning.Trainer(
        max_epochs=20, logger=CSVLogger(".", name="lightning", version=number), log_every_n_steps=5,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Regression(rate, 8 if number % 2 else 16), loader(100, 160), loader(200, 64))
