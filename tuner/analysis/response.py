"""The objective as a smooth function of the hyperparameters: a Gaussian process with a length scale for each.

Values are fitted as scores of mean 0 and deviation 1, with a long tail of bad values pulled in. A hyperparameter that
does not matter gets a long length scale and takes no part, so a few dozen trials are enough in several dimensions.

On a ridge two hyperparameters make up for each other (learning rate and batch size): moved alone, each of them seems
to have its best where the other happens to be. The fit gets a length scale across their diagonal where that explains
the values much better, and a limit of a range is judged where the others follow, as far as following surely pays.
Everything here is deterministic.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import optimize, stats
from scipy.linalg import LinAlgError, cho_solve, cholesky

from tuner.analysis.noise import Array

_OFFSETS = (0.15, 0.5)  # of the logarithms that pull in a long tail of bad trials
TAIL = 4.0  # [P] values further above the best than this many times the third quartile count as that far


# [P] priors (mean and deviation) of the logarithms of length scales, in ranges, and of amplitude and noise, in
# standard deviations of the trials.
LENGTH_PRIOR, AMPLITUDE_PRIOR, NOISE_PRIOR = (1.0, 1.0), (1.0, 1.0), (-2.5, 1.2)
TILT_PRIOR = 2.0  # [P] the deviation of the weights, in 1 / ranges, of the two hyperparameters of a ridge
TILTED = 4.0  # [P] by which the logarithm of the posterior has to be better with a ridge
_MOST_TILTED, _MATTERS = 3, 2.0  # hyperparameters of which pairs are tried, and their longest scales, in ranges
_CANDIDATES = 400
_LEAST_NOISE = -5.0
_MOST_ITERATIONS = 60


PAYS = 2.0  # [P] standard deviations, and
PAYS_AT_LEAST = 0.05  # [P] standard deviations of the trials by which moving the others must improve the score
SHALLOW = 0.35  # [P] of what is lost by moving one alone is lost where the other follows: a ridge
LOST = 0.5  # [P] standard deviations that are lost by moving one alone: a smaller loss needs no partner
SURELY_LOST = 3.0  # [P] standard deviations of that loss
REACH, FAR = 0.4, 0.25  # [P] of the range by which one is moved; shorter ways, before an edge, show no ridge
FOLLOWS = 0.15  # [P] of the range by which the other moves
STEEP = 1.5  # [P] in 1 / ranges: the fit has a direction across, in which both count
_GRID = 41


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


@dataclass(frozen=True, slots=True)
class Response:
    """A fitted function of `units` [trials, dimensions]; values are scores.

    features: [dimensions, features], the directions that have a length scale each: every dimension, and the one across
    a ridge; discrete: columns that are 0 or 1; noise: the standard deviation of a trial's score around the function.
    """

    units: Array
    features: Array
    amplitude: float
    noise: float
    weights: Array
    inverse: Array
    scores: Scores
    discrete: tuple[int, ...] = ()

    def mean(self, units: Array) -> Array:
        """The expected score at each row of `units`."""
        return np.asarray(self._covariance(units, self.units) @ self.weights)

    def difference(self, one: Array, other: Array) -> tuple[float, float]:
        """The score at `one` minus that at `other`, and its standard deviation."""
        pair = np.vstack([one, other])
        known = self._covariance(pair, self.units)
        mean = known @ self.weights
        covariance = self._covariance(pair, pair) - known @ self.inverse @ known.T
        variance = covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1]
        return float(mean[0] - mean[1]), float(np.sqrt(max(variance, 1e-12)))

    def deviation(self, units: Array) -> Array:
        """The standard deviation of a new trial's score around `mean` at each row of `units`."""
        known = self._covariance(units, self.units)
        variance = self.amplitude - np.einsum("ij,jk,ik->i", known, self.inverse, known)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) + self.noise**2))

    @property
    def across(self) -> Array:
        """The weights of each dimension in the direction across a ridge, in 1 / ranges; all 0 where there is none."""
        dimensions = self.units.shape[1]
        return self.features[:, dimensions] if self.features.shape[1] > dimensions else np.zeros(dimensions)

    def minimizer(self, held: Mapping[int, float] | None = None, near: Array | None = None) -> Array:
        """Where in the unit cube the mean is least, to about 0.01 in each dimension.

        `held`: columns with the value they have to have; `near`: tried first.
        """
        rng = np.random.default_rng(0)
        anywhere = rng.random((_CANDIDATES, self.units.shape[1]))
        columns = list(self.discrete)
        anywhere[:, columns] = self.units[rng.integers(len(self.units), size=_CANDIDATES)][:, columns]
        known = [self.units, anywhere] if near is None else [near[None, :], self.units, anywhere]
        best = self._best_of(np.vstack(known), held or {})
        free = np.ones(len(best))
        free[[*columns, *(held or {})]] = 0.0
        for width in (0.15, 0.05, 0.02):
            moved = best + width * free * rng.standard_normal((_CANDIDATES // 2, len(best)))
            best = self._best_of(np.vstack([best, np.clip(moved, 0.0, 1.0)]), {})
        return np.asarray(best)

    def _best_of(self, candidates: Array, held: Mapping[int, float]) -> Array:
        for column, value in held.items():
            candidates[:, column] = value
        return np.asarray(candidates[np.argmin(self.mean(candidates))])

    def _covariance(self, one: Array, other: Array) -> Array:
        first, second = one @ self.features, other @ self.features
        squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :] - 2.0 * first @ second.T
        return np.asarray(self.amplitude * np.exp(-0.5 * np.maximum(squares, 0.0)))


def fitted_response(
    units: Array, values: Array, *, discrete: tuple[int, ...] = (), least_noise: float = 0.0, tilts: bool = True
) -> Response:
    """The most probable function of `units` (trials x dimensions, in 0..1) for `values` that are minimized.

    `least_noise`: a standard deviation in the unit of the values that is known, from replicates or their granularity;
    `tilts`: whether ridges are looked for.
    """
    scale = scores_of(values)
    scores = scale.of(values)
    problem = _Problem(_differences(units), scores, _least_noise(scale, scores, least_noise))
    value, found = problem.solved(None)
    pair: tuple[int, int] | None = None
    for candidate, tilt in _tilts(np.exp(found[: units.shape[1]]), discrete) if tilts else ():
        other, parameters = problem.solved(candidate, tilt)
        if other < value - TILTED * (pair is None):
            value, found, pair = other, parameters, candidate
    return _response(units, scale, scores, found, pair, discrete)


def _tilts(scales: Array, discrete: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], Array]]:
    """Pairs of hyperparameters that matter, with both directions that a ridge can have."""
    numeric = [
        int(place) for place in np.argsort(scales, kind="stable") if place not in discrete and scales[place] < _MATTERS
    ]
    for pair in combinations(sorted(numeric[:_MOST_TILTED]), 2):
        for sign in (-1.0, 1.0):
            yield pair, np.array([1.5, sign * 1.5])


