"""Levels of noisy curves: how much was gained after a step, judged against the noise of one evaluation.

A raw best step is worthless on a plateau: of 50 equally good noisy evaluations the best lies anywhere (D10, F5).
So levels (running means) are compared instead of single evaluations, in units of the noise of one evaluation,
and what the best of many levels would seem to gain on pure noise is subtracted.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NARROW = 0.05  # [P] share of the evaluations in a narrow running mean: resolves the first 10 % of a run
MIDDLE = 0.10  # [P] share in a running mean late in the run: does not reach back over much of a descent
WIDE = 0.20  # [P] share of the evaluations in a wide running mean: the level of a plateau
MATERIAL = 0.001  # [P] of the value or of the descent, whichever is less: smaller gains do not count (A4)
SETTLED = 0.4  # [P] fraction of the run after which slow noise is looked for
NORMAL_MEDIAN = 0.6745  # of the size of a standard normal number
MINIMUM_CURVES = 3  # fewer curves have no shape in common
NULL_CURVES = 2000


@dataclass(frozen=True, slots=True)
class Gains:
    """One number a curve: what the evaluations after a fraction of the run gained over those before it.

    `gain` is in `scale`s (the noise of one evaluation, or what is material where that is more), without what
    noise alone would gain; `spread` is the standard deviation that noise gives it. NaN where a curve has no
    evaluations on one side.
    """

    gain: Array
    scale: Array
    spread: float


def noise_of(curves: Array) -> Array:
    """The standard deviation of one evaluation of each curve (rows), free of trends: from second differences.

    NaN where no three evaluations in a row are there.
    """
    bends = np.diff(curves[:, curves.shape[1] // 10 :], n=2, axis=1) ** 2
    known = np.isfinite(bends)
    count = known.sum(axis=1)
    total = np.where(known, bends, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(np.divide(total, 6.0 * count, out=np.full(len(curves), np.nan), where=count > 0)))


def slow_noise(curves: Array) -> float:
    """How much noisier the means of neighbouring evaluations are than independent noise would make them, at least 1.

    One factor for all curves: neighbouring evaluations of one model share most of their weights. From the bends of
    the means of blocks late in the run; what all curves have in common is their shape and no noise.
    """
    width = max(1, round(curves.shape[1] * MIDDLE))
    late = curves[:, -width * round((1.0 - SETTLED) / MIDDLE) :]
    blocks = late[:, : late.shape[1] // width * width].reshape(len(curves), -1, width).mean(axis=2)
    bends = np.diff(blocks, n=2, axis=1) * np.sqrt(width / 6.0)
    scale = np.fmax(noise_of(curves), material_gain(curves))[:, None]
    ratios = np.divide(bends, scale, out=np.full(bends.shape, np.nan), where=scale > 0)
    ratios = ratios[np.isfinite(ratios).all(axis=1)]
    if len(ratios) < MINIMUM_CURVES:
        return 1.0
    apart = np.abs(ratios - np.median(ratios, axis=0)) * np.sqrt(len(ratios) / (len(ratios) - 1.0))
    return max(1.0, float(np.median(apart)) / NORMAL_MEDIAN)


def running_mean(curves: Array, share: float) -> Array:
    """Centered means over about `share` of the evaluations, fewer towards both ends; NaN is passed over."""
    width = max(1, round(curves.shape[1] * share))
    known = np.isfinite(curves)
    around = ((0, 0), ((width - 1) // 2, width // 2))
    values, counts = np.pad(np.where(known, curves, 0.0), around), np.pad(known.astype(np.int64), around)
    # Summed anew for each position: a difference of cumulative sums would lose small values after a huge one.
    total, count = np.zeros_like(curves), np.zeros(curves.shape, dtype=np.int64)
    for shift in range(width):
        total += values[:, shift : shift + curves.shape[1]]
        count += counts[:, shift : shift + curves.shape[1]]
    return np.asarray(np.divide(total, count, out=np.full(curves.shape, np.nan), where=count > 0))


def gains_after(curves: Array, fractions: Array, split: float) -> Gains:
    """Gains after the fraction `split`; `curves` are minimized, one row a trial, one column an evaluation."""
    noise = noise_of(curves)
    scale = np.maximum(noise, material_gain(curves))
    mean, spread = _null(tuple(fractions.tolist()), split)
    slow = slow_noise(curves)
    gain = _raw_gain(curves, fractions, split) - slow * mean * noise
    # A perfectly constant, noiseless curve has scale 0 and gained nothing.
    return Gains(np.divide(gain, scale, out=np.zeros_like(gain), where=scale > 0), scale, slow * spread)


def material_gain(curves: Array) -> Array:
    """The smallest gain worth the name, for each curve: relative to its best value or its descent."""
    best = _least(curves)
    descent = curves[:, 0] - best
    return np.asarray(MATERIAL * np.fmin(np.abs(best), np.where(descent > 0, descent, np.inf)))


def earliest_within_noise(curves: Array) -> NDArray[np.intp]:
    """Per curve the first evaluation whose narrow mean is within noise of the best level, never after the argmin."""
    narrow = running_mean(curves, NARROW)
    width = max(1, round(curves.shape[1] * NARROW))
    level = _least(running_mean(curves, WIDE))
    tolerance = np.maximum(2.0 * noise_of(curves) / np.sqrt(width), material_gain(curves))
    reached = narrow <= (level + tolerance)[:, None]
    argmin = np.nanargmin(curves, axis=1)
    return np.asarray(np.where(reached.any(axis=1), np.minimum(reached.argmax(axis=1), argmin), argmin))


def _least(curves: Array) -> Array:
    """Row by row, NaN passed over; NaN where there is nothing."""
    return np.asarray(np.fmin.reduce(curves, axis=1, initial=np.nan))


def _raw_gain(curves: Array, fractions: Array, split: float) -> Array:
    before = fractions <= split + 1e-9
    middle = running_mean(curves, MIDDLE)
    early = middle if split >= 2 * WIDE else running_mean(curves, NARROW)
    late = middle if split >= 2 * WIDE else running_mean(curves, WIDE)
    return _least(early[:, before]) - _least(late[:, ~before])


@cache
def _null(fractions: tuple[float, ...], split: float) -> tuple[float, float]:
    """Mean and standard deviation of the raw gain of noise 1 around a level reached a little before `split`.

    Around a level reached earlier the best of more running means is lower, and the gain seems less than it is:
    that errs towards nothing gained.
    """
    curves = np.random.default_rng(0).standard_normal((NULL_CURVES, len(fractions)))
    positions = np.asarray(fractions)
    curves[:, positions <= max(0.5 * split, split - WIDE)] += 1e6
    gain = _raw_gain(curves, positions, split)
    return float(gain.mean()), float(gain.std())
