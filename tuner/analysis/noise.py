"""The evaluation noise: the standard deviation of one evaluation around the trend of its curve.

Every sentence about noise rests on `noise_of`. A single spike is left out, and where the noise grows or fades over the
run, the part that is judged has its own noise.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MINIMUM_CURVES = 3  # fewer curves have no shape in common
NORMAL_MEDIAN = 0.6745  # of the size of a standard normal number
NORMAL_QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
OUTLIER = 5.0  # [P] robust deviations: a larger bend belongs to a spike and does not count as noise
SPIKE = 6.0  # [P] times the noise away from the median of five neighbours: a spike, which is left out of levels
OF_NEIGHBOURS = 4.5  # [P] and as many median distances of those five: a steep descent has no spikes
BENT = 3.5  # [P] times the noise: a curve whose largest bend is smaller has no spike
SHARED = 0.3  # [P] of the bends of curves without what they have in common: with less left that was noise
MOST_CURVES = 300  # [P] that show how noise changes over the run
MINIMUM_BENDS = 12  # [P] of a curve: fewer do not tell a spike from noise
BEGINNING = 10  # the first tenth of the evaluations is descent and takes no part
CALM = 0.75  # [P] of the bends show how noise changes over the run
SHARE_ERROR = 0.95  # of the logarithm of a factor of noise times the root of the number of bends
MOST_SHARE = 5.0  # [P] times as noisy as the whole run: more is something else than noise


def noise_of(curves: Array, steps: Array | None = None) -> Array:
    """The evaluation noise of each curve (rows), free of trends and of single spikes.

    From the distance of each evaluation to the line through its neighbours. `steps`: where the evaluations lie, if not
    at equal distances. NaN where no three evaluations in a row are there.
    """
    bends = _bends(curves, steps)[:, curves.shape[1] // BEGINNING :]
    known = np.isfinite(bends)
    return _rms(bends, known & ~_of_spikes(bends, known))


def shares_of_noise(curves: Array, parts: Sequence[NDArray[np.bool_]], noise: Array) -> list[float]:
    """How much noisier the evaluations of parts of the run are than the whole run: a factor each, for all curves.

    1 where the bends do not show that it differs: a factor is drawn towards 1 by its own error. The largest quarter of
    the bends takes no part: kinks of the curves, and spikes.
    """
    every = max(1, len(curves) // MOST_CURVES)  # of many curves some show it as well
    curves, noise = curves[::every], noise[::every]
    bends = _bends(curves, None)
    if (
        len(bends) >= MINIMUM_CURVES and np.isfinite(bends).any()
    ):  # what all curves have in common is their shape and no noise
        apart = np.sqrt(len(bends) / (len(bends) - 1.0))
        own = (bends - np.where(np.isfinite(bends).all(axis=0), np.median(bends, axis=0), 0.0)) * apart
        # Where little else is left, they share their noise.
        bends = own if np.nanmedian(np.abs(own)) > SHARED * np.nanmedian(np.abs(bends)) else bends
    scaled = np.divide(bends, noise[:, None], out=np.full(bends.shape, np.nan), where=noise[:, None] > 0)
    whole = _calm(scaled[:, scaled.shape[1] // BEGINNING :])
    return [_share(_calm(scaled[:, part[1:-1]]), whole) for part in parts]


def _share(small: Array, whole: Array) -> float:
    if len(small) < MINIMUM_BENDS or not (small > 0).any() or not (whole > 0).any():
        return 1.0
    factor = 0.5 * float(np.log((small**2).mean() / (whole**2).mean()))
    error = SHARE_ERROR / np.sqrt(len(small))
    shrunk = factor * max(0.0, 1.0 - (2.0 * error / factor) ** 2) if factor else 0.0
    return float(np.clip(np.exp(shrunk), 1.0 / MOST_SHARE, MOST_SHARE))


def _calm(bends: Array) -> Array:
    """The sizes of the smallest three quarters of some bends."""
    sizes = np.sort(np.abs(bends[np.isfinite(bends)]))
    return sizes[: math.ceil(CALM * len(sizes))]


def without_spikes(curves: Array, noise: Array) -> Array:
    """The curves with every spike replaced by the median of its neighbours; all else as it was.

    A spike lies at most two evaluations long, far outside what noise and the slope around it explain.
    """
    if curves.shape[1] < 2 * BEGINNING:
        return curves
    bends = np.abs(_bends(curves, None))
    bent = np.fmax.reduce(bends, axis=1, initial=0.0) > BENT * noise  # few curves, and the others have no spike
    if not bent.any():
        return curves
    calm = curves.copy()
    calm[bent] = _without_spikes(curves[bent], noise[bent])
    return calm


def _without_spikes(curves: Array, noise: Array) -> Array:
    padded = np.pad(curves, ((0, 0), (2, 2)), constant_values=np.nan)
    padded[:, :2], padded[:, -2:] = curves[:, 3:5], curves[:, -5:-3]  # at the ends the five that are nearest
    around = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=1)
    median = np.median(around, axis=2)
    distance = np.median(np.abs(around - median[:, :, None]), axis=2)
    away = np.abs(curves - median)
    spikes = away > np.maximum(SPIKE * noise[:, None], OF_NEIGHBOURS * distance)  # NaN is none
    spikes[:, : max(3, curves.shape[1] // BEGINNING)] = False
    return np.asarray(np.where(spikes & (noise > 0)[:, None], median, curves))


def _bends(curves: Array, steps: Array | None) -> Array:
    """The distance of each evaluation to the line through its neighbours, as a multiple of the noise."""
    if steps is None:
        return np.asarray(np.diff(curves, n=2, axis=1) / np.sqrt(6.0))
    right = (steps[1:-1] - steps[:-2]) / (steps[2:] - steps[:-2])
    away = curves[:, 1:-1] - (1.0 - right) * curves[:, :-2] - right * curves[:, 2:]
    return np.asarray(away / np.sqrt(1.0 + right**2 + (1.0 - right) ** 2))


def _of_spikes(bends: Array, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which bends are too large to be noise, by the median of their row."""
    sizes = np.where(known, np.abs(bends), np.inf)
    count = known.sum(axis=1)
    middle = np.zeros(len(bends))
    if bends.shape[1]:
        ordered = np.sort(sizes, axis=1)
        middle = ordered[np.arange(len(bends)), np.maximum(count - 1, 0) // 2]
    robust = np.where((count >= MINIMUM_BENDS) & (middle > 0), middle / NORMAL_MEDIAN, np.inf)
    return np.asarray(sizes > OUTLIER * robust[:, None])


def _rms(bends: Array, kept: NDArray[np.bool_]) -> Array:
    count = kept.sum(axis=1)
    total = np.where(kept, bends**2, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(np.divide(total, count, out=np.full(len(bends), np.nan), where=count > 0)))


# [P] of a validation set, for which the levels of a metric count as shares of its examples, or of its pairs (AUC).
EXAMPLES = (20, 100_000)

_OF_A_STEP = 1.0 / math.sqrt(12.0)  # the standard deviation of what is rounded to a step of 1


def granularity(values: Array) -> float:
    """The step of a metric that is a share of a number of examples, or a percentage; 0 for other metrics.

    An accuracy on 200 examples has the step 0.005: its values are multiples of it, and many trials share one. So has an
    AUC of 10 positive and 20 negative examples; F1, R2 and perplexity have no such step.
    """
    shares = np.abs(values)
    shares = shares if shares.max() <= 1.0 else shares / 100.0
    levels = np.unique(np.round(shares, 9))
    if len(levels) < 3 or len(levels) == len(values) or levels[-1] > 1.0:
        return 0.0
    gap = float(np.diff(levels).min())
    examples = round(1.0 / gap)
    if (
        not EXAMPLES[0] <= examples <= EXAMPLES[1]
        or np.abs(levels * examples - np.round(levels * examples)).max() > 0.01
    ):
        return 0.0
    return gap * float(np.abs(values).max() / shares.max())


def rounding_noise(values: Array) -> float:
    """The standard deviation that the granularity of a metric hides; values that are not finite are left out."""
    known = values[np.isfinite(values)]
    return _OF_A_STEP * granularity(known) if len(known) else 0.0
