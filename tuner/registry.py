"""Registries: the named records of one kind, those of this package first, then those of plugins and study files.

A registry finds the records of this package itself: they stand at the top level of one module, or of the modules of
one package. So a new record is one file. Plugins and study files add theirs with `register`.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, Protocol, TypeVar

from tuner.errors import InputError
from tuner.plugins import load_plugins


class Named(Protocol):
    """What a registry can hold."""

    @property
    def name(self) -> str: ...


Record = TypeVar("Record", bound=Named)


@dataclass(frozen=True, slots=True)
class Source:
    """The module that a record comes from, and its file; "" for a module without one."""

    module: str
    file: str = ""

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
    """

    def __init__(
        self,
        kind: str,
        of: type[Record],
        *,
        package: str | None = None,
        order: Callable[[Record], Any] | None = None,
        error: type[InputError] = InputError,
    ) -> None:
        self.kind, self.of = kind, of
        self._package, self._order, self._error = package, order, error
        self._records: dict[str, tuple[Record, Source]] = {}
        self._collected = package is None
        _REGISTRIES.append(self)

    def add(self, record: Record, source: Source) -> None:
        """Add a record. The module that added a name may replace its record; another module is refused.

        Raises InputError, or the registry's own error, naming both modules.
        """
        self._collect()
        self._add(record, source)

    def _add(self, record: Record, source: Source) -> None:
        known = self._records.get(record.name)
        if known is not None and not known[1].is_same(source):
            raise self._error(
                f"{self.kind} {record.name!r} is registered twice: by {known[1]} and by {source}; rename one of them"
            )
        self._records[record.name] = (record, source)

    def get(self, name: object) -> Record:
        """The record of a name. Raises InputError, or the registry's own error, with the known names."""
        if name not in self:
            raise self._error(f"{self.kind} is one of {', '.join(self.names)}, got {name!r}")
        return self._records[str(name)][0]

    def source_of(self, name: str) -> Source:
        """The module that a record comes from."""
        self.get(name)
        return self._records[name][1]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(record.name for record in self)

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
            for module in _modules_of(str(self._package)):
                source = Source(module.__name__, str(module.__file__))
                for value in list(vars(module).values()):
                    if isinstance(value, self.of) and not self._has(value):
                        self._add(value, source)
        except BaseException:
            self._collected = False
            raise

    def _has(self, record: Record) -> bool:
        """Whether this very record is known: one module may import it from another."""
        known = self._records.get(record.name)
        return known is not None and known[0] is record

    def _read(self) -> None:
        self._collect()
        load_plugins()


_REGISTRIES: list[Registry[Any]] = []


def register(*records: Named) -> None:
    """Make records known under their names: to be called by a plugin's module, or by a study file.

    A registry takes a record by its type. Raises InputError for another object, and for a name that is taken.
    """
    caller = sys._getframe(1).f_globals
    source = Source(str(caller.get("__name__", "")), str(caller.get("__file__") or ""))
    for record in records:
        takers = [registry for registry in _REGISTRIES if isinstance(record, registry.of)]
        if not takers:
            kinds = ", ".join(registry.of.__name__ for registry in _REGISTRIES)
            raise InputError(f"register takes records ({kinds}), got {record!r}")
        takers[0].add(record, source)


def _modules_of(package: str) -> list[Any]:
    """The modules of a package, by name; a module alone."""
    found = import_module(package)
    if not hasattr(found, "__path__"):
        return [found]
    return [import_module(f"{package}.{info.name}") for info in iter_modules(found.__path__)]
