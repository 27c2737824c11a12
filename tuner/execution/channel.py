"""The messages between a coordinator and its worker processes: lines of JSON, never pickles.

Down the standard input of a worker go first its `Setup`, then a `Task` for each study, or `STOP`; an empty object is
the last line. Where the input ends without one, the coordinator is gone. Messages come up a pipe of their own:
{"is": "started", ...}.
"""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.execution.machine import Machine, machine_from

Message = dict[str, Any]
STOP: Message = {"stop": True}  # save, and end
END: Message = {}  # there are no more tasks


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker loads. The URL may hold a password, so it goes down a pipe and never on a command line."""

    study_file: Path
    url: str
    machine: Machine

    def as_json(self) -> Message:
        return {"study_file": str(self.study_file), "url": self.url, "machine": self.machine.as_json()}


def setup_from(data: Mapping[str, Any]) -> Setup:
    """The value that `Setup.as_json` wrote."""
    return Setup(Path(data["study_file"]), data["url"], machine_from(data["machine"]))


@dataclass(frozen=True, slots=True)
class Task:
    """Train what is left of a study, of a workload with this identity; `more_code`: what only its models reach."""

    campaign: str
    study: str
    identity: dict[str, object]
    more_code: list[dict[str, Any]]

    def as_json(self) -> Message:
        return asdict(self)


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
