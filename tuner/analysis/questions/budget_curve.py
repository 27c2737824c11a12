"""The final value against the budget, and what a longer run would gain, with its uncertainty (A2, A28).

The value at n steps is described by a + b z(n), where z is n^-c or, for c = 0, -log n. The exponent c is not
known, so every c that fits the lengths about as well as the best one counts, and the interval covers the predictions of
all of them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.frames import study_frames
from tuner.analysis.noise import Array
from tuner.analysis.replicates import LEVEL
from tuner.design.objective import Objective
from tuner.errors import StorageError
from tuner.records.conclusions import CurveStudies
from tuner.storage.store import Ledger

KIND: Literal["budget_curve"] = "budget_curve"  # of its studies
WORTH = 0.01  # [P] of the value: a doubled budget that gains less gains nothing that matters
SHAPES = tuple(place / 20 for place in range(61))  # c, from a logarithm to a very early plateau

QUESTION = Question(
    name="budget_curve",
    sentence="What would a longer run gain?",
    order=510,
    scope="campaign",
    verdicts=(
        Verdict(
            "longer_pays", "told", "A longer run gains more; whether that is worth its price is your decision (A2)."
        ),
        Verdict("flat", "told", "A longer run gains next to nothing: spend the steps on other configurations (A8)."),
        Verdict(
            "longer_hurts", "act", "The longest run is not the best: shorten the budget, or regularize more (A15)."
        ),
        Verdict("inconclusive", "open", "Train more lengths (--lengths), or each with more seeds (--seeds 3)."),
    ),
    thresholds={"level": LEVEL, "worth": WORTH},
    title="{subject}",
    rules=("A2", "A8", "A15", "A28"),
)


def curve_name(study: str, trial: int, length: int) -> str:
    """The name of the study that trains a trial's point to one length."""
    return f"curve-{study}-trial-{trial}-{length}"


@dataclass(frozen=True, slots=True)
class BudgetCurve:
    """The lengths of one curve. `table`: as `curve_frame` makes it; `point`: whose point was trained.

    `failed`: (length, seed) of the trials that FAILED, of which the table has no row. `shared`: all lengths of a seed
    share their steps before the decay, as far as the training promises that.
    """

    objective: Objective
    point: str
    table: pd.DataFrame
    failed: tuple[tuple[int, int], ...] = ()
    shared: bool = True


def budget_curve(ledger: Ledger, campaign: str) -> BudgetCurve:
    """The newest curve of a campaign. Raises StorageError where none was trained."""
    concluded = ledger.conclusion(campaign, CurveStudies)
    if concluded is None:
        raise StorageError(f"no budget curve of {campaign!r} was trained yet; run: tuner budget-curve STUDY_FILE")
    every = [study_frames(ledger, campaign, name) for name in concluded.studies]
    parts = [
        frames.complete.assign(length=frames.study.budget.max_train_steps)[
            ["length", "trial", "best_value", "best_step", "last_value", "steps", "inherited"]
        ]
        for frames in every
    ]
    table = pd.concat(parts).rename(columns={"trial": "seed", "best_value": "value"})
    study = every[0].study
    source, trial = study.lineage[0]
    failed = tuple(
        (frames.study.budget.max_train_steps, int(seed))
        for frames in every
        for seed in frames.trials.loc[frames.trials["state"] == "failed", "trial"]
    )
    shared = all(frames.promises.prefixes for frames in every)
    return BudgetCurve(study.objective, f"{source} {trial}", curve_frame(table), failed, shared)


def curve_frame(table: pd.DataFrame) -> pd.DataFrame:
    """One row a length and seed, ascending: length, seed, value (best over training), trained (steps), ..."""
    made = table.assign(trained=table["steps"] - table["inherited"])
    return made.sort_values(["seed", "length"], kind="stable").reset_index(drop=True)


def degrees_of_freedom(num_values: int, num_seeds: int) -> int:
    """What is left of the values for their noise: each seed has a level, and all share a slope and a shape."""
    return num_values - num_seeds - 2


@dataclass(frozen=True, slots=True)
class Prediction:
    """A value at a length that was not trained, with its interval."""

    length: float
    value: float
    low: float
    high: float


