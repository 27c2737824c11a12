"""Random numbers as functions of (seed, step) or (seed, epoch), so that no generator's state has to be saved."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch

from tuner.design.seeds import derived_seed

_MASK = (1 << 64) - 1


def step_seed(seed: int, step: int) -> int:
    """A well mixed 64-bit seed for one step (splitmix64): cheap enough for every step."""
    z = (seed + (step + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


def seed_global_generators(seed: int, device: torch.device) -> None:
    """Seed the generators a user's `nn.Dropout` or initialization draws from.

    Not `torch.manual_seed`, which takes a hundred times as long.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        cuda_generator(device).manual_seed(seed)


@contextmanager
def host_generators_seeded(seed: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators for a while; afterwards they are as they were."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def cuda_generator(device: torch.device) -> torch.Generator:
    """The generator that CUDA operations of user code draw from."""
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return torch.cuda.default_generators[device.index or 0]


def epoch_order(data_seed: int, epoch: int, num_examples: int) -> torch.Tensor:
    """The order of the examples in one pass: int64 [num_examples], on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed("epoch", data_seed, epoch))
    return torch.randperm(num_examples, generator=generator)


@contextmanager
def callers_generators_restored(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were found: a notebook's random numbers are not ours to change."""
    on_host = torch.get_rng_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(on_host)
        if on_device is not None:
            with suppress(torch.AcceleratorError):  # of a device that is lost: the error under way says so
                torch.cuda.set_rng_state(on_device, device)
