"""Trainings of one point that were repeated, and how much better one of two points is, with an interval.

Trials of equal points are replicates: they differ by the luck of a run and by nothing else. Promoted trials are paired
with their parents (A32, B31). A pair with the *same seed* shares the parent's luck, which was selected for: it is
shown, and confirms nothing. A difference is told in words with its sign: better or worse, gained or lost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.study_frames import StudyFrames
from tuner.design.origin import promoted_from

LEVEL = 0.80  # [P] of intervals: certainty is not required (B33); equal points are called better in (1 - level) / 2
COLUMNS = ("trial", "parent", "seeds", "rate", "value_before", "value", "complete")


Floats = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard deviation of the best value between replicates, pooled over the points that have several.

    `sd` is in the units of the metric; `freedom` is its degrees of freedom (each point of n trials gives n - 1).
    """

    sd: float
    freedom: int
    points: int

    @property
    def trials(self) -> int:
        """How many complete trials it rests on."""
        return self.freedom + self.points


def replicate_groups(frames: StudyFrames, *, minimum: int = 2) -> list[tuple[int, ...]]:
    """The numbers of trials with equal points, ascending, for every point that at least `minimum` trials have.

    Trials of every state are in it. Equal means equal in value and type: 1, 1.0, True and "1" differ.
    """
    members: dict[tuple[str, ...], list[int]] = {}
    for number, key in zip(frames.trials["trial"].tolist(), _keys(frames.trials, frames.hyperparameters), strict=True):
        members.setdefault(key, []).append(int(number))
    return [tuple(group) for group in members.values() if len(group) >= minimum]


def replicate_spread(frames: StudyFrames) -> Spread | None:
    """How far complete trials of equal points lie apart; None where no point has two complete trials.

    A point whose trials all have the same best value to the last bit is left out: these are copies of one run, or runs
    of one seed, and show nothing about the variance of runs.
    """
    values = frames.complete.set_index("trial")["best_value"]
    squares, freedom, points = 0.0, 0, 0
    for group in replicate_groups(frames):
        mine = values.reindex(group).dropna().to_numpy(dtype=np.float64)
        if len(mine) < 2 or (mine == mine[0]).all():
            continue
        squares += float(((mine - mine.mean()) ** 2).sum())
        freedom += len(mine) - 1
        points += 1
    return Spread(math.sqrt(squares / freedom), freedom, points) if freedom else None


def _keys(trials: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The point of every trial as text that tells values of different types apart."""
    if not names:
        return [()] * len(trials)
    return list(zip(*([repr(value) for value in trials[name].tolist()] for name in names), strict=True))


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
    value_before, value (best over training, NaN without one), complete: whether the trial, and all others of its point,
    trained the whole budget. Of a point of which some trials stopped early the others are just those that still
    improved, so that none of them counts.
    """
    values = before.trials.set_index("trial")["best_value"]
    stopped = {_trained(origin) for origin in after.trials.loc[after.stopped_early(), "origin"]}
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
                "complete": int(row["trial"]) in complete and _trained(row["origin"]) not in stopped,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _trained(origin: object) -> tuple[str, int, float] | None:
    """The trial that an origin names and the multiple of its rate; None where it names none."""
    found = promoted_from(str(origin))
    return None if found is None else (found.study, found.trial, found.rate)


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
    """By how much the first point is better, with an interval by Student's t; infinite where the noise is unknown."""
    sign = 1.0 if direction == "minimize" else -1.0
    difference = sign * (float(np.mean(second)) - float(np.mean(first)))
    if not noise.degrees:
        return Contrast(difference, -math.inf, math.inf)
    error = noise.deviation * math.sqrt(1.0 / len(first) + 1.0 / len(second))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2.0, noise.degrees)) * error
    return Contrast(difference, difference - reach, difference + reach)


def better_or_worse(gain: float) -> str:
    """`gain`: positive for better, in the metric's units. "better by 0.0224", "worse by 0.042" or "no better"."""
    if gain == 0.0 or math.isnan(gain):
        return "no better"
    return f"{'better' if gain > 0.0 else 'worse'} by {abs(gain):.3g}"


def with_interval(gain: float, low: float, high: float, level: float) -> str:
    """`better_or_worse` with its interval from `low` to `high`, which are positive for better, too.

    The ends are in the words of the gain where they have its sign; else each end has its own word. An infinite interval
    is left out.
    """
    words = better_or_worse(gain)
    if not (math.isfinite(low) and math.isfinite(high)):
        return words
    if low >= 0.0 and gain > 0.0:
        return f"{words} ({level:.0%} interval {low:.3g} to {high:.3g})"
    if high <= 0.0 and gain < 0.0:
        return f"{words} ({level:.0%} interval {abs(high):.3g} to {abs(low):.3g})"
    return f"{words} ({level:.0%} interval from {abs(low):.3g} worse to {abs(high):.3g} better)"


def gained_or_lost(gain: float) -> str:
    """Like `better_or_worse`: "gained 0.00277", "lost 0.0152" or "gained nothing"."""
    if gain == 0.0 or math.isnan(gain):
        return "gained nothing"
    return f"{'gained' if gain > 0.0 else 'lost'} {abs(gain):.3g}"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the candidate's mean is (positive: better), with an interval at `level`."""

    gain: float
    low: float
    high: float


def welch_difference(candidate: Floats, baseline: Floats, level: float) -> Difference:
    """Mean of `candidate` minus mean of `baseline`, with Welch's interval: each side has its own variance.

    At least two finite values on each side.
    """
    one, other = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    gain = float(one.mean() - other.mean())
    errors = np.array([one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)])
    total = float(errors.sum())
    if total <= 0.0:
        return Difference(gain, gain, gain)
    freedom = total**2 / float(errors[0] ** 2 / (len(one) - 1) + errors[1] ** 2 / (len(other) - 1))
    reach = float(stats.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(total)
    return Difference(gain, gain - reach, gain + reach)
