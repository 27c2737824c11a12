"""Values of a hyperparameter as positions on its scale: 0 at the lower edge, 1 at the upper (D38).

A range has a scale; so has a choice of numbers, [32, 64, 128, 256], whose values have an order.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.design.hyperparameters import Choice, Hyperparameter, Range, Value

MINIMUM_LEVELS = 3  # [P] of an ordered choice: of two values one is better, which is no trend


def unit_positions(values: pd.Series, domain: Range) -> NDArray[np.float64]:
    """Positions of `values`; missing ones are NaN."""
    numbers = values.to_numpy(dtype=np.float64)
    low, high = np.log([domain.low, domain.high]) if domain.log else (domain.low, domain.high)
    return np.asarray(((np.log(numbers) if domain.log else numbers) - low) / (high - low))


@dataclass(frozen=True, slots=True)
class Axis:
    """A hyperparameter whose values have an order. levels: those of a choice, ascending; empty for a range."""

    hyperparameter: Hyperparameter
    scale: Range
    levels: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return self.hyperparameter.name

    def bound(self, edge: str) -> float:
        """The value at an edge, "low" or "high"."""
        return self.scale.low if edge == "low" else self.scale.high

    def positions(self, values: pd.Series) -> NDArray[np.float64]:
        """Positions of the values of a column; missing ones are NaN."""
        numbers = pd.to_numeric(values, errors="coerce") if self.levels else values
        return unit_positions(numbers, self.scale)


def axis_of(hyperparameter: Hyperparameter) -> Axis | None:
    """The axis of a range, or of a choice of at least three numbers; None for what has no order."""
    domain = hyperparameter.domain
    if isinstance(domain, Range):
        return Axis(hyperparameter, domain)
    levels = ordered_levels(domain)
    if len(levels) < MINIMUM_LEVELS:
        return None
    whole = all(isinstance(value, int) for value in domain.choices)
    return Axis(hyperparameter, Range(levels[0], levels[-1], _by_ratios(levels), whole), levels)


def ordered_levels(domain: Choice) -> tuple[float, ...]:
    """The values of a choice of numbers, ascending; empty where one of them is no finite number."""
    found = [_number(value) for value in domain.choices]
    numbers = sorted({number for number in found if number is not None})
    return tuple(numbers) if len(numbers) == len(domain.choices) else ()


def _number(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _by_ratios(levels: tuple[float, ...]) -> bool:
    """Whether the levels are more evenly spaced by ratios than by differences."""
    if levels[0] <= 0:
        return False
    even = [np.diff(np.log(levels)), np.diff(levels)]
    ratios, differences = (float(np.std(steps) / np.mean(steps)) for steps in even)
    return ratios < differences


def next_level(levels: tuple[float, ...], edge: str) -> float:
    """The choice beyond an edge: as far from the outermost one as that is from its neighbour, by ratio or difference.

    [32, 64, 128] goes on with 256, and below with 16; [0.1, 0.2, 0.3] with 0.4.
    """
    outer, inner = (levels[0], levels[1]) if edge == "low" else (levels[-1], levels[-2])
    if _by_ratios(levels):
        return _plain(outer * outer / inner, levels)
    return _plain(outer + (outer - inner), levels)


def _plain(value: float, levels: tuple[float, ...]) -> float:
    """A whole number where all levels are; else six digits."""
    if all(isinstance(level, int) for level in levels):
        return round(value)
    return float(f"{value:.6g}")
