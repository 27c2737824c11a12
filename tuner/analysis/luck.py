"""Trials that failed by bad luck: far worse than what all the others make of their place. They are set aside.

A collapsed run is no noise of the objective: one in seven of them, and a fit that takes them for noise knows nothing
about the space any more. They lie on one side only, which is what lets them be told apart even where most trials
failed: the fit grows from the lower envelope of the values.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from tuner.analysis.response import Response, fitted_response
from tuner.analysis.scores import Array

NOISY = 0.3  # [P] spreads: where a fit of all trials has less noise, none of them is set aside
FAR = 3.0  # [P] standard deviations above the fit of the others: by luck
CLEARER = 0.5  # [P] and then the noise of the others is at most this share of that with them
# [P] And the others must predict each other: what a fit leaves of pure noise looks clean, too, but predicts less.
EXPLAINED, EXPLAINED_BY_FEW = 0.9, 0.95  # of their variance; where fewer than
MOSTLY = 0.75  # of the trials are left, the second
MINIMUM_KEPT = 10  # [P] trials that are left
_AT_ONCE = 0.07  # of the trials are added before the others are fitted again
_ENVELOPE = (0.8, 0.03, 0.02, 25)  # length scale, weight of what lies above, ridge, iterations
_START = 0.35  # of the trials, nearest to the envelope, are the first that are fitted


def response_without_luck(
    units: Array, values: Array, *, discrete: tuple[int, ...] = (), least_noise: float = 0.0
) -> tuple[Response, NDArray[np.bool_]]:
    """The fit of the trials [trials, dimensions], and which of them it rests on."""
    everything = np.ones(len(values), dtype=bool)
    whole = fitted_response(units, values, discrete=discrete, least_noise=least_noise)
    if whole.noise <= NOISY or len(values) < MINIMUM_KEPT + 1:
        return whole, everything
    kept = _grown(units, values, discrete, least_noise)
    if kept.all() or kept.sum() < MINIMUM_KEPT:
        return whole, everything
    trimmed = fitted_response(units[kept], values[kept], discrete=discrete, least_noise=least_noise)
    # Both in the unit of the metric, at the best of the trials.
    clear = trimmed.noise * trimmed.scores.slope(0.0) <= CLEARER * whole.noise * whole.scores.slope(0.0)
    explains = EXPLAINED if kept.mean() >= MOSTLY else EXPLAINED_BY_FEW
    return (trimmed, kept) if clear and _explained(trimmed) >= explains else (whole, everything)


def _explained(response: Response) -> float:
    """The share of the variance of the trials that is predicted for each from all the others."""
    scores = np.linalg.solve(response.inverse, response.weights)
    variance = float(np.var(scores))
    missed = response.weights / np.diag(response.inverse)
    return 1.0 - float((missed**2).mean()) / variance if variance > 0.0 else 0.0


def _grown(units: Array, values: Array, discrete: tuple[int, ...], least_noise: float) -> NDArray[np.bool_]:
    """The trials that the fit of the others expects, from those at the lower envelope on."""
    above = _above_envelope(units, values)
    kept = np.zeros(len(values), dtype=bool)
    kept[np.argsort(above, kind="stable")[: max(MINIMUM_KEPT, round(_START * len(values)))]] = True
    at_once = max(1, round(_AT_ONCE * len(values)))
    while not kept.all():
        response = fitted_response(units[kept], values[kept], discrete=discrete, least_noise=least_noise, tilts=False)
        if response.scores.reach <= 0.0:
            break
        others = np.flatnonzero(~kept)
        scores = response.scores.of(values[others])
        far = (scores - response.mean(units[others])) / response.deviation(units[others])
        nearest = np.argsort(far, kind="stable")[:at_once]
        if far[nearest[0]] > FAR:
            break
        kept[others[nearest[far[nearest] <= FAR]]] = True
    return kept


def _above_envelope(units: Array, values: Array) -> Array:
    """By how much each value lies above a smooth function that most values lie above."""
    length, weight, ridge, iterations = _ENVELOPE
    scores = np.minimum((values - values.min()) / max(float(np.median(values) - values.min()), 1e-300), 3.0)
    squares = ((units[:, None, :] - units[None, :, :]) ** 2).sum(axis=-1)
    kernel = np.exp(-0.5 * squares / (length**2 * units.shape[1])) + 1.0  # the constant is free
    weights = np.ones(len(values))
    residual = scores
    for _ in range(iterations):
        fitted = kernel @ solve(kernel + np.diag(ridge / weights), scores, assume_a="pos")
        residual = scores - fitted
        weights = np.where(residual > 0.0, weight, 1.0)
    return np.asarray(residual)
