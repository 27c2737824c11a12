"""The loss of a first batch as a digest: it shows what code, arguments, data and weights do not.

A loss may read a file, a variable of the environment, a teacher's weights or a value that its module made of one of
these when it was imported. Whatever of it changes is seen in the bits of a loss, under the same Numerics.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tuner.design.workload import Workload
from tuner.training.endings import raise_lost_device
from tuner.training.numerics import is_repeatable
from tuner.training.randomness import seed_global_generators
from tuner.training.tensor_digests import digest_of_tensors

OUTSIDE = "a file, a variable of the environment, the weights of a teacher"


def first_loss(
    workload: Workload, model: torch.nn.Module, batch: Any, point: Mapping[str, Any], seed: int, device: torch.device
) -> str:
    """A digest of the loss of one batch, with global generators seeded by `seed`; "" where it cannot be known.

    A copy of the model computes it, so the model stays as it is; the global generators do not. Raises DeviceLost.
    """
    if not is_repeatable(device):
        return ""
    try:
        with left_as_it_was(workload):
            copied = copy.deepcopy(model).train()
            seed_global_generators(seed, device)
            return digest_of_tensors({"loss": workload.loss(copied, batch, point).detach()})
    except Exception as error:  # the first step reports it; on a lost device nothing can be trained
        raise_lost_device(error)
        return ""


@contextmanager
def left_as_it_was(owner: object) -> Iterator[None]:
    """What the code of a workload puts into it meanwhile is taken out again: it belongs to no trial."""
    held = getattr(owner, "__dict__", {})
    before = dict(held)
    try:
        yield
    finally:
        held.clear()
        held.update(before)
