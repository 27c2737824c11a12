"""Model-based points in batches: what a sampler proposes is a function of the records, a seed and a number (B35).

Nothing of a sampler is stored. For every batch a study is rebuilt in memory from the trials of all earlier batches,
and every proposal has a seed of its own, made of (study seed, trial number). So one worker, eight workers and a
launch that was killed anywhere get the same points: only where a batch begins decides what its proposals may know.

Infeasible trials are violated constraints, never huge values. CMA-ES is driven by its own package and not through
Optuna's sampler, which keeps its state as a pickle in attributes of trials: here it is told the earlier batches,
each of which is a generation, and no pickle exists.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import optuna
from cmaes import CMA, get_warm_start_mgd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tuner.design.hyperparameters import Hyperparameter, Range, Value, as_number
from tuner.design.objective import Direction
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.space import SearchSpace
from tuner.errors import DeclarationError

SamplerName = Literal["tpe", "gp", "cmaes"]
STARTUP = 5  # known trials below which TPE and GP draw at random
SMALLEST_GENERATION = 4  # points of a generation of CMA-ES
FIRST_SIGMA = 1 / 6  # of every range, where too few trials are known to start CMA-ES from


@dataclass(frozen=True, slots=True)
class Known:
    """A finished trial as a sampler sees it: value is the best over training, None where it has no finite one."""

    point: Point
    value: float | None
    feasible: bool = True


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched, by what, towards where. `batch` points are proposed together, knowing nothing of each other's
    values.
    """

    space: SearchSpace
    direction: Direction
    sampler: SamplerName
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.sampler not in get_args(SamplerName):
            raise DeclarationError(f"a sampler is one of {', '.join(get_args(SamplerName))}, got {self.sampler!r}")
        smallest = SMALLEST_GENERATION if self.sampler == "cmaes" else 1
        if self.batch < smallest:
            raise DeclarationError(f"{self.sampler} proposes at least {smallest} points at a time, got {self.batch}")
        refused = [h.name for h in self.space if not _moves_in(self.sampler, h)]
        if refused:
            raise DeclarationError(
                f"{self.sampler} cannot search {', '.join(refused)}: a choice, or only there for some points; take "
                "--sampler tpe, which searches everything, or fix these"
            )


def proposed_batch(search: Search, first: Sequence[Known], batches: Sequence[Sequence[Known]]) -> tuple[Point, ...]:
    """The points of the next batch.

    first: trials that were trained before the search, in any fixed order. batches: every earlier batch whole, in
    the order of its trials' numbers.
    """
    if search.sampler == "cmaes":
        return _generation(search, first, batches)
    start = sum(len(batch) for batch in batches)
    known = [*first, *(known for batch in batches for known in batch)]
    study = study_of(search.space, search.direction, known)
    points = []
    with quiet():
        for number in range(start, start + search.batch):
            study.sampler = _sampler(search, number)
            points.append(_asked(search.space, study.ask()))  # stays RUNNING: the next ones keep away from it
    return tuple(points)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's warnings: constraints and GP are experimental in Optuna 5, which warns at each call."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def study_of(space: SearchSpace, direction: Direction, known: Sequence[Known]) -> optuna.Study:
    """Finished trials as an Optuna study in memory."""
    with quiet():
        study = optuna.create_study(direction=direction)
        usable = [one for one in known if one.value is not None or not one.feasible]
        constrained = not all(one.feasible for one in usable)
        study.add_trials([_frozen(space, one, _worst(direction, known), constrained) for one in usable])
    return study


def _worst(direction: Direction, known: Sequence[Known]) -> float:
    """What stands for the value of a trial that has none: no worse than the worst, so that no model is bent by it."""
    values = [one.value for one in known if one.value is not None and one.feasible]
    return (max(values) if direction == "minimize" else min(values)) if values else 0.0


