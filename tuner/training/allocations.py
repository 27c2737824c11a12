"""How much memory a piece of work takes from torch's allocators: the most at a time, and what it leaves.

On CUDA the allocator counts. On the CPU it reports each block to torch's profiler, also those of compiled kernels and
of what is computed a second time in a backward pass; that slows an update by a few microseconds an operation. What
libraries allocate for themselves (scratch memory of oneDNN, NumPy's arrays) is not seen.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_autograd: Any = torch.autograd  # has them without types
_PROFILER = _autograd.ProfilerConfig(
    _autograd.ProfilerState.CPU, False, True, False, False, False, torch._C._profiler._ExperimentalConfig()
)


@dataclass(slots=True)
class Allocated:
    """Bytes beyond what was there before: `peak` the most at a time, `left` at the end of the block."""

    peak: int = 0
    left: int = 0


@contextmanager
def allocated(device: torch.device) -> Iterator[Allocated]:
    """Watch what torch's allocator gives within the block. Blocks do not nest, nor with torch's profiler on the CPU."""
    found = Allocated()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.peak = torch.cuda.max_memory_allocated(device) - before
        found.left = torch.cuda.memory_allocated(device) - before
        return
    _be_silent_about_older_blocks()
    collects = gc.isenabled()
    gc.disable()  # of what was made while it was watched before, torch would say that it is freed
    _autograd._enable_profiler_legacy(_PROFILER)
    threads: list[list[Any]] = []
    try:
        yield found
    finally:
        threads = _autograd._disable_profiler_legacy()
        if collects:
            gc.enable()
    events: list[Any] = [event for thread in threads for event in thread if event.kind() == "memory_alloc"]
    for event in events:
        found.left += event.cpu_memory_usage()
        found.peak = max(found.peak, found.left)


_silent: list[bool] = []


def _be_silent_about_older_blocks() -> None:
    """Let torch say once, to nobody, that a block is freed which was there before the profiler: that is no error here.

    It says so at the first of a thousand such blocks, from C++ and past Python's warnings.
    """
    if _silent:
        return
    _silent.append(True)
    older = [torch.empty(1)]
    with _standard_error_closed():
        _autograd._enable_profiler_legacy(_PROFILER)
        older.clear()
        _autograd._disable_profiler_legacy()


@contextmanager
def _standard_error_closed() -> Iterator[None]:
    """What the process writes to its standard error meanwhile is lost; for a moment."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def bytes_of(tensors: list[torch.Tensor]) -> int:
    """Of tensors, where those that lie in one memory count once."""
    strided = [one for one in tensors if one.layout is torch.strided]
    whole = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in strided}
    return sum(whole.values()) + sum(_sparse_bytes(one) for one in tensors if one.layout is not torch.strided)


def _sparse_bytes(tensor: torch.Tensor) -> int:
    values: Callable[[], torch.Tensor] = tensor._values if tensor.layout is torch.sparse_coo else tensor.values
    return values().nbytes
