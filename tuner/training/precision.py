"""In which numbers loss and metrics are computed: float32 as torch is set, or a precision that was declared.

Weights, gradients and the optimizer's state stay float32. In "bf16" and "fp16" each operation chooses its type by
itself within `torch.autocast`. How products of float32 are computed is a switch of the whole process: a declared
precision sets it while a trial trains or is evaluated, and puts back what was set before.

`computing` is for code that calls a loss or metrics, and `updating` for the code around whole updates: gradients are
computed outside of autocast, and with the same switches as the loss.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from tuner.errors import InputError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LOWEST_CAPABILITY = (8, 0)  # of CUDA devices that compute in bf16 and in tf32; older ones emulate bf16
_OTHERS = 'write precision="{}", or leave precision out'
# Sums of products in less than float32, as torch is set when it is imported.
_SUMS = {
    "allow_bf16_reduced_precision_reduction": True,
    "allow_fp16_reduced_precision_reduction": True,
    "allow_fp16_accumulation": False,
}


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Within the block operations compute in this precision; "" changes nothing.

    Casts of weights that autocast keeps for later do not outlive the block, and none from outside is used: they would
    be those of other weights after a step, and without gradients where they were made for an evaluation.
    """
    if not precision:
        yield
        return
    dtype = AUTOCAST.get(precision)
    with updating(precision, device), torch.autocast(device.type, dtype, enabled=dtype is not None):
        torch.clear_autocast_cache()
        try:
            yield
        finally:
            torch.clear_autocast_cache()


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


@contextmanager
def updating(precision: str, device: torch.device) -> Iterator[None]:
    """Within the block products of float32 are computed as this precision says, those of a backward pass too.

    "tf32": with ten bits of mantissa. All others: with all bits of float32; "" changes nothing.
    """
    wanted = _switches(precision, device)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    changed = [(owner, name, old) for (owner, name, old), (*_, new) in zip(before, wanted, strict=True) if old != new]
    backends: Any = torch.backends
    try:
        for owner, name, value in wanted:
            if getattr(owner, name) != value:
                setattr(owner, name, value)
        with torch.autocast(device.type, enabled=False) if precision else nullcontext():  # of the caller
            yield
    finally:
        for owner, name, value in changed:
            setattr(owner, name, "none" if value == backends.fp32_precision else value)  # as inherited


def _switches(precision: str, device: torch.device) -> list[tuple[Any, str, Any]]:
    """Switches of the process that a precision needs: their owner, their name and the value."""
    if not precision:
        return []
    backends: Any = torch.backends
    mode = "tf32" if precision == "tf32" else "ieee"
    if device.type == "cpu":
        return [
            (each, "fp32_precision", mode)
            for each in (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
        ]
    owners = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    switches: list[tuple[Any, str, Any]] = [(each, "fp32_precision", mode) for each in owners]
    return switches + [(backends.cuda.matmul, name, value) for name, value in _SUMS.items()]


def check_precision_here(precision: str, device: torch.device) -> None:
    """Raise InputError for a precision that the device does not compute in."""
    if precision not in ("bf16", "tf32"):
        return
    if device.type == "cpu":
        if precision == "tf32":
            raise InputError(
                'precision "tf32" changes nothing on a CPU, which computes products of float32 with all their bits: '
                + _OTHERS.format("float32")
            )
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < LOWEST_CAPABILITY:
        major, minor = capability
        other = "fp16" if precision == "bf16" else "float32"
        raise InputError(
            f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor}) does not compute in "
            f"{precision}, which needs 8.0 or more: {_OTHERS.format(other)}"
        )