def _frozen(space: SearchSpace, known: Known, worst: float, constrained: bool) -> FrozenTrial:
    values = dict(known.point.values_by_name)
    distributions = {h.name: distribution(h) for h in space if h.name in values}
    return create_trial(
        state=TrialState.COMPLETE,
        value=worst if known.value is None else known.value,
        params={name: values[name] for name in distributions},
        distributions=distributions,
        constraints={"infeasible": 0.0 if known.feasible else 1.0} if constrained else None,
    )


def distribution(hyperparameter: Hyperparameter) -> BaseDistribution:
    """A hyperparameter's domain in Optuna's words."""
    domain = hyperparameter.domain
    if not isinstance(domain, Range):
        return CategoricalDistribution(domain.choices)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(float(domain.low), float(domain.high), log=domain.log)


def _sampler(search: Search, number: int) -> BaseSampler:
    seed = _seed_of(search, number)
    if search.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False)
    conditional = any(h.condition is not None for h in search.space)
    return TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True, group=conditional)


def _seed_of(search: Search, number: int) -> int:
    return derived_seed("proposal", search.seed, number) % 2**32


def _asked(space: SearchSpace, trial: Trial) -> Point:
    """The point a trial is given: every hyperparameter that exists there, then the fixed values."""

    def value_of(hyperparameter: Hyperparameter) -> Value:
        name, domain = hyperparameter.name, hyperparameter.domain
        if not isinstance(domain, Range):
            return trial.suggest_categorical(name, domain.choices)
        if domain.integer:
            return trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)

    return Point.of(space.values_by(value_of))


# CMA-ES


def _generation(search: Search, first: Sequence[Known], batches: Sequence[Sequence[Known]]) -> tuple[Point, ...]:
    optimizer = _started(search, first, _seed_of(search, search.batch * len(batches)))
    for batch in batches:
        values = _ranked_values(search.direction, batch)
        units = [_units(search.space, known.point) for known in batch]
        optimizer.tell(list(zip(units, values, strict=True)))  # draws nothing from its generator
    asked = [optimizer.ask() for _ in range(search.batch)]
    return tuple(Point.of(search.space.values_at(tuple(map(float, units)))) for units in asked)


def _started(search: Search, first: Sequence[Known], seed: int) -> CMA:
    """Around the best tenth of the trials that are known already; in the middle of the space without any."""
    dimensions = len(search.space)
    terms: dict[str, object] = {"mean": np.full(dimensions, 0.5), "sigma": FIRST_SIGMA}
    usable = [known for known in first if known.value is not None and known.feasible]
    if len(usable) >= 10:
        values = _ranked_values(search.direction, usable)
        units = [_units(search.space, known.point) for known in usable]
        mean, sigma, covariance = get_warm_start_mgd(list(zip(units, values, strict=True)))
        terms = {"mean": mean, "sigma": max(sigma, 1e-3), "cov": covariance}
    bounds = np.tile([0.0, 1.0], (dimensions, 1))
    return CMA(**terms, bounds=bounds, population_size=search.batch, seed=seed)


def _ranked_values(direction: Direction, batch: Sequence[Known]) -> list[float]:
    """Values to minimize. Only their order counts: what is infeasible comes last by its rank.

    A feasible trial without a value FAILED and is no evidence about its point, so it is ranked in the middle.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    ranked = sorted(sign * one.value if one.value is not None else math.inf for one in batch if _says_something(one))
    middle = ranked[len(ranked) // 2] if ranked else 0.0
    return [math.inf if not one.feasible else middle if one.value is None else sign * one.value for one in batch]


def _says_something(known: Known) -> bool:
    return known.value is not None or not known.feasible


def _units(space: SearchSpace, point: Mapping[str, Value]) -> np.ndarray:
    """The position of a point in the unit cube of the sampling scales."""
    units = [h.domain.unit_of(as_number(point[h.name], h.name)) for h in space if isinstance(h.domain, Range)]
    return np.clip(np.array(units, dtype=np.float64), 0.0, 1.0)


def _moves_in(sampler: SamplerName, hyperparameter: Hyperparameter) -> bool:
    if sampler == "tpe":
        return True
    number = isinstance(hyperparameter.domain, Range)
    return hyperparameter.condition is None and (number or sampler == "gp")
