"""Sees which code runs while a study file is loaded, or while its workload is tried.

What is imported by a name that is put together, found in a folder of plug-ins, or run by `exec` stands in no import
statement. It is seen here: every function that begins to run, and the first level of every module.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Seen:
    """The code that ran, each with the module in whose names it ran."""

    def __init__(self) -> None:
        self._codes: dict[int, tuple[CodeType, str]] = {}  # by address: equal code may stand in two files

    def note(self, frame: FrameType) -> None:
        code = frame.f_code
        if id(code) not in self._codes:
            self._codes[id(code)] = (code, str(frame.f_globals.get("__name__", "")))

    @property
    def codes(self) -> list[tuple[CodeType, str]]:
        """Each code that ran, with the name of its module."""
        return list(self._codes.values())


@contextmanager
def watched(seen: Seen) -> Iterator[Seen]:
    """Note the code that runs in this thread. Costs a tenth of a microsecond for each call of a Python function.

    A debugger stays where it is: then calls are seen by the profiler's hook instead.
    """

    def on_call(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.note(frame)

    free = sys.gettrace() is None
    before = None if free else sys.getprofile()
    (sys.settrace if free else sys.setprofile)(on_call)
    try:
        yield seen
    finally:
        if free:
            sys.settrace(None)
        else:
            sys.setprofile(before)
