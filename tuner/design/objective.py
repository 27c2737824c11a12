"""What a trial is judged by: a metric and an explicit direction (D28), and when the training set counts as fitted."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from tuner.errors import DeclarationError

Direction = Literal["minimize", "maximize"]
# For messages, behind "fitted_when = ": error rate 0 means nothing for a regression, and cannot be reached with noise.
HOW_TO_DECLARE_A_FIT = (
    'at_most("training/error_rate", 0.0) for a classifier whose labels are clean, or for a regression a training error '
    'that is worth reaching, like at_most("training/mse", 0.1)'
)


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured, and on which split; stored and shown as the text "split/name", like "validation/loss".

    `split` is "" for what others logged under a plain name ("epoch").
    """

    split: str
    name: str

    def __str__(self) -> str:
        return f"{self.split}/{self.name}" if self.split else self.name

    def on(self, split: str) -> "Metric":
        """The same metric on another split."""
        return Metric(split, self.name)


@lru_cache(maxsize=1024)
def metric_from(text: str) -> Metric:
    """The metric that a stored text names: the one place that takes "split/name" apart."""
    split, slash, name = text.partition("/")
    return Metric(split, name) if slash else Metric("", text)


# Of the batches that a trial is trained on; no split is evaluated for them.
BATCH_LOSS: Final = Metric("batch", "loss")  # mean over the updates since the last evaluation
GRADIENT_NORM: Final = Metric("batch", "gradient_norm")  # L2 norm of the last gradient, before clipping (B38, D48)
# Of every update since the last evaluation, where the point has a clip_norm: without one the norm of each gradient
# would cost some percent of a small step. Where they are missing beside the norm of the gradient of such a trial, an
# older version made these updates or a part of them, and measured after clipping.
LARGEST_GRADIENT_NORM: Final = Metric("batch", "largest_gradient_norm")  # before clipping
SKIPPED_UPDATES: Final = Metric("batch", "skipped_updates")  # in fp16, since the last evaluation
CLIPPED_SHARE: Final = Metric("batch", "clipped_share")  # of the updates, those whose gradient was above clip_norm
# Of single updates, in studies that are traced (`Study.traced_every`): at the step which the update makes.
STEP_LOSS: Final = Metric("batch", "step_loss")  # before the update
STEP_NORM: Final = Metric("batch", "step_gradient_norm")  # L2, before clipping


@dataclass(frozen=True, slots=True)
class Objective:
    """One metric, named "split/metric", and whether less or more of it is better.

    worth: the smallest change of the metric that is worth anything, in the metric's unit; None where it is unknown.
    """

    metric: str
    direction: Direction
    worth: float | None = None

    def __post_init__(self) -> None:
        worth = self.worth
        if worth is not None and (
            isinstance(worth, bool) or not isinstance(worth, int | float) or not (math.isfinite(worth) and worth > 0.0)
        ):
            raise DeclarationError(
                f"worth is the smallest change of {self.metric} that is worth anything, a number above 0, got "
                f"{worth!r}; leave it out where nothing is known"
            )
        if self.direction not in ("minimize", "maximize"):
            raise DeclarationError(f"direction must be 'minimize' or 'maximize', got {self.direction!r}")
        if self.measured.split not in ("training", "validation") or not self.measured.name:
            meant = "" if "/" in self.metric or not self.metric else f"; did you mean {f'validation/{self.metric}'!r}?"
            raise DeclarationError(
                f"an objective names a split and a metric, like 'validation/error_rate', got {self.metric!r}; "
                f"the test split never selects anything (D31){meant}"
            )

    @property
    def measured(self) -> Metric:
        """The metric, with its split as a field."""
        return metric_from(self.metric)

    @property
    def sign(self) -> float:
        """1.0 where less is better and -1.0 where more is: times this, the best value is the least."""
        return 1.0 if self.direction == "minimize" else -1.0

    def better(self, one: float, other: float) -> bool:
        """Whether `one` beats `other`; what is not finite never wins, and equal is not better (D27, D29)."""
        if not math.isfinite(one):
            return False
        if not math.isfinite(other):
            return True
        return one < other if self.direction == "minimize" else one > other

    def best(self, measured: Iterable[tuple[int, float]]) -> tuple[int, float] | None:
        """The (step, value) that wins; ties go to the earlier step; None when no value is finite (A10, A12)."""
        winner: tuple[int, float] | None = None
        for step, value in sorted(measured, key=lambda pair: pair[0]):
            if self.better(value, winner[1] if winner else math.nan):
                winner = (step, value)
        return winner


def minimize(metric: str, *, worth: float | None = None) -> Objective:
    """Less of `metric` ("validation/loss") is better; changes below `worth`, in its unit, are worth nothing."""
    return Objective(metric, "minimize", worth)


def maximize(metric: str, *, worth: float | None = None) -> Objective:
    """More of `metric` ("validation/accuracy") is better; changes below `worth`, in its unit, are worth nothing."""
    return Objective(metric, "maximize", worth)


@dataclass(frozen=True, slots=True)
class FitCriterion:
    """When the training set counts as perfectly fitted (A18): a training metric on one side of a threshold."""

    metric: str
    side: Literal["at_most", "at_least"]
    threshold: float

    def __post_init__(self) -> None:
        if self.side not in ("at_most", "at_least"):
            raise DeclarationError(f"side must be 'at_most' or 'at_least', got {self.side!r}")
        if self.measured.split != "training" or not self.measured.name or not math.isfinite(self.threshold):
            raise DeclarationError(
                "a fit criterion compares a metric of the training split with a finite number, like "
                f"at_most('training/error_rate', 0.0), got {self.metric!r} and {self.threshold}"
            )

    @property
    def measured(self) -> Metric:
        """The metric, with its split as a field."""
        return metric_from(self.metric)

    def met(self, value: float) -> bool:
        """Whether a measured value fits; what is not finite never does (D27)."""
        if not math.isfinite(value):
            return False
        return value <= self.threshold if self.side == "at_most" else value >= self.threshold


def at_most(metric: str, threshold: float) -> FitCriterion:
    """Fitted once `metric` ("training/error_rate") is no more than `threshold`."""
    return FitCriterion(metric, "at_most", threshold)


def at_least(metric: str, threshold: float) -> FitCriterion:
    """Fitted once `metric` ("training/accuracy") is no less than `threshold`."""
    return FitCriterion(metric, "at_least", threshold)
