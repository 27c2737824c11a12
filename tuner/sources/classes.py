"""The source of a class: its file, or what it is made of where it was typed into an interpreter."""

import sys
import types
from pathlib import Path

from tuner.sources.bytecode import code_digest
from tuner.sources.definitions import Definitions, short_digest
from tuner.sources.places import kind_of


def file_of_class(kind: type) -> Path | None:
    """The file of the module that defines a class; None for an interpreter or a notebook."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file) if isinstance(file, str) and Path(file).is_file() else None


def definitions_of_class(kind: type) -> Definitions:
    """Of a class without a file: each method by its compiled code, and its plain values. Else nothing."""
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
        elif isinstance(inner, bool | int | float | str | None) and not name.startswith("__"):
            found[f"value {kind.__qualname__}.{name}"] = short_digest(repr(inner))
    return found
