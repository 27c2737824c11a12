"""Registries: the named records of one kind, those of this package first, then those of plugins and study files.

A registry finds the records of this package itself: they stand at the top level of one module, or of the modules of
one package. So a new record is one file. Others call `tuner.register`: a study file, or a plugin, which is an
installed package that names a module in the entry point group `tuner.plugins`. That module should import quickly:
every command loads it, `tuner --help` too.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any, Generic, NamedTuple, TypeVar

from tuner.errors import InputError

PLUGINS = "tuner.plugins"  # the entry point group

Record = TypeVar("Record")  # a frozen dataclass with a `name`


class Source(NamedTuple):
    """The module that a record comes from, and its file; "" for a module without one."""

    module: str
    file: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is a module of this package."""
        return self.module.startswith("tuner.")

    def __str__(self) -> str:
        return f"{self.module} ({self.file})" if self.file else self.module

    def is_same(self, other: "Source") -> bool:
        """Whether both are one module, by its file where there is one: a study file may be loaded more than once."""
        return self.file == other.file if self.file and other.file else self.module == other.module


class Registry(Generic[Record]):
    """The records of one kind by name, in a stable order. Plugins are loaded before the first look at it.

    kind: what a record is called in messages, like "optimizer".
    of: the type of the records.
    package: where its own records are: a module with records at its top level, or a package of such modules. It is
        imported at the first look.
    order: the place of a record in the iteration, as a sort key; without it: as they were added, modules by name.
    error: what is raised for an unknown name, and for a name that two modules want.
    hint: what to do about an unknown name, for names that nobody types.
    """

    def __init__(
        self,
        kind: str,
        of: type[Record],
        *,
        package: str | None = None,
        order: Callable[[Record], Any] | None = None,
        error: type[InputError] = InputError,
        hint: str = "",
    ) -> None:
        self.kind, self.of, self._hint = kind, of, hint
        self._package, self._order, self._error = package, order, error
        self._records: dict[str, tuple[Record, Source]] = {}
        self._collected = False
        _REGISTRIES.append(self)

    def add(self, record: Record, source: Source) -> None:
        """Add a record. The module that added a name may replace its record; another module is refused.

        Raises InputError, or the registry's own error, naming both modules.
        """
        self._collect()
        self._add(record, source)

    def _add(self, record: Record, source: Source) -> None:
        name = _name_of(record)
        known = self._records.get(name)
        if known is not None and not known[1].is_same(source):
            raise self._error(f"{self.kind} {name!r} is registered twice: by {known[1]} and by {source}; rename one")
        self._records[name] = (record, source)

    def get(self, name: object) -> Record:
        """The record of a name. Raises InputError, or the registry's own error, with the known names."""
        if name not in self:
            raise self._error(
                f"{self.kind} is one of {', '.join(self.names)}, got {name!r}{self._nearest(name)}{self._hint}"
            )
        return self._records[str(name)][0]

    def _nearest(self, name: object) -> str:
        from difflib import get_close_matches  # noqa: PLC0415 - only for an error

        near = get_close_matches(name.lower(), self.names, n=1) if isinstance(name, str) else []
        return f"; did you mean {near[0]!r}?" if near else ""

    def source_of(self, name: str) -> Source:
        """The module that a record comes from."""
        self.get(name)
        return self._records[name][1]

    @property
    def own(self) -> tuple[Record, ...]:
        """The records of this package, without those of plugins and study files."""
        self._collect()
        return tuple(record for record, source in self._records.values() if source.is_own)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(_name_of(record) for record in self)

    def __iter__(self) -> Iterator[Record]:
        self._read()
        records = [record for record, _ in self._records.values()]
        return iter(records if self._order is None else sorted(records, key=self._order))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        self._collect()
        if name not in self._records:
            load_plugins()
        return name in self._records

    def _collect(self) -> None:
        """Add the package's own records, before those of others: so nobody can take one of their names unseen."""
        if self._collected:
            return
        self._collected = True  # first: a module of the package may look at the registry while it is imported
        try:
            for module in _modules_of(self._package) if self._package else []:
                source = Source(module.__name__, str(module.__file__))
                for value in list(vars(module).values()):
                    if isinstance(value, self.of) and not self._has(value):
                        self._add(value, source)
            for record, source in [pair for pair in _WAITING if isinstance(pair[0], self.of)]:
                self._add(record, source)
        except BaseException:
            self._collected = False
            raise

    def _has(self, record: Record) -> bool:
        """Whether this very record is known: one module may import it from another."""
        known = self._records.get(_name_of(record))
        return known is not None and known[0] is record

    def _read(self) -> None:
        self._collect()
        load_plugins()


