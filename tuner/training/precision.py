"""In which numbers loss and metrics are computed: float32 as torch is set, or another precision around users' code.

Weights and the optimizer's state stay float32. Operations choose their type themselves within torch's autocast; "tf32"
and "float32" set how products of float32 are computed, and put back what was set before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Within the block operations compute in this precision; "" changes nothing."""
    dtype = AUTOCAST.get(precision)
    if dtype is None:
        yield
        return
    with torch.autocast(device.type, dtype):
        yield


class _Computed:
    """A function of users' code that computes in a precision. It shows the object that its method belongs to."""

    def __init__(self, function: Callable[..., Any], precision: str, device: torch.device) -> None:
        self.__self__ = getattr(function, "__self__", None)
        self._function = function
        self._precision = precision
        self._device = device

    def __call__(self, *given: Any) -> Any:
        with computing(self._precision, self._device):
            return self._function(*given)


def computed(function: Callable[..., Any], precision: str, device: torch.device) -> Callable[..., Any]:
    """The loss or the metrics of a workload, computed in a precision; the function itself for ""."""
    return _Computed(function, precision, device) if precision else function
