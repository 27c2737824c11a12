"""The objective as a smooth function of the hyperparameters: a Gaussian process with a length scale for each.

A hyperparameter that does not matter gets a long length scale and takes no part, which is what makes the answer
usable with a few dozen trials in several dimensions. Everything here is deterministic.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.linalg import LinAlgError, cho_solve, cholesky

Array = NDArray[np.float64]

# [P] priors of the logarithms of length scales (in ranges), amplitude and noise (in spreads): mean and deviation.
LENGTH_PRIOR, AMPLITUDE_PRIOR, NOISE_PRIOR = (1.0, 1.0), (1.0, 1.0), (-2.5, 1.2)
_OFFSETS = (0.15, 0.5)  # of the logarithms that pull in a long tail of bad trials
TAIL = 4.0  # [P] values further above the best than this many times the third quartile count as that far
_CANDIDATES = 400


@dataclass(frozen=True, slots=True)
class Response:
    """A fitted function of `units`; values are standardized and, where the bad ones have a long tail, logarithmic."""

    units: Array
    scales: Array
    amplitude: float
    weights: Array
    inverse: Array

    def mean(self, units: Array) -> Array:
        return np.asarray(self._covariance(units, self.units) @ self.weights)

    def difference(self, one: Array, other: Array) -> tuple[float, float]:
        """The value at `one` minus that at `other`, and its standard deviation."""
        pair = np.vstack([one, other])
        known = self._covariance(pair, self.units)
        mean = known @ self.weights
        covariance = self._covariance(pair, pair) - known @ self.inverse @ known.T
        variance = covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1]
        return float(mean[0] - mean[1]), float(np.sqrt(max(variance, 1e-12)))

    def minimizer(self) -> Array:
        """Where in the unit cube the mean is least, to about 0.01 in each dimension."""
        rng = np.random.default_rng(0)
        candidates = np.vstack([self.units, rng.random((_CANDIDATES, self.units.shape[1]))])
        best = candidates[np.argmin(self.mean(candidates))]
        for width in (0.15, 0.05, 0.02):
            near = best + width * rng.standard_normal((_CANDIDATES // 2, len(best)))
            candidates = np.vstack([best, np.clip(near, 0.0, 1.0)])
            best = candidates[np.argmin(self.mean(candidates))]
        return np.asarray(best)

    def _covariance(self, one: Array, other: Array) -> Array:
        return self.amplitude * np.exp(-0.5 * _squares(one, other) @ self.scales**-2)


def fitted_response(units: Array, values: Array) -> Response:
    """The most probable function of `units` (trials x dimensions, in 0..1) for `values` that are minimized."""
    scores = standardized(values)
    squares = _squares(units, units)
    dimensions = units.shape[1]
    start = np.concatenate([np.full(dimensions, 0.3), [0.5, -2.0]])
    bounds = [(-2.0, 5.0)] * dimensions + [(-2.0, 4.0), (-5.0, 1.0)]
    solution = optimize.minimize(
        _loss, start, args=(squares, scores), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    )
    scales, amplitude = np.exp(solution.x[:dimensions]), float(np.exp(2.0 * solution.x[-2]))
    kernel = amplitude * np.exp(-0.5 * squares @ scales**-2)
    inverse = np.linalg.inv(kernel + np.exp(2.0 * solution.x[-1]) * np.eye(len(units)))
    return Response(units, scales, amplitude, inverse @ scores, inverse)


def standardized(values: Array) -> Array:
    """Mean 0 and deviation 1; as they are or as the logarithm above the best, whichever is least skewed."""
    reach = float(np.quantile(values, 0.75) - values.min())
    if reach <= 0.0:
        return np.zeros_like(values)
    above = np.minimum((values - values.min()) / reach, TAIL)
    forms = [above, *(np.log(above + offset) for offset in _OFFSETS)]
    form = min(forms, key=lambda each: abs(float(stats.skew(each))))
    return np.asarray((form - form.mean()) / form.std())


def _loss(parameters: Array, squares: Array, scores: Array) -> tuple[float, Array]:
    """Minus the log posterior of the logarithms of scales, amplitude and noise, and its gradient."""
    precisions = np.exp(-2.0 * parameters[:-2])
    kernel = np.exp(2.0 * parameters[-2] - 0.5 * squares @ precisions)
    identity = np.eye(len(scores))
    noise = float(np.exp(2.0 * parameters[-1]))
    try:
        root = cholesky(kernel + noise * identity, lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(parameters)
    inverse = cho_solve((root, True), identity)
    weights = inverse @ scores
    pull = inverse - np.outer(weights, weights)
    weighted = pull * kernel
    dimensions = len(precisions)
    gradient = np.empty_like(parameters)
    gradient[:dimensions] = 0.5 * np.tensordot(weighted, squares, axes=2) * precisions
    gradient[-2], gradient[-1] = weighted.sum(), np.trace(pull) * noise
    prior = np.array([LENGTH_PRIOR] * dimensions + [AMPLITUDE_PRIOR, NOISE_PRIOR])
    away = (parameters - prior[:, 0]) / prior[:, 1]
    value = 0.5 * scores @ weights + np.log(np.diag(root)).sum() + 0.5 * (away**2).sum()
    return float(value), gradient + away / prior[:, 1]


def _squares(one: Array, other: Array) -> Array:
    return np.asarray((one[:, None, :] - other[None, :, :]) ** 2)
