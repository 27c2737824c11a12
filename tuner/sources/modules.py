"""Modules of own code: what a source imports, where that lies, and whether the process runs what the file contains now.

Nothing is imported to find out. A module that was imported before its file was edited is *stale*.
"""

import ast
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from tuner.sources.bytecode import code_digest
from tuner.sources.definitions import parsed

_SINCE = time.time()  # a file that was last changed before this is as it was imported


@lru_cache(maxsize=512)
def imports_of(source: bytes, package: str) -> tuple[str, ...]:
    """Dotted names that a module of this package may import, in functions too, in order.

    Of `from x import y` both `x` and `x.y`, which may be a module. Raises SyntaxError or ValueError.
    """
    return tuple(dict.fromkeys(_imports(parsed(source), package)))


@lru_cache(maxsize=512)
def files_named_in(source: bytes) -> tuple[str, ...]:
    """Texts in a source that look like the name of a Python file: `exec(open("layers.py").read())`."""
    texts = (node.value for node in ast.walk(parsed(source)) if isinstance(node, ast.Constant))
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and _is_file_name(text)))


def _is_file_name(text: str) -> bool:
    return text.endswith(".py") and len(text) < 200 and "\n" not in text and "\0" not in text


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            place = _absolute("." * node.level + (node.module or ""), package)
            if place:
                yield from _with_parents(place)
                yield from (f"{place}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and node.args and _imports_by_name(node.func):
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield from _with_parents(_absolute(named.value, package))


def _imports_by_name(called: ast.expr) -> bool:
    name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
    return name in ("import_module", "__import__", "reload", "find_spec")


def _absolute(name: str, package: str) -> str:
    """The full name of a relative import; empty where it goes above the top package."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join(part for part in (*parts[: len(parts) - level + 1], name.lstrip(".")) if part)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    if all(part.isidentifier() for part in parts):
        yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


@dataclass(frozen=True, slots=True)
class Found:
    """A module: the file that it is read from ("" for a namespace), and where its submodules lie.

    `source`: the text of a module in an archive; None for a module with a file of its own.
    """

    name: str
    file: str
    folders: tuple[str, ...] = ()
    source: bytes | None = None


class ModuleFinder:
    """Finds modules; each name is looked for once."""

    def __init__(self) -> None:
        self._known: dict[str, Found | None] = {}

    def find(self, name: str) -> Found | None:
        """The module of a dotted name; None where there is none, or where it is built into Python."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def _find(self, name: str) -> Found | None:
        loaded = sys.modules.get(name)
        spec = getattr(loaded, "__spec__", None)
        if spec is not None:
            return _found(name, spec)
        if loaded is not None:  # made by hand, or the program itself
            file = getattr(loaded, "__file__", None)
            return Found(name, str(file)) if file and Path(str(file)).is_absolute() else None
        parent, _, _ = name.rpartition(".")
        if not parent:
            return _found(name, _searched(name, None))
        above = self.find(parent)
        return _found(name, _searched(name, list(above.folders))) if above and above.folders else None


def _searched(name: str, folders: list[str] | None) -> Any:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, folders)
        except Exception:  # noqa: S112 - a finder of somebody else; an import would ask the next one as well
            continue
        if spec is not None:
            return spec
    return None


def _found(name: str, spec: Any) -> Found | None:
    if spec is None:
        return None
    folders = tuple(map(str, spec.submodule_search_locations or ()))
    if spec.has_location and spec.origin:
        if Path(spec.origin).is_file():
            return Found(name, str(spec.origin), folders)
        return Found(name, str(spec.origin), folders, _source_of(spec, name))
    return Found(name, "", folders) if folders else None


def _source_of(spec: Any, name: str) -> bytes | None:
    """The source of a module in an archive."""
    try:
        text = spec.loader.get_source(name)
    except Exception:
        return None
    return None if text is None else str(text).encode()


def is_stale(file: Path, content: bytes, module: types.ModuleType) -> bool:
    """Whether a function of a module was compiled from another text than its file has now.

    Files that did not change during the life of this process are skipped, by the clock of their disk.
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
    """The code of those functions and methods of a module that come from its own file."""
    for value in list(vars(module).values()):
        inside = list(vars(value).values()) if isinstance(value, type) and value.__module__ == module.__name__ else []
        for held in (value, *inside):
            inner = held.__func__ if isinstance(held, classmethod | staticmethod) else held
            inner = inner.fget if isinstance(inner, property) else inner
            if isinstance(inner, types.FunctionType) and inner.__code__.co_filename == module.__file__:
                yield inner.__code__
