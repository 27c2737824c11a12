"""Modules that a process imported before their files were edited: what runs there is not what the file says."""

import sys
import time
import types
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

from tuner.sources.bytecode import code_digest

_SINCE = time.time()  # what was last changed before is as it was imported


def is_stale(file: Path, content: bytes, module: types.ModuleType) -> bool:
    """Whether a function of a module was compiled from another text than its file has now.

    Only files are looked at that changed during the life of this process, by the clock of their folder's disk.
    """
    try:
        if file.stat().st_ctime < _SINCE - 1.0:
            return False
        whole = SourceFileLoader(module.__name__, str(file)).source_to_code(content, str(file))  # runs nothing
    except (OSError, SyntaxError, ValueError):
        return False
    now: dict[str, set[str]] = {}
    for code in _codes_in(whole):
        now.setdefault(code.co_qualname, set()).add(code_digest(code))
    return any(code_digest(code) not in now.get(code.co_qualname, set()) for code in _codes_of(module, file))


def modules_by_file() -> dict[str, types.ModuleType]:
    """The modules of this process by the name of their file."""
    files = ((getattr(module, "__file__", None), module) for module in list(sys.modules.values()))
    return {file: module for file, module in files if isinstance(file, str)}


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes_in(constant)


def _codes_of(module: types.ModuleType, file: Path) -> Iterator[types.CodeType]:
    """The code of functions and methods that a module has from its own file."""
    for value in list(vars(module).values()):
        inside = list(vars(value).values()) if isinstance(value, type) and value.__module__ == module.__name__ else []
        for held in (value, *inside):
            inner = held.__func__ if isinstance(held, classmethod | staticmethod) else held
            inner = inner.fget if isinstance(inner, property) else inner
            if isinstance(inner, types.FunctionType) and inner.__code__.co_filename == module.__file__:
                yield inner.__code__