def _response(
    units: Array, scale: Scores, scores: Array, found: Array, pair: tuple[int, int] | None, discrete: tuple[int, ...]
) -> Response:
    dimensions = units.shape[1]
    features = np.diag(np.exp(-found[:dimensions]))
    if pair is not None:
        across = np.zeros((dimensions, 1))
        across[list(pair), 0] = found[-2:]
        features = np.hstack([features, across])
    amplitude, noise = float(np.exp(2.0 * found[dimensions])), float(np.exp(found[dimensions + 1]))
    prior = Response(units, features, amplitude, noise, scores, np.eye(len(units)), scale, discrete)
    inverse = np.asarray(np.linalg.inv(prior._covariance(units, units) + noise**2 * np.eye(len(units))), np.float64)
    return replace(prior, weights=inverse @ scores, inverse=inverse)


@dataclass(frozen=True, slots=True)
class _Problem:
    """differences: of the units of all pairs of trials [trials, trials, dimensions]; floor: of the log of the noise."""

    differences: Array
    scores: Array
    floor: float

    def solved(self, pair: tuple[int, int] | None, tilt: Array | None = None) -> tuple[float, Array]:
        """Minus the log posterior and the most probable parameters: logarithms of the length scales, of amplitude and
        noise, and the weights of a pair across their ridge.
        """
        dimensions = self.differences.shape[2]
        start = np.concatenate([np.full(dimensions, 0.3), [0.5, max(-2.0, self.floor)], [] if tilt is None else tilt])
        bounds = (
            [(-2.0, 5.0)] * dimensions
            + [(-2.0, 4.0), (self.floor, 1.0)]
            + [(-20.0, 20.0)] * (len(start) - dimensions - 2)
        )
        across = None if pair is None else self.differences[:, :, list(pair)]
        solution = optimize.minimize(
            _loss, start, args=(self.differences**2, self.scores, across), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": _MOST_ITERATIONS},
        )  # fmt: skip
        return float(solution.fun), np.asarray(solution.x)


