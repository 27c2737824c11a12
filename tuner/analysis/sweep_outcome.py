"""What a constant-learning-rate sweep answers: a number of steps with its interval, or why there is none (A18-A26).

Three outcomes of three types, so that nobody mistakes one for another: `Fitted`, `NotFitted` (no number at all,
D8) and `Invalid` (the fastest rate stands at an end of the grid, so a wider grid might be faster, A25, D3).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

PREDICTION = 0.90  # [P] chance that a fresh seed's steps lie in the interval over seeds
LEAST_WIDTH = 0.10  # [P] an interval wider than this share of the estimate is refined (D5)
PLATEAU = 0.05  # [P] less relative improvement than this over the last quarter of a run is a plateau
GRID_EXTENSION = 3  # grid points by which an invalid grid is extended


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the training set was not fitted, how likely it is, and what speaks for it."""

    reason: Literal["label_noise_or_capacity", "too_few_steps", "learning_rates", "all_diverged"]
    weight: Literal["likely", "possible"]
    because: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """The fastest rate fits in (low, high] steps.

    seed_low, seed_high: where a fresh seed's steps lie with a chance of PREDICTION, from `seed_steps`, the fits of
    other seeds at the same rate; None where fewer than two seeds were trained.
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
        """The estimate: the median over the seeds (they were not selected); without them the fastest trial's."""
        return math.ceil(float(np.median(self.seed_steps))) if self.seed_steps else self.high

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

    @classmethod
    def of(cls, fits: pd.DataFrame, max_steps: int) -> "NotFitted":
        """The outcome of trials of which none fitted."""
        return cls(max_steps, weighed_reasons(fits), *_best_unfitted(fits))


@dataclass(frozen=True, slots=True)
class Invalid:
    """The fastest rate stands at an end of the grid: its steps are only an upper bound, and are withheld (D3)."""

    direction: Literal["lower", "upper"]
    learning_rate: float
    bound: int
    extended_grid: tuple[float, ...]
    ambiguous: bool = False


Outcome = Fitted | NotFitted | Invalid


def sweep_outcome(fits: pd.DataFrame, max_steps: int) -> Outcome:
    """Judge the grid's trials (`fit_steps_frame`), one a rate, all trained `max_steps` unless diverged."""
    fitted = fits[fits["first_fit"].notna()]
    if fitted.empty:
        return NotFitted.of(fits, max_steps)
    fastest = fitted.sort_values("first_fit", kind="stable").iloc[0]
    tied = fitted[fitted["last_unfit"] < fastest["first_fit"]]
    grid = fits["learning_rate"].tolist()
    for direction, end in (("lower", 0), ("upper", len(grid) - 1)):
        at_end = tied[tied["learning_rate"] == grid[end]]
        if len(at_end):
            ambiguous = float(fastest["learning_rate"]) != grid[end]
            return Invalid(
                direction,  # type: ignore[arg-type]
                float(grid[end]),
                int(at_end["first_fit"].iloc[0]),
                extended_grid(tuple(grid), direction),
                ambiguous,
            )
    rate = float(fastest["learning_rate"])
    above = fits[fits["learning_rate"] > rate]
    diverged = len(above) > 0 and above.iloc[0]["state"] == "infeasible"
    others = tuple(float(r) for r in tied["learning_rate"] if r != rate)
    return Fitted(rate, int(fastest["last_unfit"]), int(fastest["first_fit"]), max_steps, diverged, others)


def extended_grid(grid: tuple[float, ...], direction: str) -> tuple[float, ...]:
    """The grid with GRID_EXTENSION more values beyond one end, at its own ratio."""
    ratio = grid[1] / grid[0] if direction == "lower" else grid[-1] / grid[-2]
    if direction == "lower":
        more = tuple(_rounded(grid[0] / ratio**i) for i in range(GRID_EXTENSION, 0, -1))
        return more + grid
    return grid + tuple(_rounded(grid[-1] * ratio**i) for i in range(1, GRID_EXTENSION + 1))


def with_seeds(outcome: Fitted, seed_fits: pd.DataFrame) -> Fitted:
    """The outcome with the spread over other seeds at the winning rate: a 90 % prediction interval in log steps."""
    steps = tuple(sorted(int(step) for step in seed_fits["first_fit"].dropna()))
    low, high = prediction_interval(steps)
    return Fitted(
        outcome.learning_rate, outcome.low, outcome.high, outcome.max_steps, outcome.edge_of_stability, outcome.tied,
        steps, int(seed_fits["first_fit"].isna().sum()), low, high,
    )  # fmt: skip


def prediction_interval(steps: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Where one more draw lies with a chance of PREDICTION, were the logarithms normal; None for fewer than two."""
    if len(steps) < 2:
        return None, None
    logs = np.log(np.array(steps, dtype=np.float64))
    factor = float(stats.t.ppf(0.5 + PREDICTION / 2, len(steps) - 1)) * math.sqrt(1 + 1 / len(steps))
    half = factor * float(logs.std(ddof=1))
    return math.floor(math.exp(logs.mean() - half)), math.ceil(math.exp(logs.mean() + half))


def weighed_reasons(fits: pd.DataFrame) -> tuple[Reason, ...]:
    """Why no trial fitted, the likeliest first."""
    alive = _alive(fits)
    if alive.empty:
        return (Reason("all_diverged", "likely", "every learning rate diverged: the grid lies too high"),)
    best = alive.sort_values("shortfall").iloc[0]
    rate, improvement = float(best["learning_rate"]), float(best["late_improvement"])
    reasons: list[Reason] = []
    if rate in (fits["learning_rate"].iloc[0], fits["learning_rate"].iloc[-1]):
        reasons.append(Reason("learning_rates", "likely", f"the best rate, {rate:g}, stands at an end of the grid"))
    if improvement < PLATEAU:
        because = f"the best trial came only {improvement:.1%} nearer over its last quarter: it stands on a plateau"
        reasons.append(Reason("label_noise_or_capacity", "likely", because))
        reasons.append(Reason("too_few_steps", "possible", "a plateau can end, though later"))
    else:
        because = f"the best trial still came {improvement:.1%} nearer over its last quarter"
        reasons.append(Reason("too_few_steps", "likely", because))
    return tuple(reasons)


def _best_unfitted(fits: pd.DataFrame) -> tuple[float | None, float | None]:
    alive = _alive(fits)
    if alive.empty:
        return None, None
    best = alive.sort_values("shortfall").iloc[0]
    return float(best["learning_rate"]), float(best["final_value"])


def _alive(fits: pd.DataFrame) -> pd.DataFrame:
    return fits[(fits["state"] == "complete") & fits["shortfall"].notna()]


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Plain data with the outcome's type beside it, for the Ledger."""
    return {"outcome": _NAMES[type(outcome)], **asdict(outcome)}


def outcome_from_json(data: dict[str, Any]) -> Outcome:
    """The inverse of `outcome_to_json`."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    kind = values.pop("outcome")
    if kind == "not_fitted":
        values["reasons"] = tuple(Reason(**reason) for reason in values["reasons"])
        return NotFitted(**values)
    return Fitted(**values) if kind == "fitted" else Invalid(**values)


_NAMES: dict[type, str] = {Fitted: "fitted", NotFitted: "not_fitted", Invalid: "invalid"}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
