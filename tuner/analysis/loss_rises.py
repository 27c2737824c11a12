"""Does a training loss show instability: a rise, divergence, or no progress (B36, D45)?

Losses of single batches are noisy, so their means over short blocks are compared. All is measured against trials at a
rate that is known to train, the best one: a rise counts in shares of what these gain in the same study, so that neither
the unit of the loss nor its level matters, and their noise is the noise of everything. A few batches may be much harder
than others, or come when the data become harder: what the trial with the same seeds, which sees the same batches, goes
up by at the best rate is no matter of the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.noise import Array

RISE = 0.25  # [P] of the gain at the best rate: a loss that is so far above its lowest went up
SURE = 4.0  # [P] standard deviations of the noise that a rise exceeds
BLOCKS = 50  # [P] parts of a curve, whose means are compared
SPAN = 5  # [P] blocks in which it has to go up so far: what a too large weight decay undoes takes longer
STRETCH = 2  # [P] blocks in a row that are up: one alone counts where it is up by more than the whole gain
ALONE = 2.0  # [P] times that limit, where no trial beside it shows whether its batches were hard ones
THRESHOLDS = {"rise": RISE, "sure": SURE, "blocks": float(BLOCKS), "span": float(SPAN), "stretch": float(STRETCH)}
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

    gain: by how much their loss fell. noise: the standard deviation of one loss around its trend, without its tails.
    fallen: [points] the mean of how far it had fallen at each of `steps`. losses: [points] of each trial.
    """

    gain: float
    noise: float
    steps: tuple[float, ...]
    fallen: tuple[float, ...]
    losses: tuple[Array, ...] = ()

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

    def limit(self, width: int) -> float:
        """The height, in gains, that the noise of means over so many losses does not reach."""
        single = self.noise * np.sqrt(1.0 + 1.0 / width)
        return float(max(RISE, SURE * max(single, np.sqrt(2.0) * self._ups(width)) / self.unit))

    def _ups(self, width: int) -> float:
        """The standard deviation of means over so many losses, tails and all, by how far each is above the last one.

        Differences upwards alone: the loss falls on its way. Half of the differences of numbers without a trend go
        upwards, and a difference has twice the variance of a number.
        """
        ups = [np.maximum(np.diff(_means(one, width)), 0.0) for one in self.losses]
        squares = np.concatenate([np.zeros(1), *ups]) ** 2
        return float(np.sqrt(squares.sum() / max(1, len(squares) - 1)))


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
    losses = tuple(curve.losses for curve in whole)
    return Yardstick(float(fallen[-1]), float(np.median(spread)), tuple(steps), tuple(fallen), losses)


def signs_of(curve: LossCurve, against: Yardstick, beside: LossCurve | None = None) -> Signs:
    """The first sign of instability in a curve; none where it falls about as it should.

    beside: the trial at the best rate that has the same seeds, and so the same batches; None for this trial itself.
    """
    ends, means = block_means(curve)
    if not len(means):
        return Signs("diverged", curve.diverged_at, np.inf) if curve.diverged_at is not None else Signs()
    first = curve.losses[0]
    lowest, heights, jumps = _heights(curve, against)
    own = SURE * _noise(curve.losses) * np.sqrt(2.0 / _width(curve)) / against.unit  # a higher rate makes it noisier
    limit = max(against.limit(_width(curve)), min(1.0, own))
    by_itself = _rises_beside(curve, beside, against)
    far = ~(heights - by_itself <= max(1.0, limit * (ALONE if beside is None else 1.0)))  # NaN is up
    up = _first_stretch(~(jumps - by_itself <= limit), far)
    if up is not None:
        before = 0.0 if up == 0 else float(ends[up - 1])
        falls = first - lowest[up] > RISE * against.unit
        # What ends as NaN has gone up before, and the finite part shows from where on.
        sign: Sign = "diverged" if curve.diverged_at is not None else "sudden" if falls else "early"
        return Signs(sign, int(before) + 1, float(np.nanmax(heights[up:])) if sign != "diverged" else np.inf)
    if curve.diverged_at is not None:
        return Signs("diverged", curve.diverged_at, np.inf)
    due = _due(float(ends[-1]), beside, against)
    if due > SURE * against.noise and first - means.min() < RISE * due:
        return Signs("stuck", 1, float(heights[-1]))
    return Signs()


def _heights(curve: LossCurve, against: Yardstick) -> tuple[Array, Array, Array]:
    """The lowest mean before each block, and how far its mean is above that and above the lowest of the last ones.

    [blocks] each; the last two in gains.
    """
    _, means = block_means(curve)
    before = np.concatenate([curve.losses[:1], means])
    lowest = np.minimum.accumulate(before)[:-1]
    recent = np.array([before[max(0, end - SPAN) : end].min() for end in range(1, len(before))])
    return lowest, (means - lowest) / against.unit, (means - recent) / against.unit


def _rises_beside(curve: LossCurve, beside: LossCurve | None, against: Yardstick) -> Array:
    """How far the trial beside a curve goes up in each of its blocks, in gains; 0 where it does not, or has ended."""
    if beside is None or not len(beside.losses):
        return np.zeros(1)
    same = np.interp(curve.steps, beside.steps, beside.losses)
    _, heights, _ = _heights(LossCurve(curve.steps, same), against)
    return np.where(np.isfinite(heights), heights, 0.0)


def _due(step: float, beside: LossCurve | None, against: Yardstick) -> float:
    """How far a loss should have fallen at a step: as far as that of the trial beside it, which began with the same."""
    if beside is None or beside.diverged_at is not None or not len(beside.losses):
        return against.fallen_until(step)
    return float(beside.losses[0] - np.interp(step, *block_means(beside)))


def _first_stretch(up: NDArray[np.bool_], far: NDArray[np.bool_]) -> int | None:
    """The first block of a stretch that is up, or that is far up by itself."""
    for place in np.flatnonzero(up | far):
        if far[place] or (place + STRETCH <= len(up) and up[place : place + STRETCH].all()):
            return int(place)
    return None


def _width(curve: LossCurve) -> int:
    return max(1, len(curve.losses) // BLOCKS)


def block_means(curve: LossCurve) -> tuple[Array, Array]:
    """The last step and the mean of each of about BLOCKS parts, [blocks] each; what is left over is of the last one."""
    width = _width(curve)
    ends = np.array([curve.steps[end - 1] for _, end in _parts(len(curve.losses), width)], dtype=np.float64)
    return ends, _means(curve.losses, width)


def _means(losses: Array, width: int) -> Array:
    parts = _parts(len(losses), width)
    return np.array([losses[start:end].mean() for start, end in parts], dtype=np.float64)


def _parts(count: int, width: int) -> list[tuple[int, int]]:
    """The bounds of parts of so many points, at least; what is left over is of the last one."""
    bounds = [*range(0, max(1, count - width + 1), width), count]
    parts = [(start, end) for start, end in pairwise(bounds) if end > start]
    if len(parts) > 1 and parts[-1][1] - parts[-1][0] < width:
        parts[-2:] = [(parts[-2][0], parts[-1][1])]
    return parts


def _noise(losses: Array) -> float:
    """The standard deviation of one loss around its trend, by the median of differences: a few jumps do not count."""
    if len(losses) < 3:
        return 0.0
    differences = np.diff(losses)
    return float(_NORMAL * np.median(np.abs(differences - np.median(differences))) / np.sqrt(2.0))
