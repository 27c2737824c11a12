"""Promoted trials beside their parents: what a round says about the one before it, pair by pair (A32, B31).

A pair with the *same seed* shares the parent's luck, which was selected for: it is shown, and confirms nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.gain_words import with_interval
from tuner.analysis.study_frames import StudyFrames
from tuner.design.origin import promoted_from

LEVEL = 0.80  # [P] of intervals of differences between trials: certainty is not asked for (B33)
COLUMNS = ("trial", "parent", "seeds", "rate", "value_before", "value", "complete")


@dataclass(frozen=True, slots=True)
class Noise:
    """The standard deviation between trainings of one point, from `degrees` differences; NaN and 0 without any."""

    deviation: float
    degrees: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much better the first of two points is, positive for better whatever the direction, and its interval."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the first is better: confirmed, rejected, or unconfirmed where the interval holds 0."""
        if self.low > 0.0:
            return "confirmed"
        return "rejected" if self.high < 0.0 else "unconfirmed"

    @property
    def words(self) -> str:
        alone = "" if math.isfinite(self.low) else " (no configuration was trained twice, so there is no interval)"
        return with_interval(self.difference, self.low, self.high, LEVEL) + alone


def transfer_pairs(before: StudyFrames, after: StudyFrames) -> pd.DataFrame:
    """One row a trial of `after` whose point is of a trial of `before`, by number.

    Columns: trial, parent (its number in `before`), seeds ("same" or "fresh"), rate (multiple of the base rate),
    value_before, value (best over training, NaN without one), complete.
    """
    values = before.trials.set_index("trial")["best_value"]
    complete = set(after.complete["trial"])
    rows: list[dict[str, Any]] = []
    for row in after.trials.to_dict("records"):
        origin = promoted_from(str(row["origin"]))
        if origin is None or origin.study != before.study.name or origin.trial not in values.index:
            continue
        rows.append(
            {
                "trial": int(row["trial"]),
                "parent": origin.trial,
                "seeds": origin.seeds,
                "rate": origin.rate,
                "value_before": float(values[origin.trial]),
                "value": float(row["best_value"]),
                "complete": int(row["trial"]) in complete,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def fresh_values(pairs: pd.DataFrame, parent: int, rate: float = 1.0) -> list[float]:
    """The values of a point's complete trainings with fresh seeds, at a multiple of its rate."""
    mine = pairs[(pairs["parent"] == parent) & (pairs["rate"] == rate) & (pairs["seeds"] == "fresh")]
    return [float(value) for value in mine.loc[mine["complete"], "value"]]


def ranked_parents(pairs: pd.DataFrame, direction: str) -> list[int]:
    """Parents by their value in the round before, best first; the smaller number on a tie."""
    once = pairs.drop_duplicates("parent")
    ranked = once.sort_values(["value_before", "parent"], ascending=[direction == "minimize", True])
    return [int(parent) for parent in ranked["parent"]]


def trial_noise(pairs: pd.DataFrame) -> Noise:
    """From points that were trained more than once at this length, whatever their seeds."""
    known = pairs[pairs["complete"] & (pairs["rate"] == 1.0)]
    groups = [group.to_numpy(dtype=np.float64) for _, group in known.groupby("parent")["value"] if len(group) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return Noise(math.nan, 0)
    return Noise(math.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / degrees), degrees)


def contrast(first: Sequence[float], second: Sequence[float], noise: Noise, direction: str) -> Contrast:
    """By how much the first point is better, with an interval by Student's t; endless where the noise is unknown."""
    sign = 1.0 if direction == "minimize" else -1.0
    difference = sign * (float(np.mean(second)) - float(np.mean(first)))
    if not noise.degrees:
        return Contrast(difference, -math.inf, math.inf)
    error = noise.deviation * math.sqrt(1.0 / len(first) + 1.0 / len(second))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2.0, noise.degrees)) * error
    return Contrast(difference, difference - reach, difference + reach)
