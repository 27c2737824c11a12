"""The file of a module by its name, found as an import would find it and without importing it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """A module: the file that it is read from ("" for a namespace), and where its submodules lie.

    `source`: what it says, where that is in no file of its own (in an archive); else None.
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
