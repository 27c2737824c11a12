"""Small models of each kind of layer that can have an adapter, with what goes into them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Case(NamedTuple):
    """A model, the pattern that names its layers, its input, and the d_in and d_out of each weight that is named."""

    make: Callable[[], nn.Module]
    pattern: str
    input: Callable[[], Any]
    sizes: tuple[tuple[int, int], ...]


class SelfAttention(nn.Module):
    """torch's own attention, which reads its weights without calling a module."""

    def __init__(self, batch_first=True, **sizes):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=batch_first, **sizes)
        self.other = nn.Linear(12, sizes["kdim"]) if sizes else nn.Identity()

    def forward(self, x):
        key = self.other(x)
        return self.attention(x, key, key, need_weights=False)[0]


class BareWeight(nn.Module):
    """A tensor of a module that is no layer of torch's."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(9, 5))

    def forward(self, x):
        return F.linear(x, self.qkv)


class TwiceTheWeight(nn.Linear):
    """A subclass with a forward of its own, which reads the weight."""

    def forward(self, input):
        return F.linear(input, 2.0 * self.weight, self.bias)


def numbers(*shape):
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def _ids():
    return torch.randint(0, 11, (4, 6), generator=torch.Generator().manual_seed(3))


def _encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 20, dropout=0.0, batch_first=True), 1)


CASES = {
    "linear": Case(
        lambda: nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 6)), "*", numbers(4, 7), ((7, 5), (5, 6))
    ),
    "conv1d": Case(lambda: nn.Sequential(nn.Conv1d(3, 5, 3, padding=1)), "0", numbers(2, 3, 9), ((9, 5),)),
    "conv2d": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=2, dilation=2)), "0", numbers(2, 3, 9, 9), ((27, 5),)
    ),
    "circular": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular", bias=False)), "0",
        numbers(2, 3, 6, 6), ((27, 5),),
    ),
    "conv3d": Case(lambda: nn.Sequential(nn.Conv3d(2, 4, 2)), "0", numbers(2, 2, 4, 4, 4), ((16, 4),)),
    "grouped": Case(  # each group is a convolution of its own: 2 inputs x 9, 3 outputs
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2)), "0", numbers(2, 4, 6, 6), ((18, 3), (18, 3))
    ),
    "embedding": Case(lambda: nn.Sequential(nn.Embedding(11, 5, padding_idx=0)), "0", _ids, ((11, 5),)),
    "attention": Case(SelfAttention, "attention", numbers(3, 4, 12), ((12, 36), (12, 12))),
    "cross": Case(
        lambda: SelfAttention(kdim=7, vdim=7), "attention.*", numbers(3, 4, 12),
        ((12, 12), (7, 12), (7, 12), (12, 12)),
    ),
    "encoder": Case(_encoder, "layers.*", numbers(3, 4, 12), ((12, 36), (12, 12), (12, 20), (20, 12))),
    "bare": Case(BareWeight, "qkv", numbers(4, 5), ((5, 9),)),
    "subclass": Case(lambda: nn.Sequential(TwiceTheWeight(7, 5)), "0", numbers(4, 7), ((7, 5),)),
}  # fmt: skip


def made(name, dtype=torch.float32):
    """The model of a case, the same at each call, and its input."""
    torch.manual_seed(5)
    case = CASES[name]
    model, given = case.make().to(dtype), case.input()
    return model, given.to(dtype) if given.is_floating_point() else given


def disturbed(model, generator_seed=9):
    """The model with trained numbers drawn at random, as a training may leave them."""
    generator = torch.Generator().manual_seed(generator_seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.endswith("lora_embedding_A"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model
