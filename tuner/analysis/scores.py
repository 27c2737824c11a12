"""Values of an objective as scores of mean 0 and deviation 1, a long tail of bad ones pulled in, and back again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

_OFFSETS = (0.15, 0.5)  # of the logarithms that pull in a long tail of bad trials
TAIL = 4.0  # [P] values further above the best than this many times the third quartile count as that far


@dataclass(frozen=True, slots=True)
class Scores:
    """A monotone scale for values that are minimized.

    best: the least value; reach: from it to the third quartile, 0 where nothing differs; offset: of the logarithm, None
    where the values are taken as they are; mean and deviation: of the form before it is standardized.
    """

    best: float
    reach: float
    offset: float | None
    mean: float
    deviation: float

    def of(self, values: Array) -> Array:
        """Scores of values in the objective's unit."""
        if self.reach <= 0.0:
            return np.zeros_like(values)
        above = np.clip((values - self.best) / self.reach, -0.5 * (self.offset or np.inf), TAIL)
        return np.asarray((self._form(above) - self.mean) / self.deviation)

    def value(self, score: float) -> float:
        """The value in the objective's unit that has this score."""
        form = score * self.deviation + self.mean
        above = form if self.offset is None else float(np.exp(form)) - self.offset
        return self.best + self.reach * above

    def slope(self, score: float) -> float:
        """By how much the value changes for a small change of the score, at a score."""
        if self.offset is None:
            return self.reach * self.deviation
        return self.reach * self.deviation * float(np.exp(score * self.deviation + self.mean))

    def _form(self, above: Array) -> Array:
        return above if self.offset is None else np.log(above + self.offset)


def scores_of(values: Array) -> Scores:
    """The scale for these values: as they are or as the logarithm above the best, whichever is least skewed."""
    best = float(values.min())
    reach = float(np.quantile(values, 0.75) - best)
    if reach <= 0.0:
        return Scores(best, 0.0, None, 0.0, 1.0)
    above = np.minimum((values - best) / reach, TAIL)
    forms: dict[float | None, Array] = {None: above}
    forms |= {offset: np.log(above + offset) for offset in _OFFSETS}
    offset = min(forms, key=lambda one: abs(float(stats.skew(forms[one]))))
    return Scores(best, reach, offset, float(forms[offset].mean()), float(forms[offset].std()))
