"""Does a training loss show instability: a rise, divergence, or no progress (B36, D45)?

Losses of single batches are noisy, so their means over short blocks are compared. All is measured against trials at a
rate that is known to train, the best one: a rise counts in shares of what these gain in the same study, so that neither
the unit of the loss nor its level matters, and their noise is the noise of everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from tuner.analysis.noise import Array

RISE = 0.25  # [P] of the gain at the best rate: a loss that is so far above its lowest went up
SURE = 4.0  # [P] standard deviations of the noise that a rise exceeds
BLOCKS = 50  # [P] parts of a curve, whose means are compared
STRETCH = 2  # [P] blocks in a row that are up: one alone counts where it is up by more than the whole gain
THRESHOLDS = {"rise": RISE, "sure": SURE, "blocks": float(BLOCKS), "stretch": float(STRETCH)}
_NORMAL = 1.4826  # the median absolute deviation of normal numbers times this is their standard deviation

# diverged: not finite. sudden: it went up after it had fallen. early: it went up before that. stuck: it did not fall.
Sign = Literal["", "diverged", "sudden", "early", "stuck"]


@dataclass(frozen=True, slots=True, eq=False)
class LossCurve:
    """The training loss of one trial: [points] ascending steps, and the loss at each; NaN where it is not finite.

    diverged_at: the step at which the trial ended because something was not finite; None where it did not.
    """

    steps: Array
    losses: Array
    diverged_at: int | None = None


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What losses are measured against: trials at the best rate.

    gain: by how much their loss fell. noise: the standard deviation of one loss around its trend. fallen: [points] the
    mean of how far it had fallen at each of `steps`.
    """

    gain: float
    noise: float
    steps: tuple[float, ...]
    fallen: tuple[float, ...]

    @property
    def falls(self) -> bool:
        """Whether the loss falls by more than its noise; where it does not, nothing can be measured with it."""
        return self.gain > SURE * self.noise and self.gain > 0.0

    @property
    def unit(self) -> float:
        """The gain; where the loss does not fall, what its noise hides."""
        return max(self.gain, SURE * self.noise, float(np.finfo(np.float32).tiny))

    def fallen_until(self, step: float) -> float:
        """How far the loss had fallen at a step; at the last one, for later steps."""
        return float(np.interp(step, self.steps, self.fallen))


@dataclass(frozen=True, slots=True)
class Signs:
    """What a curve shows. onset: the step from which on it goes up; None without a sign.

    height: how far it went up above its lowest value before, in gains of the best rate; infinite where it diverged.
    """

    sign: Sign = ""
    onset: int | None = None
    height: float = 0.0


def yardstick(curves: Sequence[LossCurve]) -> Yardstick:
    """Made of the trials at the best rate, one for each seed. Raises ValueError without a finite loss."""
    whole = [curve for curve in curves if np.isfinite(curve.losses).all() and len(curve.losses)]
    if not whole:
        raise ValueError("no trial at the best learning rate has finite losses")
    steps = whole[0].steps
    fallen = np.mean([curve.losses[0] - np.interp(steps, *block_means(curve)) for curve in whole], axis=0)
    spread = [_noise(curve.losses) for curve in whole]
    return Yardstick(float(fallen[-1]), float(np.median(spread)), tuple(steps), tuple(fallen))


def signs_of(curve: LossCurve, against: Yardstick) -> Signs:
    """The first sign of instability in a curve; none where it falls about as it should."""
    ends, means = block_means(curve)
    if not len(means):
        return Signs("diverged", curve.diverged_at, np.inf) if curve.diverged_at is not None else Signs()
    first = curve.losses[0]
    lowest = np.minimum.accumulate(np.concatenate([[first], means]))[:-1]
    heights = (means - lowest) / against.unit
    limit = max(RISE, SURE * against.noise * np.sqrt(1.0 + 1.0 / _width(curve)) / against.unit)
    up = _stretches(heights, limit)
    if up is not None:
        before = 0.0 if up == 0 else float(ends[up - 1])
        falls = first - lowest[up] > RISE * against.unit
        # What ends as NaN has gone up before, and the finite part shows from where on.
        sign: Sign = "diverged" if curve.diverged_at is not None else "sudden" if falls else "early"
        return Signs(sign, int(before) + 1, float(np.nanmax(heights[up:])) if sign != "diverged" else np.inf)
    if curve.diverged_at is not None:
        return Signs("diverged", curve.diverged_at, np.inf)
    due = against.fallen_until(float(ends[-1]))
    if due > SURE * against.noise and first - means[-1] < RISE * due:
        return Signs("stuck", 1, float(heights[-1]))
    return Signs()


def _stretches(heights: Array, limit: float) -> int | None:
    """The first block of a stretch that is up."""
    up = ~(heights <= limit)  # NaN is up
    far = ~(heights <= max(1.0, limit))
    for place in np.flatnonzero(up):
        if far[place] or (place + STRETCH <= len(up) and up[place : place + STRETCH].all()):
            return int(place)
    return None


def _width(curve: LossCurve) -> int:
    return max(1, len(curve.losses) // BLOCKS)


def block_means(curve: LossCurve) -> tuple[Array, Array]:
    """The last step and the mean of each of about BLOCKS parts, [blocks] each; what is left over is of the last one."""
    width = _width(curve)
    bounds = [*range(0, max(1, len(curve.losses) - width + 1), width), len(curve.losses)]
    parts = [(start, end) for start, end in pairwise(bounds) if end > start]
    if len(parts) > 1 and parts[-1][1] - parts[-1][0] < width:
        parts[-2:] = [(parts[-2][0], parts[-1][1])]
    ends = np.array([curve.steps[end - 1] for _, end in parts], dtype=np.float64)
    return ends, np.array([curve.losses[start:end].mean() for start, end in parts], dtype=np.float64)


def _noise(losses: Array) -> float:
    """The standard deviation of one loss around its trend, by the median of differences: a few jumps do not count."""
    if len(losses) < 3:
        return 0.0
    differences = np.diff(losses)
    return float(_NORMAL * np.median(np.abs(differences - np.median(differences))) / np.sqrt(2.0))
