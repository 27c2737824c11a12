"""The Numerics of a trial: what decides the bits of its result besides what was declared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.errors import StorageError
from tuner.shown import quoted, shown

# Names that earlier versions did not write: where one side lacks them they are unknown, and not different.
ADDED = frozenset({"processor", "libraries", "settings", "compute", "multiprocessors"})
ABSENT = frozenset({"shard", "world"})  # where they are not there, a model was not in shards
_WORDS = {"cpu_capability": "kernels of torch", "cuda": "CUDA", "cudnn": "cuDNN", "machine": "architecture",
          "compute": "compute capability", "packages": "package", "libraries": "library",
          "settings": "variable"}  # fmt: skip
_NOT_EXACT = ', "exact": false}'  # the end of the text of Numerics that are not exact


@dataclass(frozen=True, slots=True)
class Numerics:
    """Versions, device, threads and precision: trials of one declaration and equal Numerics have equal bits.

    canonical: the values by name as JSON with sorted keys, as `Numerics.of` writes it. exact: False where the trial
    was not trained under these Numerics and one code alone.
    """

    canonical: str
    exact: bool = True

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "Numerics":
        """The Numerics that these values by name make."""
        return cls(json.dumps(values, sort_keys=True))

    @classmethod
    def from_text(cls, text: str) -> "Numerics":
        """The Numerics that were stored as `text`. Reads no values, so a damaged text is equal to no other."""
        if text.endswith(_NOT_EXACT):
            return cls(text.removesuffix(_NOT_EXACT) + "}", exact=False)
        return cls(text)

    @property
    def text(self) -> str:
        """The stored form: JSON, with `"exact": false` as its last value where they are not exact."""
        return self.canonical if self.exact else self.canonical[:-1] + _NOT_EXACT

    @classmethod
    def alike(cls, one: str, other: str) -> bool:
        """Whether two stored texts are the same Numerics as far as both are known."""
        return one == other or cls.from_text(one).agrees_with(cls.from_text(other))

    def agrees_with(self, other: "Numerics") -> bool:
        """Whether both are the same, exact or not; one of them may be of a version that wrote less.

        A damaged text agrees with itself alone.
        """
        if self.canonical == other.canonical:
            return True
        try:
            mine, others = self.values, other.values
        except StorageError:
            return False
        return all(
            mine.get(name) == others.get(name) or (name in ADDED and not (name in mine and name in others))
            for name in mine.keys() | others.keys()
        )

    @property
    def texts(self) -> list[str]:
        """All texts under which a trial of these Numerics may be recorded: exact or not, and by an earlier version."""
        older = Numerics.of({name: value for name, value in self.values.items() if name not in ADDED})
        return [Numerics(one.canonical, exact).text for one in (self, older) for exact in (True, False)]

    def differences(self, other: "Numerics") -> tuple[str, ...]:
        """What is known to differ between these and other Numerics, each in words with the value here first.

        What one of both does not say is unknown, but for shards, and so is how an engine is called.
        """
        try:
            mine, others = self.values, other.values
        except StorageError:
            return () if self.canonical == other.canonical else ("what cannot be read",)
        found: list[str] = []
        for name in sorted((mine.keys() & others.keys()) - {"engine"} | (mine.keys() | others.keys()) & ABSENT):
            word = _WORDS.get(name, name.replace("_", " "))
            before, after = mine.get(name), others.get(name)
            if isinstance(before or {}, dict) and isinstance(after or {}, dict):
                found += _differing(word, before or {}, after or {})
            elif before != after:
                found.append(f"{word} {_told(before)}, not {_told(after)}")
        return tuple(found)

    @property
    def values(self) -> dict[str, Any]:
        """The values by name. Raises StorageError where the stored text is no JSON object."""
        try:
            values = json.loads(self.canonical)
        except ValueError as error:
            raise StorageError(f"numerics: no JSON: {error}, got {quoted(self.canonical)}") from error
        if not isinstance(values, dict):
            raise StorageError(f"numerics: a JSON object was stored, got {quoted(self.canonical)}")
        return values


def _differing(word: str, mine: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    return [
        f"{word} {name} {_told(mine.get(name))}, not {_told(others.get(name))}"
        for name in sorted(mine.keys() | others.keys())
        if mine.get(name) != others.get(name)
    ]


def _told(value: object) -> str:
    """A value in words; "nothing" where it is not there."""
    if value is None:
        return "nothing"
    return " ".join(map(str, value)) or "nothing" if isinstance(value, list) else shown(str(value))
