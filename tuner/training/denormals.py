"""Floats too small for full precision, below 1.2e-38 in float32, are taken as 0 while trials train on a CPU.

AdamW's average gradient of a weight that gets no gradient any more shrinks until it is such a number, after some 800
steps; from then on the kernel takes twice as long and more, for a tenth of the weights. A GPU does not slow down.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flushes_denormals(device: torch.device) -> bool:
    """Whether this process does so: on one thread alone, because each thread of torch's would have to be told."""
    return device.type == "cpu" and torch.get_num_threads() == 1 and _can_flush()


@contextmanager
def denormals_as_zero(device: torch.device) -> Iterator[None]:
    """Where it is part of the Numerics; the caller's arithmetic is left as it was found."""
    if not flushes_denormals(device) or denormals_are_zero():
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@functools.cache
def _can_flush() -> bool:
    before = denormals_are_zero()
    can = torch.set_flush_denormal(True)
    torch.set_flush_denormal(before)
    return can


def denormals_are_zero() -> bool:
    """Whether this thread takes them as 0 now."""
    return bool(torch.tensor(1e-39) == 0.0)
