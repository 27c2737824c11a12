"""What decides the bits of a result besides its declaration."""

import functools
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from tuner.errors import InputError
from tuner.records import Numerics
from tuner.training.compiler import spare_compiler_in_optimizers
from tuner.training.denormals import flushes_denormals
from tuner.training.settings import Profile

NO_PACKAGES: Mapping[str, str] = MappingProxyType({})
_NO_SUCH_KERNEL = ".*does not have a deterministic implementation.*"
_HALF = ("avx512_bf16", "amx_tile", "amx_fp16")  # of a processor; sums in bf16 and fp16 have another order in each
# What libraries choose their kernels by on x86 (MKL, whose MKL_CBWR names these classes, and oneDNN), as torch sees it.
_EXTENSIONS = (
    "avx", "avx2", "fma3", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16",
    "avx10_1", "avx10_2", "neon", "dot", "fp16_arith", "bf16", "sve", "sve2", "sve_bf16", "sme",
)  # fmt: skip
_VENDOR = re.compile(r"^(?:vendor_id|CPU implementer)\s*:\s*(\S+)", re.MULTILINE)
_PROCESSOR_FILE = Path("/proc/cpuinfo")
_LIBRARIES = {
    "mkl": re.compile(r"Math Kernel Library Version (\S+)"),
    "onednn": re.compile(r"MKL-DNN v?(\S+)"),
    "blas": re.compile(r"BLAS_INFO=(\w+)"),
}
# Variables of these libraries with which the same call gives other bits.
_SETTINGS = (
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "OPENBLAS_CORETYPE", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
_DRIVER_FILES = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))


def choose_device(name: str | None) -> torch.device:
    """The device of this name, or CUDA where there is one; CUDA always with its number. Raises InputError."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise InputError(f"there is no device {name!r}; say cpu, cuda, or cuda:1 for the second GPU") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise InputError(f"trials are trained on cpu or cuda, not on {name!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        raise InputError(
            f"device {name!r} is not there: torch {torch.__version__} sees {count} CUDA devices; say cpu, or install "
            "the CUDA build of torch and the driver"
        )
    return torch.device("cuda", index)


def prepare_numerics(device: torch.device, threads: int) -> None:
    """Make this process repeatable: a fixed number of threads, deterministic kernels. It imports no compiler.

    To be called before CUDA is used: cuBLAS reads the size of its workspace once, and is repeatable only with one.
    """
    torch.set_num_threads(threads)
    spare_compiler_in_optimizers()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs launches


def wait_for(device: torch.device) -> None:
    """Until all that was given to the device is computed: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_of(device: torch.device) -> Callable[[], float]:
    """The clock of this thread, where it does all the work: other processes do not change what it measures."""
    return time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def is_repeatable(device: torch.device) -> bool:
    """Whether the same work on this device gives the same bits."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    return device.type == "cpu" or strict


def allow_unrepeatable() -> None:
    """Let operations run that have no deterministic kernel, from now on and in all of this process."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=_NO_SUCH_KERNEL)


def numerics(
    device: torch.device,
    profile: Profile = "exact",
    packages: Mapping[str, str] = NO_PACKAGES,
    *,
    declared: bool = False,
    in_shards: int = 0,
) -> Numerics:
    """The Numerics of this process.

    packages: the installed distributions that the workload's own code imports, with their versions. declared: whether
    trials set the precision of products by themselves, as their own precision says; how torch is set is nothing then.
    in_shards: how many ranks have the model of a trial in shards; 0: each process has it whole.
    """
    known: dict[str, Any] = {
        "engine": "module" if profile == "exact" else "fast",
        "torch": torch.__version__,
        "device": "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "processor": _processor(),
        "libraries": _libraries(),
        "settings": {name: os.environ[name] for name in _SETTINGS if os.environ.get(name)},
        "threads": torch.get_num_threads(),
        "denormals": "zero" if flushes_denormals(device) else "kept",
        "precision": str(torch.get_default_dtype()).removeprefix("torch."),
    }
    if device.type == "cuda":
        known |= _of_cuda(device) | {
            "deterministic": is_repeatable(device),
            "matmul_precision": torch.backends.cuda.matmul.fp32_precision,  # "none", "ieee" or "tf32"
            "convolution_precision": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        }
        if declared:
            known |= {"matmul_precision": "declared", "convolution_precision": "declared"}
    elif declared:
        known["half"] = [name for name in _HALF if getattr(torch.cpu, f"_is_{name}_supported")()]
    if packages:
        known["packages"] = dict(packages)
    if in_shards:
        known |= {"shard": "fsdp2", "world": in_shards}
        if device.type == "cuda":
            known["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return Numerics.of(known)


def numerics_of_weights(packages: Mapping[str, str] = NO_PACKAGES) -> Numerics:
    """What decides the bits of a model that is built on the CPU, besides its code."""
    known = numerics(torch.device("cpu"), packages=packages).values
    return Numerics.of({name: value for name, value in known.items() if name not in ("engine", "threads", "denormals")})


@functools.cache
def _processor() -> str:
    """The class of the processor: its vendor and the extensions by which libraries choose their kernels."""
    told = _PROCESSOR_FILE.read_text(errors="replace") if _PROCESSOR_FILE.is_file() else ""
    vendor = _VENDOR.search(told)
    asked = getattr(torch.cpu, "get_capabilities", None)  # not in every version of torch
    has = asked() if asked else {}
    extensions = [name for name in _EXTENSIONS if has.get(name)]
    return " ".join([vendor[1] if vendor else platform.processor() or "unknown", *extensions])


@functools.cache
def _libraries() -> dict[str, str]:
    """The libraries of linear algebra that torch was built with, and their versions."""
    told = torch.__config__.show()
    return {name: found[1] for name, pattern in _LIBRARIES.items() if (found := pattern.search(told))}


@functools.cache
def _of_cuda(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": torch.cuda.get_device_name(device),
        "compute": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,  # of a slice of a GPU: fewer
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    }


def _driver() -> str:
    """The version of NVIDIA's driver, as Linux reports it."""
    told = next((path.read_text() for path in _DRIVER_FILES if path.is_file()), "")
    found = re.search(r"\d+\.\d+(\.\d+)?", told)
    return found[0] if found else "unknown"
