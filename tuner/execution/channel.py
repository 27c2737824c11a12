"""What passes between a process and those that it starts: lines of JSON, never pickles; errors; how one ended.

The standard input of a worker carries its `Setup`, then a `StudyTask` for each study, or `STOP`, and `END` at last;
where the input ends without that, the coordinator has ended. Messages of the worker come through a pipe of their own:
{"is": "started", ...}.
"""

import json
import os
import signal
import threading
from typing import IO, Any

from tuner.errors import (
    DeviceLost,
    InputError,
    Paused,
    StorageError,
    StudyChanged,
    TrialsFailed,
    TunerError,
    WorkloadError,
)

Message = dict[str, Any]
STOP: Message = {"stop": True}  # save, and end
END: Message = {}  # there are no more tasks
_INPUT_ERRORS = {known.__name__: known for known in (WorkloadError, StudyChanged, StorageError)}


def line_of(message: Message) -> bytes:
    """One line of JSON."""
    return json.dumps(message).encode() + b"\n"


class Channel:
    """Writes messages; from several threads, whole lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, kind: str, /, **fields: object) -> None:
        line = line_of({"is": kind, **fields})
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


def piped(stream: IO[bytes] | None) -> IO[bytes]:
    """A stream of a process that was started with pipes."""
    if stream is None:
        raise RuntimeError("a process was started without its pipes")
    return stream


def family_of(error: TunerError) -> str:
    """Which kind of error another process shall raise; see `error_of`."""
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, TrialsFailed):
        return "failed"
    return "device" if isinstance(error, DeviceLost) else "paused"


def error_of(family: str, name: str, text: str) -> TunerError:
    """The error of another process, as this one raises it: of that family, and of that class where it matters."""
    if family == "input":
        return _INPUT_ERRORS.get(name, InputError)(text)
    if family == "failed":
        return TrialsFailed(text)
    if family in ("paused", "device"):
        return Paused(text)
    return TunerError(f"a worker ended unexpectedly: {text}")


def exit_words(code: int) -> str:
    """How a process with this exit code ended, in words."""
    if code == -signal.SIGKILL:
        return "was killed by signal 9 (by somebody, or because memory ran out)"
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
