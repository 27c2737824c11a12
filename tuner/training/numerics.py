"""What decides the bits of a result besides its declaration."""

import json
import platform

import torch


def choose_device(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def prepare_numerics(device: torch.device, threads: int) -> None:
    """Make this process repeatable: a fixed number of threads, deterministic kernels."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def numerics(device: torch.device) -> str:
    """The Numerics of this process as canonical JSON: equal strings promise equal bits."""
    known = {
        "engine": "module",
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": str(torch.get_default_dtype()).removeprefix("torch."),
    }
    return json.dumps(known, sort_keys=True)
