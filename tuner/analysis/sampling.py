"""How the points of an imported study were chosen: evenly over the space, or by the results of earlier trials.

Most samplers leave no trace in their records. But a model-based sampler chooses points near the best one so far, and an
even sampler does not know that point: then the distances of new points to it are those of uniform draws.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.noise import Array
from tuner.analysis.ranges import unit_positions
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Choice, Hyperparameter, Range

CLOSER = 3.0  # [P] standard deviations by which new points lie nearer to the best one than uniform draws would
UNEVEN = 0.001  # [P] chance, over all hyperparameters, that a uniform sample lies so unevenly (Kolmogorov, chi-square)
MINIMUM_POINTS = 10  # [P] points below which no test is made
MOST_WHOLE = 1000  # whole numbers of a range beyond which they are as good as continuous
NODES = 512  # of a continuous range
_GATHERED = (
    "The points gather around the best ones so far, as a model-based sampler (Optuna's TPE, for example) chooses them"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """`kind`: "even" (no evidence against it), "model" or "uneven"; `why` is a clause that a caveat begins with."""

    kind: str
    why: str = ""


def sample_of(frames: StudyFrames) -> Sample:
    """How the points of an imported study lie; the points that this program chooses are known to be even."""
    if not frames.study.source:
        return Sample("even")
    chosen = frames.trials["origin"].astype(str).str.removeprefix(frames.study.source)
    named = chosen[chosen.str.startswith(", by ")].str.removeprefix(", by ")
    if len(named):
        which = f"{len(named)} of {len(chosen)} points were chosen by {named.iloc[0]}"
        return Sample("model", f"{which}, from earlier trials")
    if (chosen == ", on a grid").any():
        return Sample("uneven", "The points lie on a grid")
    points = frames.trials[chosen != ", enqueued by hand"].sort_values("trial")
    if len(points) < MINIMUM_POINTS:
        return Sample("even")
    if not _sorted(frames, points) and closeness(frames, points) > CLOSER:
        return Sample("model", _GATHERED)
    if _unevenness(frames, points) < UNEVEN:
        return Sample("uneven", "The points do not lie evenly over the ranges, as on a grid or chosen by hand")
    return Sample("even")


def _sorted(frames: StudyFrames, points: pd.DataFrame) -> bool:
    """Whether the trials stand in the order of their results or of a hyperparameter: a table that was sorted, or loops
    over a grid. Then their numbers do not show what came first.
    """
    columns = [points["best_value"].to_numpy(dtype=np.float64)]
    columns += [_places(one, points[one.name])[0] for one in _everywhere(frames)]
    steps = [np.diff(column[np.isfinite(column)]) for column in columns]
    return any(len(step) and np.any(step) and (np.all(step >= 0.0) or np.all(step <= 0.0)) for step in steps)


def closeness(frames: StudyFrames, points: pd.DataFrame) -> float:
    """By how many standard deviations points lie nearer to the best one before them than uniform draws would.

    Each distance has a known mean and variance given the past, so that their sum is a martingale under even sampling,
    whatever the objective.
    """
    sign = frames.study.objective.sign
    complete = (points["state"] == "complete") & points["best_value"].notna()
    values = (sign * points["best_value"]).where(complete, np.inf).to_numpy(dtype=np.float64)
    before = _best_before(values)
    nearer, variance = 0.0, 0.0
    for hyperparameter in _everywhere(frames):
        places, grid, weights = _places(hyperparameter, points[hyperparameter.name])
        known = (before >= 0) & np.isfinite(places) & np.isfinite(places[np.maximum(before, 0)])
        mine, best = places[known], places[before[known]]
        apart = _apart(hyperparameter)
        means, squares = _moments(apart, tuple(np.unique(best)), tuple(grid), tuple(weights))
        row = np.searchsorted(np.unique(best), best)
        distance = np.abs(mine - best) if not apart else (mine != best).astype(float)
        nearer += float((means[row] - distance).sum())
        variance += float((squares[row] - means[row] ** 2).sum())
    return nearer / math.sqrt(variance) if variance > 0.0 else 0.0


def _everywhere(frames: StudyFrames) -> Iterator[Hyperparameter]:
    yield from (one for one in frames.study.hyperparameters if one.condition is None)


def _apart(hyperparameter: Hyperparameter) -> bool:
    """Whether two values are equal or different and nothing in between."""
    return isinstance(hyperparameter.domain, Choice)


def _best_before(values: Array) -> np.ndarray:
    """The place of the best value before each one; -1 where there is none."""
    best, found = -1, []
    for place, value in enumerate(values):
        found.append(best)
        if np.isfinite(value) and (best < 0 or value < values[best]):
            best = place
    return np.array(found, dtype=np.intp)


def _places(hyperparameter: Hyperparameter, column: pd.Series) -> tuple[Array, Array, Array]:
    """Positions of the values; and where a uniform draw would lie, with the weight of each place."""
    domain = hyperparameter.domain
    if isinstance(domain, Choice):
        known = {repr(choice): float(place) for place, choice in enumerate(domain.choices)}
        plain = column.astype(object).where(column.notna(), None)
        places = np.array([known.get(repr(value), np.nan) for value in plain], dtype=np.float64)
        count = len(domain.choices)
        return places, np.arange(count, dtype=np.float64), np.full(count, 1.0 / count)
    places = unit_positions(column, domain)
    if domain.integer and domain.high - domain.low < MOST_WHOLE:
        return places, *_whole_numbers(domain)
    return places, (np.arange(NODES) + 0.5) / NODES, np.full(NODES, 1.0 / NODES)


def _whole_numbers(domain: Range) -> tuple[Array, Array]:
    """Each has the share of the sampling scale that is nearest to it."""
    numbers = np.arange(int(domain.low), int(domain.high) + 1, dtype=np.float64)
    edges = np.concatenate([numbers - 0.5, [numbers[-1] + 0.5]])
    widths = np.diff(np.log(edges) if domain.log else edges)
    return unit_positions(pd.Series(numbers), domain), widths / widths.sum()


@lru_cache(maxsize=64)
def _moments(
    apart: bool, best: tuple[float, ...], grid: tuple[float, ...], weights: tuple[float, ...]
) -> tuple[Array, Array]:
    """Mean of the distance of a uniform draw to each of `best`, and of its square."""
    difference = np.asarray(grid)[None, :] - np.asarray(best)[:, None]
    distance = (np.abs(difference) > 1e-9).astype(float) if apart else np.abs(difference)
    return distance @ np.asarray(weights), distance**2 @ np.asarray(weights)


def _unevenness(frames: StudyFrames, points: pd.DataFrame) -> float:
    """The least chance, over the hyperparameters and corrected for their number, of so uneven a uniform sample."""
    chances = []
    for hyperparameter in _everywhere(frames):
        places, grid, weights = _places(hyperparameter, points[hyperparameter.name])
        mine = places[np.isfinite(places)]
        if len(mine) < MINIMUM_POINTS:
            continue
        if len(grid) == NODES:
            chances.append(float(stats.kstest(mine, "uniform").pvalue))
        else:
            chances.append(_chance_of_counts(mine, grid, weights))
    return min(chances, default=1.0) * max(len(chances), 1)


def _chance_of_counts(places: Array, grid: Array, weights: Array) -> float:
    """Chi-square, with neighbours put together until each part is expected at least five times."""
    counts = np.bincount(np.abs(places[:, None] - grid[None, :]).argmin(axis=1), minlength=len(grid))
    groups = np.floor(np.cumsum(weights) * len(places) / 5.0 - 1e-9).astype(int)
    seen = np.array([counts[groups == group].sum() for group in np.unique(groups)], dtype=np.float64)
    share = np.array([weights[groups == group].sum() for group in np.unique(groups)])
    if len(seen) < 2:
        return 1.0
    return float(stats.chisquare(seen, share * len(places)).pvalue)
