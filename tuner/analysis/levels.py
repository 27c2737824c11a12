"""Levels of noisy curves: how much was gained after a step, judged against the noise of one evaluation.

On a plateau a raw best step shows nothing: the best of 50 equally good noisy evaluations lies anywhere (D10, F5). So
levels (running means) are compared instead of single evaluations, in units of the noise of one evaluation, and the gain
that the best of many levels seems to make on pure noise is subtracted.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.noise import MINIMUM_CURVES, NORMAL_MEDIAN, Array, noise_of, shares_of_noise, without_spikes

NARROW = 0.05  # [P] share of the evaluations in a narrow running mean: resolves the first 10 % of a run
MIDDLE = 0.10  # [P] share in a running mean late in the run: does not reach back over much of a descent
WIDE = 0.20  # [P] share of the evaluations in a wide running mean: the level of a plateau
MATERIAL = 0.001  # [P] of the value or of the descent, whichever is less: smaller gains do not count (A4)
LATE = 0.75  # [S] best steps consistently after this fraction: maybe too short (A15)
PARTS = (0.1, 0.3, 0.55, 0.75, 1.0)  # [P] ends of the parts of a run that may be differently noisy, in fractions of it
MINIMUM_COLUMNS = 10  # of a curve: fewer have no means of neighbours to compare
SLOW = 1.3  # [P] times noisier means than independent noise would make: neighbours share noise
SETTLED = 0.4  # [P] fraction of the run after which slow noise is looked for
NULL_CURVES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """The noise of the evaluations of some curves.

    level: of one evaluation of each curve, as its neighbours show it. profile: what it is in each of PARTS, as a
    multiple of that, for all curves. slow: how much noisier the means of neighbouring evaluations are than independent
    noise would make them, at least 1, for all curves.
    """

    level: Array
    profile: tuple[float, ...]
    slow: float

    def late(self) -> Array:
        """Of one evaluation of each curve around LATE, with what neighbours share: the unit of late gains."""
        return self.unit(LATE)

    def unit(self, split: float) -> Array:
        """The same for gains after `split`."""
        return np.asarray(self.level * self.slow * self._judged(split))

    def of(self, row: int) -> "NoiseModel":
        """For one of the curves."""
        return NoiseModel(self.level[row : row + 1], self.profile, self.slow)

    def _judged(self, split: float) -> float:
        """What is judged by an early split is the whole run."""
        return 1.0 if split < 2 * WIDE else math.sqrt((self.profile[-2] ** 2 + self.profile[-1] ** 2) / 2.0)


def noise_model(curves: Array, fractions: Array, noise: Array | None = None) -> NoiseModel:
    """What `curves` (one row a trial, one column an evaluation at a fraction of the run) show of their noise.

    `noise`: of one evaluation of each curve, as `noise_of` has it where it is not given.
    """
    level = noise_of(curves) if noise is None else noise
    calm = without_spikes(curves, level)
    starts = (0.0, *PARTS[:-1])
    parts = [(fractions > start + 1e-9) & (fractions <= end + 1e-9) for start, end in zip(starts, PARTS, strict=True)]
    # Steps of a quarter of an octave, so that the same null distribution serves many studies.
    shares = [2.0 ** (round(4.0 * math.log2(share)) / 4.0) for share in shares_of_noise(calm, parts[1:], level)]
    profile = (shares[0], *shares)  # the first part is descent
    return NoiseModel(level, profile, slow_noise(calm, level * math.sqrt((profile[-2] ** 2 + profile[-1] ** 2) / 2.0)))


@dataclass(frozen=True, slots=True)
class Gains:
    """One number a curve: what the evaluations after a fraction of the run gained over those before it.

    `gain` is in `scale`s (the noise of one evaluation in the judged part, or what is material where that is more),
    without what noise alone would gain; `spread` is the standard deviation that noise gives it. NaN where a curve has
    no evaluations on one side.
    """

    gain: Array
    scale: Array
    spread: Array

    def in_common_units(self) -> "Gains":
        """All in the median scale: of curves whose values are means of different numbers of evaluations."""
        known = self.scale[np.isfinite(self.scale)]
        unit = float(np.median(known)) if len(known) else 0.0
        if unit <= 0.0:
            return self
        factor = self.scale / unit
        return Gains(self.gain * factor, np.full_like(self.scale, unit), self.spread * factor)


def slow_noise(curves: Array, noise: Array | None = None) -> float:
    """How much noisier the means of neighbouring evaluations are than independent noise would make them, at least 1.

    One factor for all curves: neighbouring evaluations of one model share most of their weights. From the bends of
    the means of blocks late in the run; what all curves have in common is their shape and no noise. `noise`: of one
    evaluation of each curve there, as `noise_of` has it where it is not given.
    """
    if len(curves) < MINIMUM_CURVES or curves.shape[1] < MINIMUM_COLUMNS:
        return 1.0
    width = max(1, round(curves.shape[1] * MIDDLE))
    late = curves[:, -width * round((1.0 - SETTLED) / MIDDLE) :]
    blocks = late[:, : late.shape[1] // width * width].reshape(len(curves), -1, width).mean(axis=2)
    noise = noise_of(curves) if noise is None else noise
    scale = np.fmax(noise, material_gain(curves))[:, None]
    known = np.isfinite(blocks).all(axis=1) & (scale[:, 0] > 0)
    if known.sum() < MINIMUM_CURVES:
        return 1.0
    blocks, scale = blocks[known], scale[known] / np.sqrt(width / 6.0)
    near = _apart(np.diff(blocks, n=2, axis=1), scale)
    if near < SLOW or blocks.shape[1] < 5:
        return max(1.0, near)
    # Neighbouring blocks share noise as well then: those that are two apart share less.
    return max(near, _apart(blocks[:, :-4] - 2.0 * blocks[:, 2:-2] + blocks[:, 4:], scale))


def _apart(bends: Array, scale: Array) -> float:
    """The standard deviation of bends over the curves, in scales, around what all curves have in common."""
    apart = np.abs(bends - np.median(bends, axis=0)) / scale * np.sqrt(len(bends) / (len(bends) - 1.0))
    return float(np.median(apart)) / NORMAL_MEDIAN


def running_mean(curves: Array, share: float) -> Array:
    """Centered means over about `share` of the evaluations, fewer towards both ends; NaN is passed over."""
    width = max(1, round(curves.shape[1] * share))
    known = np.isfinite(curves)
    around = ((0, 0), ((width - 1) // 2, width // 2))
    values, counts = np.pad(np.where(known, curves, 0.0), around), np.pad(known.astype(np.int64), around)
    # Each position is summed separately: a difference of cumulative sums would lose small values after a huge one.
    total, count = np.zeros_like(curves), np.zeros(curves.shape, dtype=np.int64)
    for shift in range(width):
        total += values[:, shift : shift + curves.shape[1]]
        count += counts[:, shift : shift + curves.shape[1]]
    return np.asarray(np.divide(total, count, out=np.full(curves.shape, np.nan), where=count > 0))


def gains_after(curves: Array, fractions: Array, split: float, noise: NoiseModel | None = None) -> Gains:
    """Gains after the fraction `split`; `curves` are minimized, one row a trial, one column an evaluation.

    `noise`: as `noise_model` has it where it is not given. A late part is judged by the noise it has: where noise grows
    over the run, the best of many late levels lies lower by chance alone.
    """
    model = noise_model(curves, fractions) if noise is None else noise
    curves = without_spikes(curves, model.level)
    unit = model.unit(split)
    scale = np.maximum(unit, material_gain(curves))
    mean, spread = _null(tuple(fractions.tolist()), split, model.profile)
    gain = _raw_gain(curves, fractions, split) - model.slow * mean * model.level
    judged = np.divide(model.slow * model.level, unit, out=np.ones_like(unit), where=unit > 0)
    # A perfectly constant, noiseless curve has scale 0 and gained nothing.
    return Gains(np.divide(gain, scale, out=np.zeros_like(gain), where=scale > 0), scale, spread * judged)


def material_gain(curves: Array) -> Array:
    """The smallest gain that counts, for each curve: relative to its best value or its descent."""
    best = _least(curves)
    descent = curves[:, 0] - best
    sizes = np.fmin(np.where(best != 0.0, np.abs(best), np.inf), np.where(descent > 0, descent, np.inf))
    return np.asarray(MATERIAL * np.where(np.isfinite(sizes), sizes, 0.0))


def earliest_within_noise(curves: Array, noise: Array | None = None) -> NDArray[np.intp]:
    """Per curve the first evaluation whose narrow mean is within noise of the best level, never after the argmin.

    `noise`: of one evaluation of each curve, with what neighbours share; as `noise_of` has it where it is not given.
    """
    noise = noise_of(curves) if noise is None else noise
    calm = without_spikes(curves, noise)
    narrow = running_mean(calm, NARROW)
    width = max(1, round(curves.shape[1] * NARROW))
    level = _least(running_mean(calm, WIDE))
    tolerance = np.maximum(2.0 * noise / np.sqrt(width), material_gain(curves))
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


@lru_cache(maxsize=256)
def _null(fractions: tuple[float, ...], split: float, profile: tuple[float, ...]) -> tuple[float, float]:
    """Mean and standard deviation of the raw gain of noise around a level reached a little before `split`.

    The noise is `profile` in PARTS. Around a level reached earlier the best of more running means is lower, and the
    gain seems less than it is: that errs towards nothing gained.
    """
    curves = np.random.default_rng(0).standard_normal((NULL_CURVES, len(fractions)))
    positions = np.asarray(fractions)
    curves *= np.asarray(profile)[np.minimum(np.searchsorted(PARTS, positions - 1e-9), len(PARTS) - 1)]
    curves[:, positions <= max(0.5 * split, split - WIDE)] += 1e6
    gain = _raw_gain(curves, positions, split)
    return float(gain.mean()), float(gain.std())
