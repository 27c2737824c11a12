"""Sees which code runs while a study file is loaded, and while its workload is tried.

No import statement names a module whose name is computed, a file in a folder of plug-ins, or a text that is run by
`exec`. While a study file is loaded (`loaded`), the top level of every module and every text that runs is seen. While
a workload is tried (`watched`), every function that begins to run is seen as well.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Seen:
    """The code that ran, each with the module in whose namespace it ran ("" if unknown).

    `texts`: code that was compiled from a text and run, with the module that ran it.
    """

    def __init__(self) -> None:
        self._codes: dict[int, tuple[CodeType, str]] = {}  # by address: two files may contain equal code
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
    """Python reports the top level of every module, and every `exec`. The hook stays for the life of the process."""
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
    """Record the modules that run for the first time, and the texts that run. It costs next to nothing."""
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
    """Record all code that runs in this thread. It costs 0.1 microseconds for each call of a Python function.

    Where a debugger is active, calls are seen by the profiler's hook instead.
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
