"""The Numerics of a trial: what decides the bits of its result besides what was declared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.errors import StorageError
from tuner.shown import quoted

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
