"""The objective as a smooth function of the hyperparameters: a Gaussian process with a length scale for each.

A hyperparameter that does not matter gets a long length scale and takes no part, which is what makes the answer
usable with a few dozen trials in several dimensions. Two hyperparameters that make up for each other (a ridge) get a
length scale across their diagonal, where that explains the values much better. Everything here is deterministic.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import optimize
from scipy.linalg import LinAlgError, cho_solve, cholesky

from tuner.analysis.scores import Array, Scores, scores_of

# [P] priors of the logarithms of length scales (in ranges), amplitude and noise (in spreads): mean and deviation.
LENGTH_PRIOR, AMPLITUDE_PRIOR, NOISE_PRIOR = (1.0, 1.0), (1.0, 1.0), (-2.5, 1.2)
TILT_PRIOR = 2.0  # [P] the deviation of the weights, in 1 / ranges, of the two hyperparameters of a ridge
TILTED = 4.0  # [P] by which the logarithm of the posterior has to be better with a ridge
_MOST_TILTED = 3  # hyperparameters, those that matter most, of which pairs are tried
_CANDIDATES = 400
_LEAST_NOISE = -5.0
_MOST_ITERATIONS = 60


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

    def left_out(self) -> Array:
        """Of each trial: how many standard deviations its score lies above what the others predict."""
        return np.asarray(self.weights / np.sqrt(np.diag(self.inverse)))

    def minimizer(self, held: Mapping[int, float] | None = None, near: Array | None = None) -> Array:
        """Where in the unit cube the mean is least, to about 0.01 in each dimension.

        `held`: columns with the value they have to have; `near`: looked at first.
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
    numeric = [int(place) for place in np.argsort(scales, kind="stable") if place not in discrete]
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
