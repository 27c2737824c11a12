"""Sees which code runs while a study file is loaded, and while its workload is tried.

What is imported by a name that is put together, found in a folder of plug-ins, or run by `exec` stands in no import
statement. While a study file is loaded (`loaded`), the first level of every module is seen, and every text that is
run; while a workload is tried (`watched`), every function that begins to run, too.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Seen:
    """The code that ran, each with the module in whose names it ran ("" where that is not known).

    `texts`: what was compiled from a text and run, with the module that ran it.
    """

    def __init__(self) -> None:
        self._codes: dict[int, tuple[CodeType, str]] = {}  # by address: equal code may stand in two files
        self.texts: list[tuple[CodeType, str]] = []

    def note(self, code: CodeType, module: str) -> None:
        if id(code) not in self._codes:
            self._codes[id(code)] = (code, module)

    @property
    def codes(self) -> list[tuple[CodeType, str]]:
        """Each code that ran, with the name of its module."""
        return list(self._codes.values())


_listening: list[Seen] = []
_hooked: list[bool] = []


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Python tells of every module's first level, and of every `exec`. A hook stays for the life of the process."""
    if event != "exec" or not _listening or not isinstance(arguments[0], CodeType):
        return
    code = arguments[0]
    runner = str(sys._getframe(1).f_globals.get("__name__", ""))
    for seen in _listening:
        if runner.startswith(("importlib.", "_frozen_importlib", "runpy")):
            seen.note(code, "")
        else:
            seen.texts.append((code, runner))


@contextmanager
def loaded(seen: Seen) -> Iterator[Seen]:
    """Note the modules that are run for the first time, and the texts that are run. Costs next to nothing."""
    if not _hooked:
        sys.addaudithook(_on_audit)
        _hooked.append(True)
    _listening.append(seen)
    try:
        yield seen
    finally:
        _listening.remove(seen)


@contextmanager
def watched(seen: Seen) -> Iterator[Seen]:
    """Note all code that runs in this thread. Costs a tenth of a microsecond for each call of a Python function.

    A debugger stays where it is: then calls are seen by the profiler's hook instead.
    """

    def on_call(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.note(frame.f_code, str(frame.f_globals.get("__name__", "")))

    free = sys.gettrace() is None
    before = None if free else sys.getprofile()
    with loaded(seen):
        (sys.settrace if free else sys.setprofile)(on_call)
        try:
            yield seen
        finally:
            if free:
                sys.settrace(None)
            else:
                sys.setprofile(before)
