"""The fit over a search space that does not depend on bad luck or on a plateau of bad values.

Trials that failed by bad luck are far worse than what all the others make of their place; they are set aside. A
collapsed run is not noise of the objective: if one in seven trials collapses, a fit that takes them for noise shows
nothing about the space. Collapsed runs lie on one side only, so they can be recognized even where most trials failed:
the fit grows from the lower envelope of the values.

Far from the optimum nothing is learned, and every trial stays at the level of guessing. Such a trial is at least that
bad, and a smooth function that has to bend there would fit badly where it matters. So each of these trials gets the
value that the trials off the plateau predict there, where that is worse.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from tuner.analysis.noise import Array
from tuner.analysis.response import Response, fitted_response

# [P] Where a fit of all trials has less noise, in standard deviations, and predicts more of their variance, it stands.
NOISY, PREDICTED = 0.3, 0.85
FAR = 3.0  # [P] standard deviations above the fit of the others: by luck
CLEARER = 0.5  # [P] and then the others are predicted with at most this share of the error that they had with them
# [P] And the others must predict each other: what a fit leaves of pure noise looks clean, too, but predicts less.
EXPLAINED, EXPLAINED_BY_FEW = 0.9, 0.95  # of their variance; where fewer than
MOSTLY = 0.75  # of the trials are left, the second
MINIMUM_KEPT = 10  # [P] trials that are left
_AT_ONCE = 0.07  # of the trials are added before the others are fitted again
_ENVELOPE = (0.8, 0.03, 0.02, 25)  # length scale, weight of what lies above, ridge, iterations
_START = 0.35  # of the trials, nearest to the envelope, are the first that are fitted
TOP, FOOT = 0.95, 0.70  # [P] quantiles between which the values of a plateau lie
FLAT = 0.1  # [P] of the way from the best value: the plateau is no thicker
MINIMUM_OFF = 10  # [P] trials off the plateau, below which they lead to expect nothing
_ROUNDS = 2  # of the fit that leads to expect them


def robust_response(
    units: Array, values: Array, *, discrete: tuple[int, ...] = (), least_noise: float = 0.0
) -> tuple[Response, NDArray[np.bool_]]:
    """The fit of the trials [trials, dimensions], and which of them it rests on."""
    raised = _without_plateau(units, values, discrete, least_noise)
    return _without_luck(units, raised, discrete, least_noise)


def _without_luck(
    units: Array, values: Array, discrete: tuple[int, ...], least_noise: float
) -> tuple[Response, NDArray[np.bool_]]:
    """The fit, and which trials were not set aside."""
    everything = np.ones(len(values), dtype=bool)
    whole = fitted_response(units, values, discrete=discrete, least_noise=least_noise)
    if (whole.noise <= NOISY and _explained(whole) >= PREDICTED) or len(values) < MINIMUM_KEPT + 1:
        return whole, everything
    kept = _grown(units, values, discrete, least_noise)
    if kept.all() or kept.sum() < MINIMUM_KEPT:
        return whole, everything
    trimmed = fitted_response(units[kept], values[kept], discrete=discrete, least_noise=least_noise)
    # Both in the unit of the metric, at its middle.
    before = _rms(_missed(whole)[kept]) * whole.scores.slope(0.0)
    clear = _rms(_missed(trimmed)) * trimmed.scores.slope(0.0) <= CLEARER * before
    explains = EXPLAINED if kept.mean() >= MOSTLY else EXPLAINED_BY_FEW
    return (trimmed, kept) if clear and _explained(trimmed) >= explains else (whole, everything)


def _explained(response: Response) -> float:
    """The share of the variance of the trials that is predicted for each from all the others."""
    variance = float(np.var(np.linalg.solve(response.inverse, response.weights)))
    return 1.0 - _rms(_missed(response)) ** 2 / variance if variance > 0.0 else 0.0


def _missed(response: Response) -> Array:
    """By how much the score of each trial lies above what all the others predict."""
    return np.asarray(response.weights / np.diag(response.inverse))


def _rms(errors: Array) -> float:
    return float(np.sqrt((errors**2).mean()))


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


def _without_plateau(units: Array, values: Array, discrete: tuple[int, ...], least_noise: float) -> Array:
    """`values` [trials], minimized, with those on a plateau replaced by what is expected there, where it is worse."""
    there = _on_plateau(values)
    if not there.any() or (~there).sum() < max(MINIMUM_OFF, 2 * units.shape[1]):
        return values
    raised, fitted = values.copy(), ~there
    for _ in range(_ROUNDS):
        response = fitted_response(units[fitted], raised[fitted], discrete=discrete, least_noise=least_noise)
        expected = [response.scores.value(score) for score in response.mean(units[there]).tolist()]
        raised[there] = np.maximum(values[there], expected)
        fitted = np.ones(len(values), dtype=bool)
    return raised


def _on_plateau(values: Array) -> NDArray[np.bool_]:
    """Which values lie on a plateau of the worst ones: a third of them or more, at nearly one level."""
    best = float(values.min())
    foot, top = np.quantile(values, [FOOT, TOP])
    if not (top > best and top - foot < FLAT * (top - best)):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(values >= top - FLAT * (top - best))