_REGISTRIES: list[Registry[Any]] = []
_WAITING: list[tuple[Any, Source]] = []  # registered while the module of their registry was not imported
_loaded: set[str] = set()


def register(*records: Any) -> None:
    """Make records known under their names: to be called by a plugin's module, or by a study file.

    A registry takes a record by its type. Raises InputError for another object, and for a name that is taken.
    """
    caller = sys._getframe(1).f_globals
    source = Source(str(caller.get("__name__", "")), str(caller.get("__file__") or ""))
    for record in records:
        if not is_dataclass(record) or not isinstance(getattr(record, "name", None), str):
            raise InputError(f"register takes records with a name, like OptimizerSpec(name=...), got {record!r}")
        takers = [registry for registry in _REGISTRIES if isinstance(record, registry.of)]
        if takers:
            takers[0].add(record, source)
        else:
            _WAITING.append((record, source))


def load_plugins() -> None:
    """Import the module of every installed plugin, once in a process.

    Raises InputError for a plugin that cannot be imported, or that registers what cannot be.
    """
    if PLUGINS in _loaded:
        return
    if not is_any_installed(sys.path):
        _loaded.add(PLUGINS)
        return
    from importlib.metadata import entry_points  # noqa: PLC0415 - it takes half as long as the import of `tuner`

    _loaded.add(PLUGINS)  # first: a plugin may look at a registry while it is imported
    try:
        for plugin in sorted(entry_points(group=PLUGINS), key=lambda one: (one.name, one.value)):
            _load(plugin)
    except BaseException:
        _loaded.discard(PLUGINS)
        raise


def is_any_installed(folders: Sequence[str]) -> bool:
    """Whether a package in one of these folders names a plugin; True where that cannot be read off its files.

    Most have none, and then `importlib.metadata` is not imported: it takes half as long as all of `tuner --help`.
    """
    for folder in folders:
        if not os.path.isdir(folder or "."):
            if os.path.exists(folder):  # a zip file
                return True
            continue
        with os.scandir(folder or ".") as entries:
            places = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info", ".egg"))]
        if any(map(_names_plugins, places)):
            return True
    return False


def _names_plugins(place: str) -> bool:
    if place.endswith(".egg"):
        return True
    try:
        with open(os.path.join(place, "entry_points.txt"), encoding="utf-8") as file:
            return PLUGINS in file.read()
    except OSError:  # it has none
        return False


def _load(plugin: Any) -> None:
    package = f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else "an unknown package"
    try:
        plugin.load()
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"the plugin {plugin.name!r} ({plugin.value}, of {package}) cannot be loaded: {reason}; "
            "correct its package, or uninstall it"
        ) from error


def _name_of(record: Any) -> str:
    return str(record.name)


def _modules_of(package: str) -> list[Any]:
    """The modules of a package, by name; a module alone."""
    found = import_module(package)
    if not hasattr(found, "__path__"):
        return [found]
    names = sorted(name[:-3] for name in os.listdir(found.__path__[0]) if name.endswith(".py"))
    return [import_module(f"{package}.{name}") for name in names if name != "__init__"]
