"""What a workload was made with: its attributes as they are before its methods run, each with a digest."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.design.workload import Trainable, own_kinds
from tuner.errors import WorkloadError
from tuner.sources.definitions import DECIDES_NO_BITS
from tuner.training.value_digests import NoDigest, closed_over, is_found_by_name, value_digest

_LONGEST = 60  # characters of a plain value that is shown as it is
_Plain = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Arguments:
    """Attribute to its value where that is short and plain, else to a digest; and the modules that define them."""

    values: dict[str, str]
    modules: tuple[str, ...]


def arguments_of(workload: Trainable, folder: Path | None = None) -> Arguments:
    """What `Net(width=64, activation=nn.ReLU, config=Config(...))` was made with.

    Call this before the workload is used, since its methods may count or remember in attributes. A value without a
    digest is taken from `provenance()`, where that has an entry of its name; otherwise raises WorkloadError. `folder`
    is that of the study file.
    """
    told = _Told(workload, folder)
    values = {name: told.described(name, value) for name, value in sorted(_attributes(workload), key=_name)}
    kinds = [str(kind.__module__) for kind in type(workload).__mro__]
    return Arguments(values, tuple(dict.fromkeys((*kinds, *sorted(told.modules)))))


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _attributes(workload: Trainable) -> Iterator[tuple[str, Any]]:
    """Those of the instance, in slots too; and what its class closes over or was given from outside its source."""
    held = vars(workload) if hasattr(workload, "__dict__") else {}
    yield from ((name, value) for name, value in held.items() if name not in DECIDES_NO_BITS)
    own = own_kinds(workload)
    for kind in type(workload).__mro__:
        for slot in _slots(kind):
            if hasattr(workload, slot) and slot != "__dict__":
                yield slot, getattr(workload, slot)
        if kind not in own:
            continue
        for name, value in vars(kind).items():
            inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            inner = inner.fget if isinstance(inner, property) else inner
            if isinstance(inner, types.FunctionType):
                yield from ((f"{name} uses {used}", held) for used, held in closed_over(inner) if held is not kind)
            elif not is_found_by_name(kind) and not name.startswith("__") and name not in DECIDES_NO_BITS:
                yield f"{kind.__name__}.{name}", value


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


_REPRS = {kind.__repr__ for kind in (bool, int, float, str, type(None))}


class _Told:
    """The description of each attribute; `modules` define the classes and functions among them."""

    def __init__(self, workload: Trainable, folder: Path | None) -> None:
        self.workload = workload
        self.folder = folder
        self.modules: set[str] = set()

    def described(self, name: str, value: Any) -> str:
        text = repr(value) if isinstance(value, _Plain) and type(value).__repr__ in _REPRS else ""
        if 0 < len(text) <= _LONGEST and not (self.folder and str(self.folder) in text):
            return text
        try:
            return value_digest(value, name, folder=self.folder, modules=self.modules)
        except NoDigest as error:
            return self._instead_of(name, error)

    def _instead_of(self, name: str, error: NoDigest) -> str:
        """The provenance() of an attribute without a digest. Raises WorkloadError where there is none."""
        kind = type(self.workload).__name__
        known = self.workload.provenance()
        if name in known:
            return value_digest(known[name], name)
        raise WorkloadError(
            f"{kind} was made with {error.place}, a {error.kind}, of which nobody can tell whether it is the same the "
            f"next time, and studies are told apart by what their workload was made with: open or make it in a "
            f"method of {kind}, keep it in a constant of the module, or let provenance() say which one it is, as "
            f'{{"{name}": "..."}}'
        )
