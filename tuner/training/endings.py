"""How an error ends a trial: the fault of the user's code, of the point, or of the machine."""

import errno
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tuner.errors import DeviceLost, Infeasible, Interrupted, TunerError, WorkloadError
from tuner.records import State
from tuner.signals import SHUTDOWN

MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG})
_STDLIB, _TUNER = sysconfig.get_path("stdlib"), Path(__file__).parents[1]
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class RankFailed(Exception):
    """How a trial ends that several ranks train, by an error on another one than this."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state


class RankOutOfMemory(RankFailed, MemoryError):
    """The same, where memory ended there."""


def ending(error: Exception) -> tuple[State, str]:
    """How a trial ends by an error of the user's code. Raises the error again when it is the machine's.

    Raises Interrupted where this process was told to end: the signal may have ended a process of the user's code, too,
    for example one that loads data. An error of the trial itself comes again when it is resumed.
    """
    if isinstance(error, Infeasible):
        return State.INFEASIBLE, str(error)
    if isinstance(error, RankFailed):
        return error.state, str(error)
    if _is_the_machines_fault(error):
        raise error
    raise_lost_device(error)
    if is_out_of_memory(error):
        return State.INFEASIBLE, _one_line(error)
    if SHUTDOWN.is_set_soon():
        raise Interrupted(f"stopped; meanwhile the workload failed with {_one_line(error)}") from error
    return State.FAILED, _one_line(error)


@contextmanager
def before_training(what: str) -> Iterator[None]:
    """An error of the user's code within is a WorkloadError that names `what`; the machine's stays what it is."""
    try:
        yield
    except Exception as error:
        if _is_the_machines_fault(error) or is_out_of_memory(error):
            raise
        raise_lost_device(error)
        raise WorkloadError(f"{what} failed with {_one_line(error)}") from error


def raise_lost_device(error: Exception) -> None:
    """Raise DeviceLost for a device-side assert, ECC error or illegal access: this process can use it no more."""
    is_lost = isinstance(error, getattr(torch, "AcceleratorError", ()))
    if is_lost and not is_out_of_memory(error):
        raise DeviceLost(_one_line(error)) from None


def is_out_of_memory(error: Exception) -> bool:
    """The allocator's error, the driver's, cuBLAS's, or the host's: torch's, or that of Python and NumPy."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in said for sign in _OUT_OF_MEMORY)


def _is_the_machines_fault(error: Exception) -> bool:
    """Full or read-only disks and the like (I11); a missing file of the user's is not among them."""
    return isinstance(error, TunerError) or (isinstance(error, OSError) and error.errno in MACHINE_ERRORS)


def first_line(error: Exception) -> str:
    """What an error says, up to the end of its first line."""
    return str(error).strip().partition("\n")[0]


def _one_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_TUNER) and not _is_a_library(frame)]
    told_by_us = not own and type(error).__module__.partition(".")[0] == "tuner"  # no line of the user's is to blame
    last = [] if told_by_us else (own or frames)[-1:]  # the user's line, and not that of torch which it called
    where = "".join(f" ({frame.filename}:{frame.lineno} in {frame.name})" for frame in last)
    said = error.args[0] if isinstance(error, KeyError) and " " in str(error) and error.args else error
    return f"{type(error).__name__}: {said}{where}"


def _is_a_library(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return "site-packages" in path.parts or path.is_relative_to(_STDLIB) or frame.filename.startswith("<")
