"""How the outcome of a sweep follows from its trials: fitted, not fitted and why, or invalid (A18-A26)."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from tuner.records.sweep_outcomes import PREDICTION, Fitted, Invalid, NotFitted, Reason, SweepOutcome

LEAST_WIDTH = 0.10  # [P] an interval wider than this share of the estimate is refined (D5)
PLATEAU = 0.05  # [P] less relative improvement than this over the last quarter of a run is a plateau
SURELY = 2.0  # [P] standard deviations of its noise by which a late improvement is one
GRID_EXTENSION = 3  # grid points by which an invalid grid is extended

_ENDS: tuple[tuple[Literal["lower", "upper"], int], ...] = (("lower", 0), ("upper", -1))


def sweep_outcome(fits: pd.DataFrame, max_steps: int) -> SweepOutcome:
    """Judge the grid's trials (`fit_steps_frame`), one a rate, all trained `max_steps` unless diverged."""
    fitted = fits[fits["first_fit"].notna()]
    if fitted.empty:
        return not_fitted(fits, max_steps)
    fastest = fitted.sort_values("first_fit", kind="stable").iloc[0]
    tied = fitted[fitted["last_unfit"] < fastest["first_fit"]]
    # A trial that failed or was cancelled shows nothing about its rate: the grid ends where trials were finished.
    fits = fits[fits["state"].isin(["complete", "infeasible"])]
    grid = [float(rate) for rate in fits["learning_rate"]]
    for direction, end in _ENDS:
        at_end = tied[tied["learning_rate"] == grid[end]]
        if len(at_end):
            bound = int(at_end["first_fit"].iloc[0])
            # Ties inside one evaluation interval stay ties: which of them is fastest is not known (D5).
            return Invalid(direction, grid[end], bound, extended_grid(tuple(grid), direction), ambiguous=len(tied) > 1)
    rate = float(fastest["learning_rate"])
    above = fits[fits["learning_rate"] > rate]
    diverged = len(above) > 0 and above.iloc[0]["state"] == "infeasible"
    others = tuple(float(r) for r in tied["learning_rate"] if r != rate)
    return Fitted(rate, int(fastest["last_unfit"]), int(fastest["first_fit"]), max_steps, diverged, others)


def not_fitted(fits: pd.DataFrame, max_steps: int) -> NotFitted:
    """The outcome of trials of which none fitted."""
    return NotFitted(max_steps, weighed_reasons(fits), *_best_unfitted(fits))


def extended_grid(grid: tuple[float, ...], direction: str) -> tuple[float, ...]:
    """The grid with GRID_EXTENSION more values beyond one end, at its own ratio (a third of a decade for one rate)."""
    near = (grid[:2] if direction == "lower" else grid[-2:]) if len(grid) > 1 else (1.0, 10 ** (1 / 3))
    ratio = near[1] / near[0]
    if direction == "lower":
        more = tuple(_rounded(grid[0] / ratio**i) for i in range(GRID_EXTENSION, 0, -1))
        return more + grid
    return grid + tuple(_rounded(grid[-1] * ratio**i) for i in range(1, GRID_EXTENSION + 1))


def with_seeds(outcome: Fitted, seed_fits: pd.DataFrame) -> Fitted:
    """The outcome with the spread over other seeds at the winning rate: a 90 % prediction interval in log steps."""
    finished = seed_fits[seed_fits["state"].isin(["complete", "infeasible"])]["first_fit"]
    steps = tuple(sorted(int(step) for step in finished.dropna()))
    unfitted = int(finished.isna().sum())
    low, high = prediction_interval(steps)
    return replace(
        outcome,
        seed_steps=steps,
        unfitted_seeds=unfitted,
        seed_low=low,
        seed_high=None if unfitted else high,
    )


