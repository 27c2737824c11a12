"""Points: one value for every hyperparameter that exists there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuner.design.hyperparameters import Value, as_number
from tuner.design.names import Name


@dataclass(frozen=True, slots=True)
class Point(Mapping[str, Value]):
    """Canonical names and values, in declared order. `point["learning_rate"]` finds "sgd.learning_rate" too."""

    values_by_name: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> "Point":
        return cls(tuple(values.items()))

    def __getitem__(self, name: str) -> Value:
        for known, value in self.values_by_name:
            if known == name:
                return value
        for known, value in self.values_by_name:
            if Name.of(known).short == name:
                return value
        known_names = ", ".join(known for known, _ in self.values_by_name) or "none"
        raise KeyError(f"this point has no {name!r}; it has: {known_names}")

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def number(self, name: str, default: float | None = None) -> float:
        """A value as a float. Raises DeclarationError for another value, and KeyError where there is none to take."""
        return as_number(self[name] if default is None else self.get(name, default), name)

    def whole(self, name: str, default: int | None = None) -> int:
        """A value as an int, rounded towards zero. Raises as `number` does."""
        return int(self.number(name, default))

    def with_values(self, **changed: Value) -> "Point":
        """The same point with some values replaced or added; short names reach conditional ones."""
        values = dict(self.values_by_name)
        for name, value in changed.items():
            exact = next((known for known in values if Name.of(known).short == name), name)
            values[exact] = value
        return Point.of(values)