def predictions(table: pd.DataFrame, lengths: Array) -> list[Prediction]:
    """What the value becomes from the longest trained length on (or back), as the change against it.

    Raises ValueError for too few lengths: each shape needs its own slope, and the shapes one number more.
    """
    means = table.groupby("length")["value"].mean()
    longest, at_longest = float(means.index[-1]), float(means.iloc[-1])
    freedom = degrees_of_freedom(len(table), table["seed"].nunique())
    if freedom < 1 or table["length"].nunique() < 2:
        raise ValueError(f"{len(table)} values are too few for a curve")
    fits = _fits(table)
    changes = (_change(fits, freedom, longest, float(length)) for length in lengths)
    return [
        Prediction(float(length), at_longest + center, at_longest + low, at_longest + high)
        for length, (center, low, high) in zip(lengths, changes, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Fits:
    """Least squares by shape: slopes, sums of squared residuals, and of squares of z around the means of its seeds."""

    slopes: Array
    squares: Array
    weights: Array


def _fits(table: pd.DataFrame) -> _Fits:
    """The fit of every shape; each seed has its own level."""
    _, seeds = np.unique(table["seed"].to_numpy(), return_inverse=True)
    counts = np.bincount(seeds)

    def around_seeds(numbers: Array) -> Array:
        return np.asarray(numbers - (np.bincount(seeds, numbers) / counts)[seeds])

    values = around_seeds(table["value"].to_numpy(dtype=np.float64))
    lengths = table["length"].to_numpy(dtype=np.float64)
    z = np.array([around_seeds(_reach(lengths, shape)) for shape in SHAPES])
    weights = np.square(z).sum(axis=1)
    slopes = z @ values / weights
    return _Fits(slopes, np.square(values - slopes[:, None] * z).sum(axis=1), weights)


def _change(fits: _Fits, freedom: int, start: float, end: float) -> tuple[float, float, float]:
    """The change of the value between two lengths: by the best shape, and the interval over all that fit."""
    best = int(fits.squares.argmin())
    variance = float(fits.squares[best]) / freedom
    fitting = fits.squares <= variance * (freedom + float(stats.f.ppf(LEVEL, 1, freedom))) + 1e-300
    apart = np.array([float(_reach(end, shape) - _reach(start, shape)) for shape in SHAPES])
    errors = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * np.sqrt(variance / fits.weights) * np.abs(apart)
    centers = fits.slopes * apart
    return float(centers[best]), float((centers - errors)[fitting].min()), float((centers + errors)[fitting].max())


def _reach(length: float | Array, shape: float) -> Array:
    return np.asarray(-np.log(length) if shape == 0.0 else np.power(length, -shape), dtype=np.float64)


def budget_curve_finding(curve: BudgetCurve) -> Finding:
    """longer_pays, flat, longer_hurts or inconclusive: what twice the longest budget would change."""
    table, objective = curve.table, curve.objective
    lengths = sorted(table["length"].unique())
    if curve.failed:
        told = ", ".join(f"{length:,} steps (seed {seed})" for length, seed in sorted(curve.failed))
        return _finding(curve, "inconclusive", f"Trials FAILED, so the curve lacks {told}: no prediction is given.")
    try:
        (doubled,) = predictions(table, np.array([2.0 * lengths[-1]]))
    except (ValueError, IndexError):
        return _finding(curve, "inconclusive", _unpredicted(table))
    value = float(table.groupby("length")["value"].mean().iloc[-1])
    sign = objective.sign
    gains = sorted(sign * (value - bound) for bound in (doubled.low, doubled.high))
    worth = WORTH * abs(value)
    verdict = (
        "longer_hurts" if gains[1] < 0 else
        "flat" if gains[1] < worth else
        "longer_pays" if gains[0] > 0 else
        "inconclusive"
    )  # fmt: skip
    summary = (
        f"{objective.metric} is {value:.4g} after {lengths[-1]:,} steps. Twice as many are predicted to give "
        f"{doubled.value:.4g} ({LEVEL:.0%} interval {doubled.low:.4g} to {doubled.high:.4g})."
    )
    return _finding(curve, verdict, summary)


def _unpredicted(table: pd.DataFrame) -> str:
    """What was completed, where that is too little for a prediction: the other trainings diverged or did not end."""
    means = table.groupby("length")["value"].mean()
    values = ", ".join(f"{value:.4g} after {length:,} steps" for length, value in means.items())
    told = f" ({values})" if values else ""
    were = "training was" if len(table) == 1 else "trainings were"
    return (
        f"{len(table)} {were} completed{told}; a prediction takes 4 lengths, or 3 with two seeds. The others "
        "diverged or have not ended."
    )


_SHARED = "All lengths of a seed share their steps before the decay, so their differences are clearer than their level."
_NOT_SHARED = "Each length was trained from its first step, so a difference between two lengths has the noise of both."
_RETRY = "Remove the cause of the FAILED trials, then the same command with --retry-failed."


def _finding(curve: BudgetCurve, verdict: str, summary: str) -> Finding:
    table = curve.table
    seeds, lengths = table["seed"].nunique(), table["length"].nunique()
    strength: Strength = "moderate" if seeds >= 3 and lengths >= 5 else "weak"
    caveats = [_SHARED if curve.shared else _NOT_SHARED]
    if seeds == 1:
        caveats.append(
            "Only one seed was trained: the interval does not include the luck of the seed; --seeds 3 shows it."
        )
    action = _RETRY if curve.failed else ""
    return QUESTION.answer(curve.point, verdict, summary, table, strength=strength, action=action, caveats=caveats)