def _least_noise(scale: Scores, scores: Array, least: float) -> float:
    """The logarithm of the least noise of a score: that of a value at the median score."""
    if least <= 0.0 or scale.reach <= 0.0:
        return _LEAST_NOISE
    return float(np.clip(np.log(least / scale.slope(float(np.median(scores)))), _LEAST_NOISE, 0.9))


def _loss(parameters: Array, squares: Array, scores: Array, across: Array | None) -> tuple[float, Array]:
    """Minus the log posterior of the parameters of `_Problem.solved`, and its gradient."""
    dimensions = squares.shape[2]
    scales, (log_amplitude, log_noise), tilt = np.split(parameters, [dimensions, dimensions + 2])
    precisions = np.exp(-2.0 * scales)
    exponent = squares @ precisions
    projected = None if across is None else across @ tilt
    if projected is not None:
        exponent = exponent + projected**2
    kernel = np.exp(2.0 * log_amplitude - 0.5 * exponent)
    identity = np.eye(len(scores))
    noise = float(np.exp(2.0 * log_noise))
    try:
        root = cholesky(kernel + noise * identity, lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(parameters)
    inverse = cho_solve((root, True), identity)
    weights = inverse @ scores
    pull = inverse - np.outer(weights, weights)
    weighted = pull * kernel
    gradient = np.empty_like(parameters)
    gradient[:dimensions] = 0.5 * np.tensordot(weighted, squares, axes=2) * precisions
    gradient[dimensions], gradient[dimensions + 1] = weighted.sum(), np.trace(pull) * noise
    if across is not None and projected is not None:
        gradient[dimensions + 2 :] = -0.5 * np.tensordot(weighted * projected, across, axes=2)
    prior = np.array([LENGTH_PRIOR] * dimensions + [AMPLITUDE_PRIOR, NOISE_PRIOR] + [(0.0, TILT_PRIOR)] * len(tilt))
    away = (parameters - prior[:, 0]) / prior[:, 1]
    value = 0.5 * scores @ weights + np.log(np.diag(root)).sum() + 0.5 * (away**2).sum()
    return float(value), gradient + away / prior[:, 1]


def _differences(units: Array) -> Array:
    return np.asarray(units[:, None, :] - units[None, :, :])


def followed(response: Response, best: Array, held: Mapping[int, float]) -> Array:
    """`best` with the `held` columns where they have to be, the others moved where that surely pays."""
    alone = best.copy()
    for column, value in held.items():
        alone[column] = value
    other = response.minimizer(held, near=alone)
    gained, doubt = response.difference(alone, other)
    return other if gained > max(PAYS_AT_LEAST, PAYS * doubt) else alone


def ridges(response: Response, best: Array, columns: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of columns that make up for each other, each pair once, in order."""
    found: set[tuple[int, int]] = set()
    steep = [int(place) for place in np.flatnonzero(np.abs(response.across) >= STEEP)]
    if len(steep) == 2:
        found.add((steep[0], steep[1]))
    for column in columns:
        for place in (best[column] - REACH, best[column] + REACH):
            if abs(best[column] - np.clip(place, 0.0, 1.0)) < FAR:
                continue
            partner = _partner(response, best, column, float(np.clip(place, 0.0, 1.0)), columns)
            if partner is not None:
                found.add((min(column, partner), max(column, partner)))
    return sorted(found)


def _partner(response: Response, best: Array, column: int, place: float, columns: Sequence[int]) -> int | None:
    """The column that makes up for moving `column` to a place; None where there is none."""
    alone = best.copy()
    alone[column] = place
    lost, doubt = response.difference(alone, best)
    if lost < LOST or lost < SURELY_LOST * doubt:
        return None
    reached: dict[int, float] = {}
    for partner in columns:
        if partner == column:
            continue
        grid = np.repeat(alone[None, :], _GRID, axis=0)
        grid[:, partner] = np.linspace(0.0, 1.0, _GRID)
        moved = grid[np.argmin(response.mean(grid))]
        if abs(moved[partner] - best[partner]) >= FOLLOWS:
            gained, doubt = response.difference(alone, moved)
            if gained > PAYS * doubt:
                reached[partner] = _value_lost(response, moved, best)
    if not reached:
        return None
    partner = min(reached, key=lambda one: reached[one])
    return partner if reached[partner] <= SHALLOW * _value_lost(response, alone, best) else None


def _value_lost(response: Response, one: Array, best: Array) -> float:
    """By how much `one` is worse than `best`, in the unit of the metric."""
    value, least = (response.scores.value(score) for score in response.mean(np.vstack([one, best])).tolist())
    return value - least
