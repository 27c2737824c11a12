"""LightningModules of a few milliseconds, with everything that could break exact resume."""

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from support.loops import X, Y
from tuner import LightningWorkload, at_most, minimize


class Noisy(Dataset):
    """Examples with noise of torch's and NumPy's global generators."""

    def __getitem__(self, index):
        return X[index] + 0.1 * torch.randn(6) + 0.1 * float(np.random.randn()), Y[index]

    def __len__(self):
        return 50


class Endless(IterableDataset):
    """A stream of 50 noisy examples, whose length nobody knows."""

    def __iter__(self):
        for index in torch.randperm(50).tolist():
            yield Noisy()[index]


class Net(pl.LightningModule):
    """Batch norm and dropout, and a shuffled loader of 7 batches."""

    def __init__(self, learning_rate=0.1, dropout=0.3):
        super().__init__()
        self.learning_rate = learning_rate
        self.net = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 2))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        logits = self.net(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        self.log("val_error_rate", (logits.argmax(-1) != batch[1]).double().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.0)

    def train_dataloader(self):
        return DataLoader(TensorDataset(X[:50], Y[:50]), batch_size=8, shuffle=True)

    def val_dataloader(self):
        # Each has a generator of its own, so that a validation draws nothing from the global one.
        splits = TensorDataset(X[50:], Y[50:]), TensorDataset(X[:50], Y[:50])
        return [DataLoader(split, batch_size=20, generator=torch.Generator()) for split in splits]


class NoisyNet(Net):
    def train_dataloader(self):
        return DataLoader(Noisy(), batch_size=8, shuffle=True)


class StreamNet(Net):
    def train_dataloader(self):
        return DataLoader(Endless(), batch_size=8)


class ProcessesNet(Net):
    def train_dataloader(self):
        return DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=2)


class OwnGeneratorNet(Net):
    def train_dataloader(self):
        generator = torch.Generator().manual_seed(5)
        return DataLoader(Noisy(), batch_size=8, shuffle=True, generator=generator, drop_last=True)


class TwoLoadersNet(Net):
    """Two loaders of different lengths: the shorter one begins again within a pass."""

    def train_dataloader(self):
        short = DataLoader(TensorDataset(X[:20], Y[:20]), batch_size=8, shuffle=True)
        return {"long": DataLoader(Noisy(), batch_size=8, shuffle=True), "short": short}

    def training_step(self, batch, batch_idx):
        return super().training_step(batch["long"], batch_idx) + super().training_step(batch["short"], batch_idx)


class DrawsAtTheEndNet(Net):
    """Uses the hooks at the ends of batches and of passes: draws, and an average of the weights of its own."""

    def __init__(self, **point):
        super().__init__(**point)
        self.average = nn.Linear(6, 12)
        self.average.requires_grad_(False)

    def on_train_batch_end(self, *arguments):
        with torch.no_grad():
            self.average.weight.lerp_(self.net[0].weight, 0.1 + 0.01 * torch.rand(()))

    def on_train_epoch_end(self):
        torch.rand(3)


class Manual(Net):
    """Two optimizers by hand: one steps with each batch, the other with every second one, at a quarter of the rate."""

    automatic_optimization = False

    def __init__(self, **point):
        super().__init__(**point)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()  # type: ignore[attr-defined]
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        first.zero_grad(), second.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            second.step()

    def configure_optimizers(self):
        head = torch.optim.SGD(self.net[4].parameters(), lr=self.learning_rate, momentum=0.9)
        return head, torch.optim.AdamW(self.net[0].parameters(), lr=self.learning_rate / 4)


class Scheduled(Net):
    """A schedule of its own."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Data(pl.LightningDataModule):
    """The loaders of another net, as a datamodule."""

    def __init__(self, batch_size=8):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Noisy(), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return Net.val_dataloader(self)


def workload_of(kind=Net, **changes):
    """A workload of such a module, which is evaluated on both splits."""
    given = {
        "module": lambda point: kind(**point), "evaluated": ("validation", "training"),
        "select_by": minimize("validation/loss"), "fitted_when": at_most("training/error_rate", 0.0),
    }  # fmt: skip
    return LightningWorkload(**(given | changes))
