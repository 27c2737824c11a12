"""Synthetic studies with known answers, for the rates of right and wrong verdicts."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.study_frames import StudyFrames
from tuner.budget.families import constant, constant_then_decay, linear
from tuner.budget.schedules import ScheduleFamily
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Range, integers, log_uniform, uniform
from tuner.design.names import TRIAL_COLUMNS
from tuner.design.objective import Objective, at_most
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace
from tuner.design.study import Study

Array = NDArray[np.float64]
METRIC = "validation/loss"
NOISES = (0.0, 0.02, 0.10)
SHAPES = ("quadratic", "rooted", "logged", "exponential")
CURVES = ("early_plateau", "overfitting", "peak", "plateau", "still_improving", "censored_by_decay")
REGIMES = {
    "still_improving": "compute_bound",
    "fitted_flat": "not_compute_bound",
    "fitted_overfitting": "not_compute_bound",
    "flat": "undecided",
    "training_only": "undecided",
    "only_by_decay": "undecided",
}
TRAINING = "training/loss"


def study(space: SearchSpace, *, steps: int = 1000, evaluations: int = 50, trials: int = 30) -> Study:
    budget = StepBudget.with_evaluations(steps, evaluations)
    objective = Objective(METRIC, "minimize")
    return Study(
        "round-1", "round", "synthetic", space.hyperparameters, space.fixed, budget, trials, objective, None, "adamw",
        constant(), 0, 64, 0,
    )  # fmt: skip


def frames(study: Study, points: pd.DataFrame, values: Array, curves: pd.DataFrame | None = None) -> StudyFrames:
    """Trials at `points`; a value that is not finite makes an infeasible trial."""
    finite = np.isfinite(values)
    table = pd.DataFrame({"trial": np.arange(len(values))})
    table["state"] = np.where(finite, "complete", "infeasible")
    for column in TRIAL_COLUMNS[2:]:
        table[column] = 0
    table["reason"], table["origin"] = "", "quasi-random"
    table["steps"] = study.budget.max_train_steps
    table["best_value"] = np.where(finite, values, np.nan)
    table["last_value"] = table["best_value"]
    table["best_step"] = pd.array([study.budget.max_train_steps] * len(values), dtype="Int64")
    table = table[list(TRIAL_COLUMNS)]
    for name in points:
        table[name] = points[name].to_numpy()
    empty = pd.DataFrame({"trial": [], "step": [], "metric": [], "value": []})
    schedule = study.schedule.schedule(study.budget.max_train_steps, study.warmup_steps)
    return StudyFrames(study, table, empty if curves is None else curves, dict.fromkeys(range(len(values)), schedule))


@dataclass(frozen=True, slots=True)
class BoundaryCase:
    """A study with the right verdict of each hyperparameter."""

    frames: StudyFrames
    truth: dict[str, str]
    num_relevant: int
    noise: float
    divergent: bool
    shape: str


def boundary_case(seed: int, *, trials: int, dims: int, relevant: int, noise: float) -> BoundaryCase:
    """Optima at least 20 % of the range inside, or 20 % beyond an edge; the other dimensions do not matter."""
    rng = np.random.default_rng([seed, trials, dims, relevant, round(100 * noise)])
    space = SearchSpace(**{f"h{i}": _range(rng) for i in range(dims)})
    points = pd.DataFrame(
        [dict(p.values_by_name) for p in quasi_random_points(space, seed=seed, start=0, count=trials)]
    )
    units = np.column_stack([[_unit(h.domain, v) for v in points[h.name]] for h in space])
    inside = rng.random(relevant) < 0.6
    optima = np.where(inside, rng.uniform(0.2, 0.8, relevant), rng.choice([-0.2, 1.2], relevant))
    shape = str(rng.choice(SHAPES))
    values = _objective(units[:, :relevant], optima, shape, rng)
    divergent = bool(rng.random() < 0.3 and optima[0] < 1.0)
    if divergent:
        values[units[:, 0] > max(0.5, optima[0] + rng.uniform(0.1, 0.4))] = math.nan
    values = values + noise * np.nanstd(values) * rng.standard_normal(trials)
    right = [("ok" if 0 <= c <= 1 else "expand_high" if c > 1 else "expand_low") for c in optima]
    truth = dict(zip([h.name for h in space], right + ["ok"] * (dims - relevant), strict=True))
    return BoundaryCase(frames(study(space, trials=trials), points, values), truth, relevant, noise, divergent, shape)


def _range(rng: np.random.Generator) -> Range:
    kind = rng.choice(["log", "linear", "integer"], p=[0.5, 0.4, 0.1])
    return {"log": log_uniform(1e-4, 1e-1), "linear": uniform(0.0, 0.5), "integer": integers(4, 64)}[str(kind)]


def _unit(domain: object, value: object) -> float:
    assert isinstance(domain, Range)
    assert isinstance(value, int | float)
    return domain.unit_of(value)


def _objective(units: Array, optima: Array, shape: str, rng: np.random.Generator) -> Array:
    offset = units - optima
    weights = np.exp(rng.uniform(math.log(1 / 3), 0.0, offset.shape[1]))
    steeper = np.where(np.sign(offset) == rng.choice([-1, 1]), rng.uniform(1.0, 2.0), 1.0)
    distance = (weights * steeper * offset**2).sum(axis=1)
    for i in range(offset.shape[1] - 1):  # interactions
        strength = rng.uniform(-0.3, 0.3) * 2 * math.sqrt(weights[i] * weights[i + 1])
        distance = distance + strength * offset[:, i] * offset[:, i + 1]
    bent = {
        "quadratic": distance,
        "rooted": np.sqrt(distance + 0.02),
        "logged": np.log(distance + 0.1),
        "exponential": np.exp(distance),
    }
    return np.asarray(bent[shape])


@dataclass(frozen=True, slots=True)
class BestStepCase:
    frames: StudyFrames
    truth: str
    kind: str


def best_step_case(seed: int, *, trials: int, evaluations: int, noise: float) -> BestStepCase:
    """Curves whose best step is known; `noise` is relative to the descent from the first evaluation."""
    rng = np.random.default_rng([seed, trials, evaluations, round(100 * noise)])
    kind = CURVES[seed % len(CURVES)]
    space = SearchSpace(h0=log_uniform(1e-4, 1e-1))
    where = study(space, evaluations=evaluations, trials=trials)
    decaying: ScheduleFamily = linear() if rng.random() < 0.3 or kind == "censored_by_decay" else constant()
    where = replace(where, schedule=decaying)
    steps = np.asarray(where.budget.evaluation_steps)
    fractions = steps / where.budget.max_train_steps
    center, rows, values = _center(kind, rng), [], np.empty(trials)
    for trial in range(trials):
        curve = _curve(kind, fractions, center * rng.uniform(0.9, 1.1), rng, noise)
        fade = np.linspace(1.0, 0.3, len(steps)) if decaying.name == "linear" else 1.0
        curve = curve + 0.3 + rng.exponential(0.1) + noise * fade * rng.standard_normal(len(steps))
        rows.append(pd.DataFrame({"trial": trial, "step": steps, "metric": METRIC, "value": curve}))
        values[trial] = curve.min()
    curves = pd.concat(rows, ignore_index=True)
    points = pd.DataFrame({"h0": np.exp(rng.uniform(math.log(1e-4), math.log(1e-1), trials))})
    found = frames(where, points, values, curves)
    argmin = curves.loc[curves.groupby("trial")["value"].idxmin()]
    found.trials["best_step"] = argmin["step"].astype("Int64").to_numpy()
    right = {"early_plateau": "too_long", "overfitting": "too_long", "peak": "ok", "plateau": "ok"}
    return BestStepCase(found, right.get(kind, "maybe_too_short"), kind)


def _center(kind: str, rng: np.random.Generator) -> float:
    low, high = {"early_plateau": (0.03, 0.07), "overfitting": (0.03, 0.07)}.get(kind, (0.25, 0.6))
    return float(rng.uniform(low, high))


def _curve(kind: str, fractions: Array, center: float, rng: np.random.Generator, noise: float) -> Array:
    """Without noise: from 1 down to 0 at `center`, then flat or rising; or never at its end.

    What still improves gains at least one `noise` in the last quarter: less cannot be seen in one trial.
    """
    if kind in ("early_plateau", "plateau"):
        return np.asarray(np.maximum(0.0, 1.0 - fractions / center) ** rng.uniform(1.0, 2.0))
    if kind in ("overfitting", "peak"):
        falling = np.maximum(0.0, 1.0 - fractions / center) ** 1.5
        return np.asarray(falling + rng.uniform(0.3, 1.5) * np.maximum(0.0, fractions - center))
    if kind == "still_improving":
        curve = (1 + fractions / 0.02) ** -rng.uniform(0.3, 0.8)
        gained = float(np.interp(0.75, fractions, curve) - curve[-1])
        return np.asarray(curve - fractions * max(0.0, noise - gained) / 0.25)
    return np.asarray(0.6 / (1 + fractions / 0.05) + 0.4 * (1.0 - np.maximum(0.0, (fractions - 0.7) / 0.3)))


@dataclass(frozen=True, slots=True)
class RegimeCase:
    frames: StudyFrames
    truth: str
    kind: str


def regime_case(seed: int, *, trials: int, evaluations: int, noise: float) -> RegimeCase:
    """Training and validation curves of a known regime; half of the studies decay over their last 20 %.

    What falls only because the rate falls says nothing, so `only_by_decay` always decays.
    """
    rng = np.random.default_rng([seed, trials, evaluations, round(100 * noise)])
    kind = list(REGIMES)[seed % len(REGIMES)]
    decays = kind == "only_by_decay" or rng.random() < 0.5
    schedule: ScheduleFamily = constant_then_decay(0.2) if decays else constant()
    where = study(SearchSpace(h0=log_uniform(1e-4, 1e-1)), evaluations=evaluations, trials=trials)
    where = replace(where, schedule=schedule, fitted_when=at_most(TRAINING, 0.0))
    steps = np.asarray(where.budget.evaluation_steps)
    fractions = steps / where.budget.max_train_steps
    rows, values = [], np.empty(trials)
    for trial in range(trials):
        training, validation = _pair(kind, fractions / 0.8 if decays else fractions, rng, noise)
        drop = 0.3 * np.clip((fractions - 0.8) / 0.2, 0.0, 1.0) if decays else 0.0
        fitted = kind.startswith("fitted")
        training = training if fitted else training + 3.0 - drop
        moved = np.maximum(training + 0.5 * noise * rng.standard_normal(len(steps)), 1e-3)
        training = np.where(training > 0.0, moved, 0.0)
        validation = validation + 3.0 - drop + rng.exponential(0.1) + noise * rng.standard_normal(len(steps))
        values[trial] = validation.min()
        for metric, curve in ((TRAINING, training), (METRIC, validation)):
            rows.append(pd.DataFrame({"trial": trial, "step": steps, "metric": metric, "value": curve}))
    points = pd.DataFrame({"h0": np.exp(rng.uniform(math.log(1e-4), math.log(1e-1), trials))})
    return RegimeCase(frames(where, points, values, pd.concat(rows, ignore_index=True)), REGIMES[kind], kind)


def _pair(kind: str, fractions: Array, rng: np.random.Generator, noise: float) -> tuple[Array, Array]:
    """Training and validation without noise; `fractions` of the constant part, which may end before the run."""
    center = rng.uniform(0.2, 0.6)
    falling = np.maximum(0.0, 1.0 - fractions / center) ** rng.uniform(1.0, 2.0)
    sooner = np.maximum(0.0, 1.0 - fractions / (center * rng.uniform(0.5, 1.0)))
    if kind == "still_improving":
        return _improving(fractions, rng, noise), _improving(fractions, rng, noise)
    if kind == "fitted_flat":
        return falling, sooner
    if kind == "fitted_overfitting":
        return falling, sooner + max(1.0, 20.0 * noise) * np.maximum(0.0, fractions - 0.8 * center)
    if kind == "training_only":
        return _improving(fractions, rng, noise), sooner
    return (falling, sooner) if kind == "only_by_decay" else (np.ones_like(fractions), np.ones_like(fractions))


def _improving(fractions: Array, rng: np.random.Generator, noise: float) -> Array:
    """A power law that gains at least two noises in the last quarter."""
    curve = (1 + fractions / 0.02) ** -rng.uniform(0.3, 0.8)
    gained = float(np.interp(0.75, fractions, curve) - np.interp(1.0, fractions, curve))
    return np.asarray(curve - fractions * max(0.0, 2.0 * noise - gained) / 0.25)
