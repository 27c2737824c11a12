"""Memory: how much a device has left, and keeping what was used once."""

import ctypes
import gc
import sys
from pathlib import Path

import torch

_LIMITS = Path("/sys/fs/cgroup")  # of a container, where there is one
_PROCESS = Path("/proc/self")
_SYSTEM = Path("/proc/meminfo")
_CACHES = "inactive_file", "active_file", "slab_reclaimable"  # a container gives them up before it runs out of memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 2**30
_LARGEST = 32 * 2**20  # glibc takes no more


def keep_freed_memory() -> None:
    """Have this process use freed memory again, where the C library can be told so (glibc).

    By default the C library returns the activations of a step to the system, which clears every page of the next step:
    a tenth of the time of a small convolutional network or transformer.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def free_bytes(device: torch.device) -> int:
    """Free memory; on the CPU including caches that the system would give up, within all limits."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return _within_limits(_number(_SYSTEM, "MemAvailable:", 1024) or 2**33)  # a guess where nothing is reported


def reachable_bytes(device: torch.device) -> int:
    """Memory that could be had at most, however slow it would be: what is free, what was freed, and swap space.

    Only what needs more than this is sure not to fit. Gives freed memory back to the system, which takes a moment.
    """
    if device.type == "cuda":
        return free_bytes(device)
    _give_back_freed_memory()
    known = _number(_SYSTEM, "MemAvailable:", 1024)
    swap = _number(_SYSTEM, "SwapFree:", 1024) or 0
    return _within_limits(2**33 if known is None else known + swap, _swap_of_container(swap))


def _within_limits(free: int, more: int = 0) -> int:
    """The least of what is free and of what the limits of a process and of a container leave.

    more: that a container may take besides its memory.
    """
    most, taken = _number(_PROCESS / "limits", "Max address space"), _number(_PROCESS / "status", "VmSize:", 1024)
    if most is not None and taken is not None:  # ulimit -v
        free = min(free, max(0, most - taken))
    limit, used = _number(_LIMITS / "memory.max"), _number(_LIMITS / "memory.current")
    if limit is None or used is None:
        return free
    caches = sum(_number(_LIMITS / "memory.stat", name) or 0 for name in _CACHES)
    return min(free, max(0, limit - used + caches) + more)


def _swap_of_container(free: int) -> int:
    limit, used = _number(_LIMITS / "memory.swap.max"), _number(_LIMITS / "memory.swap.current")
    return free if limit is None or used is None else min(free, max(0, limit - used))


def _give_back_freed_memory() -> None:
    """What this process has freed and the C library keeps (see `keep_freed_memory`) is free for the system again."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _number(path: Path, word: str = "", unit: int = 1) -> int | None:
    """The number that follows a word in a file of the system; None where there is none."""
    try:
        text = path.read_text()
    except OSError:
        return None
    lines = [line.removeprefix(word).split() for line in text.splitlines() if line.startswith(word)]
    return int(lines[0][0]) * unit if lines and lines[0] and lines[0][0].isdecimal() else None
