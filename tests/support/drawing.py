"""Datasets that draw random numbers for their examples, each in another way."""

import random
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from support.tiny import Tiny
from tuner import Splits


def torchs():
    return 0.5 * torch.randn(6)


def pythons():
    return random.gauss(0.0, 0.5)


def numpys():
    return torch.from_numpy(np.random.normal(0.0, 0.5, 6)).float()


def of_all():
    return torchs() + pythons() + numpys()


def shuffled():
    order = list(range(6))
    random.shuffle(order)
    return torch.tensor(order, dtype=torch.float32)


def none():
    return 0.0


DRAWS = {"torch": torchs, "python": pythons, "numpy": numpys, "all": of_all, "shuffle": shuffled}


class Drawing(Dataset):
    """Adds what `draw` gives to each example; `rarely`: to one in nine only, and else draws nothing."""

    def __init__(self, tensors, draw=of_all, rarely=False):
        self.x, self.y = tensors
        self.draw, self.rarely = draw, rarely

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        drawn = self.draw() if not self.rarely or index % 9 == 4 else 0.0
        return self.x[index] + drawn, self.y[index]


class Batched(Drawing):
    """Fetches whole batches, too."""

    def __getitems__(self, indices):
        self.asked = [*getattr(self, "asked", []), len(indices)]
        return [self[index] for index in indices]


class Reseeding(Drawing):
    """Seeds torch's generator itself, and draws from NumPy's first."""

    def __getitem__(self, index):
        level = np.random.rand()
        torch.manual_seed(index)
        return self.x[index] + level * torch.randn(6), self.y[index]


class SeedingLast(Drawing):
    """Draws from torch's generator, and then seeds it, as if nothing had been drawn."""

    def __getitem__(self, index):
        drawn = torch.randn(6)
        torch.manual_seed(0)
        return self.x[index] + drawn, self.y[index]


class OfDrawing(Tiny):
    """Tiny, by datasets made of its tensors."""

    def __init__(self, make=Drawing):
        self.make = make

    def data(self):
        splits = super().data()
        return Splits(training=self.make(splits.training), validation=self.make(splits.validation))


MAKES = {
    **{name: partial(Drawing, draw=draw) for name, draw in DRAWS.items()},
    "rarely": lambda tensors: Drawing(tensors, rarely=True),
    "batched": Batched,
    "subset": lambda tensors: Subset(Batched(tensors), range(len(tensors[0]) - 1, -1, -1)),
    "reseeding": Reseeding,
    "seeding last": SeedingLast,
}


def disturb(amount=7):
    """Draw from every global generator, as code around a training does."""
    torch.rand(amount)
    np.random.normal(size=amount)
    for _ in range(amount):
        random.gauss(0.0, 1.0)
