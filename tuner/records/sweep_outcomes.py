"""What a sweep of constant learning rates found: a number of steps with its interval, or why there is none (A18-A26).

Three outcomes of three types, so that nobody mistakes one for another: `Fitted`, `NotFitted` (no number at all,
D8) and `Invalid` (the fastest rate is at a limit of the grid, so a wider grid might be faster, A25, D3).
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Literal

PREDICTION = 0.90  # [P] chance that a fresh seed's steps lie in the interval over seeds

ReasonName = Literal[
    "label_noise_or_capacity", "too_few_steps", "learning_rates", "all_diverged", "never_finite", "not_trained"
]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the training set was not fitted, how likely it is, and what speaks for it."""

    reason: ReasonName
    weight: Literal["likely", "possible"]
    because: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """The fastest rate fits in (low, high] steps.

    seed_low, seed_high: where a fresh seed's steps lie with a chance of PREDICTION, from `seed_steps`, the fits of
    other seeds at the same rate; None where fewer than two seeds fitted. `unfitted_seeds` did not fit in the steps
    they had, which leaves the interval open above: then seed_high is None.
    edge_of_stability: the next higher rate diverged, so the best is bounded by instability (D4).
    """

    learning_rate: float
    low: int
    high: int
    max_steps: int
    edge_of_stability: bool = False
    tied: tuple[float, ...] = ()
    seed_steps: tuple[int, ...] = ()
    unfitted_seeds: int = 0
    seed_low: int | None = None
    seed_high: int | None = None

    @property
    def steps(self) -> int:
        """The estimate: the median over the seeds (they were not selected); without them the fastest trial's.

        A seed that did not fit counts as slower than all that did, and as max_steps at least (in doubt longer, A9).
        """
        slower = (max(self.max_steps, *self.seed_steps, self.high),) * self.unfitted_seeds
        seeds = (*self.seed_steps, *slower)
        return math.ceil(median(seeds)) if seeds else self.high

    @property
    def width(self) -> float:
        """The interval's width as a share of the fastest trial's steps."""
        return (self.high - self.low) / self.high


@dataclass(frozen=True, slots=True)
class NotFitted:
    """No rate fitted the training set within `max_steps`; the reasons, the likeliest first."""

    max_steps: int
    reasons: tuple[Reason, ...]
    best_learning_rate: float | None
    best_value: float | None


@dataclass(frozen=True, slots=True)
class Invalid:
    """The fastest rate stands at an end of the grid: its steps are only an upper bound, and are withheld (D3).

    ambiguous: another rate ties with it inside one evaluation interval, so finer evaluations may decide (D5).
    """

    direction: Literal["lower", "upper"]
    learning_rate: float
    bound: int
    extended_grid: tuple[float, ...]
    ambiguous: bool = False


SweepOutcome = Fitted | NotFitted | Invalid
