"""Failpoints: places where a test can make the program fail, before and after every durable action.

`failpoint("ck-synced")` costs one look at a global. TUNER_FAILPOINTS arms them: `name@k=action, ...` acts at the
k-th pass of that name (`*` stands for every name), once. Actions: kill9, sigstop, sleep, enospc, eio, operational
(the database does not answer).
"""

import errno
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

VARIABLE = "TUNER_FAILPOINTS"
SLEEP_SECONDS = 2.0


def failpoint(name: str) -> None:
    """Trigger the fault that a test has armed at this place, if there is one."""
    if _armed is not None:
        _armed.passed(name)


@dataclass(slots=True)
class Armed:
    """Faults by (name, pass). `passes` counts the passes of each name; `trace` is the list of names in their order."""

    actions: dict[tuple[str, int], str]
    passes: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)

    def passed(self, name: str) -> None:
        self.trace.append(name)
        for known in (name, "*"):
            self.passes[known] += 1
            action = self.actions.get((known, self.passes[known]))
            if action is not None:
                _ACTIONS[action]()


def arm(text: str) -> Armed:
    """Arm failpoints in this process: "ck-written@2=kill9, sweep@1=eio". Raises ValueError for another text."""
    global _armed
    _armed = Armed(_parsed(text))
    return _armed


def disarm() -> None:
    """Remove all armed faults."""
    global _armed
    _armed = None


def _parsed(text: str) -> dict[tuple[str, int], str]:
    actions = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        place, _, action = part.partition("=")
        name, _, count = place.partition("@")
        if action not in _ACTIONS or not name or not (count or "1").isdecimal():
            raise ValueError(f"{VARIABLE} takes name@k=action with one of {', '.join(_ACTIONS)}, got {part!r}")
        actions[name, int(count or "1")] = action
    return actions


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _sleep() -> None:
    time.sleep(SLEEP_SECONDS)


def _full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _broken_disk() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _no_answer() -> None:
    error = sqlite3.OperationalError("the answer was lost (failpoint)")
    error.sqlite_errorname = "SQLITE_BUSY"
    raise error


_ACTIONS: dict[str, Callable[[], None]] = {
    "kill9": _kill,
    "sigstop": _stop,
    "sleep": _sleep,
    "enospc": _full_disk,
    "eio": _broken_disk,
    "operational": _no_answer,
}
_armed: Armed | None = arm(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