def prediction_interval(steps: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Where one more draw lies with a chance of PREDICTION, were the logarithms normal; None for fewer than two."""
    if len(steps) < 2:
        return None, None
    logs = np.log(np.array(steps, dtype=np.float64))
    factor = float(stats.t.ppf(0.5 + PREDICTION / 2, len(steps) - 1)) * math.sqrt(1 + 1 / len(steps))
    half = factor * float(logs.std(ddof=1))
    # exp(log(n)) may miss n by the last bit, which must not move the bounds by a step.
    low, high = (round(math.exp(float(logs.mean()) + side), 6) for side in (-half, half))
    return math.floor(low), math.ceil(high)


def weighed_reasons(fits: pd.DataFrame) -> tuple[Reason, ...]:
    """Why no trial fitted, the likeliest first."""
    alive = _alive(fits)
    if alive.empty:
        return (_nothing_alive(fits),)
    best = alive.sort_values("shortfall", kind="stable").iloc[0]
    rate = float(best["learning_rate"])
    reasons: list[Reason] = []
    if rate in (fits["learning_rate"].iloc[0], fits["learning_rate"].iloc[-1]):
        reasons.append(Reason("learning_rates", "likely", f"the best rate, {rate:g}, stands at an end of the grid"))
    improvement, noise = float(best["late_improvement"]), float(best["late_noise"])
    if improvement >= max(PLATEAU, SURELY * noise):
        return (*reasons, *_still_falling(best, improvement))
    if math.isnan(improvement):
        because, weight = "too few finite evaluations to see whether the best trial still improved", "possible"
    else:
        because, weight = f"the best run had stopped improving ({_closed(improvement)})", "likely"
    reasons.append(Reason("label_noise_or_capacity", weight, because))  # type: ignore[arg-type]
    reasons.append(Reason("too_few_steps", "possible", "a plateau can end, though later"))
    return tuple(reasons)


def _still_falling(best: pd.Series, improvement: float) -> tuple[Reason, ...]:
    """More steps, unless what each doubling of the steps gains shrinks so that all of them would not be enough."""
    still = f"the best run was still improving when it stopped ({_closed(improvement)})"
    heads_for, projected = float(best.get("heads_for", math.nan)), best.get("projected_steps", pd.NA)
    if not math.isnan(heads_for):
        because = f"{still}, but each doubling of the steps gained less: it approaches about {heads_for:.2g}"
        more = Reason("too_few_steps", "possible", "the pace may hold up")
        return Reason("label_noise_or_capacity", "likely", because), more
    when = (
        "" if pd.isna(projected) else f": at this pace it would fit after about {_two_digits(int(projected)):,} steps"
    )
    return (Reason("too_few_steps", "likely", still + when),)


def _closed(improvement: float) -> str:
    """How much nearer to the criterion the last quarter was than the one before."""
    if improvement < 0.0:
        return f"it was {-improvement:.0%} further from the criterion in its last quarter"
    return f"{improvement:.0%} of the remaining gap closed in its last quarter"


def _two_digits(steps: int) -> int:
    return int(float(f"{steps:.2g}"))


def _nothing_alive(fits: pd.DataFrame) -> Reason:
    """No trial ended with a finite training metric; only divergence shows that the rates are too high."""
    states = fits["state"]
    if (states == "complete").any():
        return Reason("never_finite", "likely", "the training metric is not finite at the last step of any trial")
    infeasible = fits[states == "infeasible"]
    if infeasible.empty:
        return Reason("not_trained", "likely", "no trial was finished")
    if infeasible["reason"].astype(str).str.startswith("diverged").any():
        return Reason("all_diverged", "likely", "every learning rate diverged: the grid lies too high")
    return Reason("not_trained", "likely", f"every trial was infeasible: {infeasible['reason'].iloc[0]}")


def _best_unfitted(fits: pd.DataFrame) -> tuple[float | None, float | None]:
    alive = _alive(fits)
    if alive.empty:
        return None, None
    best = alive.sort_values("shortfall", kind="stable").iloc[0]
    return float(best["learning_rate"]), float(best["final_value"])


def _alive(fits: pd.DataFrame) -> pd.DataFrame:
    # `fit_steps_frame` leaves the shortfall NaN where the training metric is not finite.
    return fits[(fits["state"] == "complete") & fits["shortfall"].notna()]


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
