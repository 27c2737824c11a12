"""Models of every odd kind that torch trains, on the two clouds of `support.tiny`: some can be saved, some cannot."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from support.tiny import Tiny


class Odd(Tiny):
    """Made of the function that makes the model."""

    def __init__(self, make, optimizer="sgd", **point):
        self.make = make
        self.optimizer = optimizer
        self.point = point

    def model(self, point):
        return self.make()


class Words(nn.Module):
    """Reads which features are positive, as words of an embedding with sparse gradients."""

    def __init__(self, bag, functional=False):
        super().__init__()
        self.embedding = nn.EmbeddingBag(12, 8, sparse=True) if bag else nn.Embedding(12, 8, sparse=True)
        self.functional = functional
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        words = (x > 0).long() + 2 * torch.arange(6)
        if self.functional:
            return self.head(F.embedding(words, self.embedding.weight.abs(), sparse=False).mean(1))
        found = self.embedding(words)
        return self.head(found if found.dim() == 2 else found.mean(1))


class Functional(nn.Module):
    """A sparse gradient of a parameter whose module knows nothing of it."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(12, 2))

    def forward(self, x):
        return F.embedding((x > 0).long() + 2 * torch.arange(6), self.table, sparse=True).mean(1)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 2)

    def forward(self, x):
        return self.net(x)


class Annealed(Base):
    """Counts its calls in Python; the count is extra state."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return self.net(x) / (1 + 0.1 * self.calls)

    def get_extra_state(self):
        return {"calls": self.calls, "of": ["training", None, 1.5]}

    def set_extra_state(self, state):
        self.calls = state["calls"]


class Labelled(Base):
    """Extra state that never changes."""

    def get_extra_state(self):
        return {"classes": ["left", "right"]}

    def set_extra_state(self, state):
        assert state == self.get_extra_state()


class ExtraTensor(Annealed):
    def get_extra_state(self):
        return torch.tensor(self.calls)

    def set_extra_state(self, state):
        self.calls = int(state)


class Growing(Base):
    """A buffer that is none at first, and another one that grows."""

    last: torch.Tensor | None
    queue: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("last", None)
        self.register_buffer("queue", torch.zeros(0, 2))

    def forward(self, x):
        out = self.net(x)
        if self.last is not None:
            out = out + 0.01 * self.last + 0.01 * self.queue.mean(0)
        if self.training:
            self.last = out.detach().mean(0)
            self.queue = torch.cat([self.queue, self.last[None]])
        return out


class Adjacent(Base):
    """A constant sparse matrix in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("graph", torch.eye(6).to_sparse())

    def forward(self, x):
        return self.net(torch.sparse.mm(self.graph, x.T).T)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 2, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.weight).abs()


class Mixed(nn.Module):
    """Parameters of two types, one without a dimension, one strided, one frozen, one that gets no gradient."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6).to(torch.bfloat16)
        self.second = nn.Parameter(torch.randn(2, 6).t())
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.scale * (self.frozen(self.first(x.to(torch.bfloat16)).float()) @ self.second)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(x).relu())[:, :2]


class LazyInTraining(nn.Module):
    """A part that only training uses."""

    def __init__(self):
        super().__init__()
        self.net = nn.LazyLinear(8)
        self.norm = nn.BatchNorm1d(8)
        self.extra = nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())
        self.head = nn.LazyLinear(2)

    def forward(self, x):
        hidden = self.norm(self.net(x))
        return self.head(hidden) + (0.1 * self.extra(hidden) if self.training else 0.0)


class PlainTensor(Base):
    """A running mean that stands in an attribute, where torch does not look."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(6)

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.net(x - self.mean)


class Harmless(PlainTensor):
    """The same, and nothing reads it."""

    def forward(self, x):
        super().forward(x)
        return self.net(x)


class Counting(Annealed):
    """Counts, and does not tell."""

    get_extra_state = nn.Module.get_extra_state
    set_extra_state = nn.Module.set_extra_state


_CALLS = itertools.count()


class Outside(Base):
    """Counts in a global."""

    def forward(self, x):
        return self.net(x) / (1 + 0.1 * next(_CALLS))


class OwnGenerator(Base):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.net(x) + (0.1 * torch.rand(2, generator=self.generator) if self.training else 0.0)


class Unreadable(Annealed):
    def get_extra_state(self):
        return {"of": Unreadable}


class WithoutSetter(Base):
    def get_extra_state(self):
        return {"a": 1}


WORKS = {
    "sparse bag": Odd(lambda: Words(bag=True)),
    "sparse": Odd(lambda: Words(bag=False), clip_norm=0.1),
    "sparse, dense": Odd(lambda: Words(bag=False, functional=True)),
    "sparse with momentum": Odd(lambda: Words(bag=True), momentum=0.9, nesterov=True),
    "sparse with decay": Odd(lambda: Words(bag=True), weight_decay=0.1, clip_norm=0.1),
    "sparse function": Odd(Functional),
    "extra state": Odd(Annealed),
    "extra tensor": Odd(ExtraTensor, "adamw"),
    "labelled": Odd(Labelled),
    "growing": Odd(Growing),
    "sparse buffer": Odd(Adjacent),
    "complex": Odd(Complex, "adamw", clip_norm=0.1),
    "mixed": Odd(Mixed, "adamw"),
    "tied": Odd(Tied),
    "lazy": Odd(lambda: nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Dropout(0.3), nn.LazyLinear(2))),
    "lazy in training": Odd(LazyInTraining),
    "spectral norm": Odd(lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 2)))),
    "weight norm": Odd(lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 2)))),
    "harmless": Odd(Harmless),
}
