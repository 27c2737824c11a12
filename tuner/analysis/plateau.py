"""A plateau of bad values: far from the optimum nothing is learned, and every trial stays at the level of guessing.

Such a trial is at least so bad; a smooth function that has to bend there would know nothing of the place where it
matters. So each gets the value that the trials off the plateau lead to expect there, where that is worse.
"""

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.response import fitted_response
from tuner.analysis.scores import Array

TOP, FOOT = 0.95, 0.70  # [P] quantiles between which the values of a plateau lie
FLAT = 0.1  # [P] of the way from the best value: the plateau is no thicker
MINIMUM_OFF = 10  # [P] trials off the plateau, below which they lead to expect nothing
_ROUNDS = 2


def without_plateau(units: Array, values: Array, discrete: tuple[int, ...], least_noise: float) -> Array:
    """`values` [trials], minimized, with those on a plateau replaced by what is expected there, where it is worse."""
    there = on_plateau(values)
    if not there.any() or (~there).sum() < max(MINIMUM_OFF, 2 * units.shape[1]):
        return values
    raised, fitted = values.copy(), ~there
    for _ in range(_ROUNDS):
        response = fitted_response(units[fitted], raised[fitted], discrete=discrete, least_noise=least_noise)
        expected = [response.scores.value(score) for score in response.mean(units[there]).tolist()]
        raised[there] = np.maximum(values[there], expected)
        fitted = np.ones(len(values), dtype=bool)
    return raised


def on_plateau(values: Array) -> NDArray[np.bool_]:
    """Which values lie on a plateau of the worst ones: a third of them or more, at nearly one level."""
    best = float(values.min())
    foot, top = np.quantile(values, [FOOT, TOP])
    if not (top > best and top - foot < FLAT * (top - best)):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(values >= top - FLAT * (top - best))
