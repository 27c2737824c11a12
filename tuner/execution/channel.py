"""The messages between a coordinator and its worker processes: lines of JSON, never pickles.

The standard input of a worker carries its `Setup`, then a `StudyTask` for each study, or `STOP`, and `END` at last;
where the input ends without that, the coordinator has ended. Messages of the worker come through a pipe of their own:
{"is": "started", ...}.
"""

import json
import os
import threading
from typing import Any

Message = dict[str, Any]
STOP: Message = {"stop": True}  # save, and end
END: Message = {}  # there are no more tasks


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
