"""Digests of code without a source file: typed into an interpreter, made by `exec`, a lambda among arguments.

The digest is of the compiled code without names of files, line numbers and docstrings. It holds for one version of
Python.
"""

import hashlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from tuner.sources.definitions import DECIDES_NO_BITS, Definitions, short_digest
from tuner.sources.places import kind_of


def code_digest(code: CodeType) -> str:
    """16 hex digits."""
    return hashlib.sha256("\n".join(_parts(code)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _parts(code: CodeType) -> Iterator[str]:
    yield repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    yield repr((code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)


def file_of_class(kind: type) -> Path | None:
    """The file of the module that defines a class; None for an interpreter or a notebook."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file) if isinstance(file, str) and Path(file).is_file() else None


def definitions_of_class(kind: type) -> Definitions:
    """Digests of the methods and plain values of a class without a file; empty for a class that has one."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    has_file = isinstance(file, str) and (Path(file).is_file() or kind_of(Path(file)) != "own")
    if has_file or kind.__module__ == "builtins":
        return {}
    found = {}
    for name, value in vars(kind).items():
        inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        inner = inner.fget if isinstance(inner, property) else inner
        if isinstance(inner, types.FunctionType):
            found[f"method {kind.__qualname__}.{name}"] = code_digest(inner.__code__)
        elif name in DECIDES_NO_BITS or name.startswith("__"):
            continue
        elif isinstance(inner, bool | int | float | str | None):
            found[f"value {kind.__qualname__}.{name}"] = short_digest(repr(inner))
    return found
