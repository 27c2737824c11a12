"""What a gain has to be to be worth anything, in the unit of the metric, and what the steps of a metric hide."""

import math
from dataclasses import dataclass

import numpy as np

from tuner.analysis.scores import Array
from tuner.analysis.study_frames import StudyFrames

RELATIVE = 0.001  # [P] of the best value: no smaller gain is worth a wider range, unless `worth` is declared
EXAMPLES = (20, 100_000)  # [P] of a validation set whose shares are told from a metric that happens to have levels

_OF_A_STEP = 1.0 / math.sqrt(12.0)  # the standard deviation of what is rounded to a step of 1


@dataclass(frozen=True, slots=True)
class Worth:
    """The smallest gain that counts; `because` says where it comes from."""

    least: float
    because: str


def worth_of(frames: StudyFrames, values: Array) -> Worth:
    """From the declaration, else from the best value and the granularity of the metric.

    `values`: of the judged trials, minimized.
    """
    declared = frames.study.objective.worth
    if declared is not None:
        return Worth(declared, f"{declared:g}, which is declared as worth anything")
    least = RELATIVE * abs(float(values.min()))
    step = granularity(values)
    if step > least:
        return Worth(step, f"{step:.3g}, the smallest difference of two values of this metric")
    return Worth(least, f"{least:.3g}, {RELATIVE:.1%} of the best value")


def granularity(values: Array) -> float:
    """The step of a metric that is a share of so many examples, or a percentage; 0 where it is none.

    An accuracy on 200 examples has the step 0.005: its values are multiples of it, and many trials share one.
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
    """The standard deviation that the granularity of a metric hides; values that are not finite take no part."""
    known = values[np.isfinite(values)]
    return _OF_A_STEP * granularity(known) if len(known) else 0.0
