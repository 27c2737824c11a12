"""Models of which a part is frozen: adapters by hand, a head alone, a teacher that follows, random features."""

import io

import torch
from torch import nn

from support.tiny import Tiny
from tuner.training import frozen

WIDTH, RANK = 512, 8


class Adapted(nn.Module):
    """A frozen layer beside a branch of low rank, which begins at zero."""

    def __init__(self, num_in, num_out, rank=RANK):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in) / num_in**0.5, requires_grad=False)
        self.lora_A = nn.Parameter(torch.randn(rank, num_in) / num_in**0.5)
        self.lora_B = nn.Parameter(torch.zeros(num_out, rank))

    def forward(self, x):
        return x @ self.weight.T + x @ self.lora_A.T @ self.lora_B.T


def pretrained(module, seed=0):
    """The same values for every trial, as a file of weights would give them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if not parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return module


class Lora(Tiny):
    """A layer of 512 x 512 (1 MB), of which 8,192 values (33 kB) are trained; and what is trained around it."""

    def model(self, point):
        return nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), pretrained(Adapted(12, WIDTH)),
            pretrained(Adapted(WIDTH, WIDTH), 1), nn.Dropout(0.3), nn.Linear(WIDTH, 2),
        )  # fmt: skip


class HeadOnly(Tiny):
    """A frozen body, with batch norm in it."""

    def model(self, point):
        body = nn.Sequential(nn.Linear(6, 300), nn.BatchNorm1d(300), nn.Tanh(), nn.Linear(300, 80))
        return nn.Sequential(pretrained(body.requires_grad_(False)), nn.ReLU(), nn.Linear(80, 2))


class Tied(Tiny):
    """Two names for one frozen parameter."""

    def model(self, point):
        first, second = nn.Linear(200, 200), nn.Linear(200, 200)
        second.weight = pretrained(first.requires_grad_(False)).weight
        return nn.Sequential(nn.Linear(6, 200), first, nn.ReLU(), second, nn.Linear(200, 2))


class RandomFeatures(Tiny):
    """Each trial draws its own frozen features."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 4000).requires_grad_(False), nn.ReLU(), nn.Linear(4000, 2))


class Follows(nn.Module):
    """A student, a teacher that follows it, and a frozen encoder."""

    def __init__(self):
        super().__init__()
        self.encoder = pretrained(nn.Linear(6, 4000).requires_grad_(False))
        self.student, self.teacher = nn.Linear(4000, 8), nn.Linear(4000, 8).requires_grad_(False)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.student(self.encoder(x).relu()))


class Teaching(Tiny):
    """The teacher is moved by its `data`, which counts no version of its tensors."""

    def model(self, point):
        return Follows()

    def loss(self, model, batch, point):
        for old, new in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
            old.data.mul_(0.9).add_(new.data, alpha=0.1)
        return super().loss(model, batch, point)


def written_whole(monkeypatch):
    """From now on everything is in every checkpoint, as before there were base files."""
    monkeypatch.setattr(frozen, "LEAST_BYTES", 2**62)


def bytes_of_state(state):
    """The size of the file of a training state."""
    file = io.BytesIO()
    torch.save(state, file)
    return len(file.getvalue())


def bases(folder):
    """The base files below a folder."""
    return sorted(folder.rglob("frozen/base-*"))
