"""Dropout masks: for each trial exactly the bits that torch's own dropout would draw in its step."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tuner.training.randomness import cuda_generator
from tuner.training.update import Draws, draw_seed

_LEAST = -(1 << 63)  # of an int64: from here on means all of its bits
_BITS = 53  # of a fraction
_MANY = 1024  # values; for fewer the calls take longer than the drawing


@dataclass(frozen=True, slots=True)
class Site:
    """One call of a dropout: each trial's rate, and one trial's mask in shape and layout, which orders its draws.

    in_kernel: torch draws and applies the mask in one CUDA kernel, with its own draws.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    rates: tuple[float, ...]
    dtype: torch.dtype
    in_kernel: bool = False

    def empty(self, like: torch.Tensor) -> torch.Tensor:
        """A mask for all trials that keeps everything."""
        size = (len(self.rates), *self.shape)
        strides = (math.prod(self.shape), *self.strides)
        return torch.empty_strided(size, strides, dtype=self.dtype, device=like.device).fill_(1.0)


@dataclass(slots=True)
class Sites:
    """The dropout calls of one pass through the loss, in order. `found` is called with each mask before it is used."""

    found: Callable[[torch.Tensor], None]
    known: list[Site] = field(default_factory=list)

    def mask(self, noise: torch.Tensor, rates: Sequence[float], *, in_kernel: bool = False) -> torch.Tensor:
        """A mask [K, ...] that keeps everything, for the next call; `noise` is like what one trial would draw."""
        site = Site(tuple(noise.shape), tuple(noise.stride()), tuple(rates), noise.dtype, in_kernel)
        with _disable_current_modes():
            mask = site.empty(noise)
        self.found(mask)
        self.known.append(site)
        return mask


class DropoutNoise:
    """Draws the masks of K trials, each from the seed that the loss of the trial alone draws from."""

    def __init__(self, seeds: Sequence[int], sites: Sequence[Site], like: torch.Tensor) -> None:
        self.seeds = list(seeds)
        self.sites = list(sites)
        shared = [cuda_generator(like.device)] * len(seeds) if like.is_cuda else None  # what torch's kernel draws from
        self.generators = (shared or [torch.Generator() for _ in seeds]) if sites else []
        self.masks = [site.empty(like) for site in sites]
        self._rows = [mask.unbind(0) for mask in self.masks]
        self._ones = [row[0].clone() for row in self._rows]
        self._words = [_room_for_words(row[0]) for row in self._rows]

    def draw(self, steps: Sequence[int], part: int = 0) -> list[torch.Tensor]:
        """The masks of slice `part` of this step, each trial at its own; the same memory at every call."""
        for trial, generator in enumerate(self.generators):
            generator.manual_seed(draw_seed(Draws.LOSS, self.seeds[trial], steps[trial], part))
            for site, rows, ones, words in zip(self.sites, self._rows, self._ones, self._words, strict=True):
                rate = site.rates[trial]
                if site.in_kernel and 0.0 < rate < 1.0:
                    rows[trial].copy_(torch.native_dropout(ones, rate, True)[0])
                else:
                    _draw(rows[trial], rate, generator, words)
        return self.masks


class DroppedInKernel(torch.autograd.Function):
    """values * mask, with the gradient of torch's CUDA dropout, which rounds 1 / (1 - rate) otherwise than forward."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, mask: torch.Tensor, rates: Sequence[float]) -> torch.Tensor:
        context.save_for_backward(mask)
        context.rates = rates
        return values * mask

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = context.saved_tensors
        rows = zip(gradients[0].unbind(0), mask.unbind(0), context.rates, strict=True)
        return torch.stack([_backward_of_dropout(gradient, row, rate) for gradient, row, rate in rows]), None, None


def _backward_of_dropout(gradient: torch.Tensor, mask: torch.Tensor, rate: float) -> torch.Tensor:
    if not 0.0 < rate < 1.0:
        return gradient * mask
    result: torch.Tensor = torch.ops.aten.native_dropout_backward(gradient, mask != 0, 1.0 / (1.0 - rate))
    return result


def _draw(mask: torch.Tensor, rate: float, generator: torch.Generator, words: torch.Tensor | None = None) -> None:
    """As torch's dropout does it: nothing is drawn at the rates 0 and 1. `words`: room for what is drawn, int64."""
    if rate == 1.0:
        mask.zero_()
    elif rate > 0.0 and words is not None:
        # Torch keeps a value where a number of 53 random bits, taken as a fraction, is below the share to keep.
        words.random_(_LEAST, None, generator=generator).bitwise_and_((1 << _BITS) - 1)
        mask.copy_(words < math.ceil((1.0 - rate) * 2.0**_BITS)).div_(1.0 - rate)
    elif rate > 0.0:
        mask.bernoulli_(1.0 - rate, generator=generator).div_(1.0 - rate)


def _room_for_words(mask: torch.Tensor) -> torch.Tensor | None:
    """Room for random words, where dropout from them is the same as `bernoulli_`; it takes half the time."""
    if mask.is_cuda or mask.dtype is not torch.float32 or mask.numel() < _MANY or not _words_agree():
        return None
    return torch.empty_like(mask, dtype=torch.int64, memory_format=torch.preserve_format)


@functools.cache
def _words_agree() -> bool:
    """Whether a dropout from random words has the bits of torch's own on this machine."""
    drawn = torch.empty(64, 17).t()
    words = torch.empty_like(drawn, dtype=torch.int64)
    for seed, rate in enumerate((1e-3, 0.1, 0.3, 0.5, 0.77, 0.999)):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        own = torch.empty_like(drawn)
        _draw(own, rate, generators[0])
        _draw(drawn, rate, generators[1], words)
        states = [generator.get_state() for generator in generators]
        if not (torch.equal(own, drawn) and torch.equal(*states)):
            return False
    return True
