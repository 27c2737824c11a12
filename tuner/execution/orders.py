"""What a coordinator and its worker processes say to each other: lines of JSON, never pickles.

Orders go down the worker's standard input: first `Place`, then a study at a time, or `STOP`; its end means that the
coordinator is gone. Messages come up a pipe of their own: {"is": "started", ...}.
"""

import json
import os
import threading
from dataclasses import asdict, dataclass
from typing import Any

Message = dict[str, Any]
STOP: Message = {"stop": True}  # an order: save, and end
STALL_SECONDS = 1800.0  # a worker that makes no step for so long is replaced


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker works. The URL may hold a password, so it goes down a pipe and never on a command line."""

    study_file: str
    url: str
    checkpoint_root: str
    device: str | None
    threads: int
    commit_seconds: float
    lease_seconds: float
    fuse: int | str = "off"
    profile: str = "exact"
    crew: int = 1  # processes that share the trials
    allow_inexact: bool = False
    quota_bytes: int | None = None
    winners: int = 1


@dataclass(frozen=True, slots=True)
class Order:
    """Train what is left of a study, of a workload with this identity; `more_code`: what only its models reach."""

    campaign: str
    study: str
    identity: dict[str, object]
    more_code: list[dict[str, Any]]


def line_of(spoken: Place | Order | Message) -> bytes:
    """One line of JSON."""
    data = spoken if isinstance(spoken, dict) else asdict(spoken)
    return json.dumps(data).encode() + b"\n"


class Mouth:
    """Writes messages; from several threads, whole lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def say(self, kind: str, /, **what: object) -> None:
        line = line_of({"is": kind, **what})
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]
