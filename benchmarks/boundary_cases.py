"""Synthetic studies of the kinds that real tuning brings, with the right boundary verdict of each hyperparameter.

Each kind has two hyperparameters that matter and up to two that do not; `noise` is relative to the spread of the
objective over the trials. The right answers follow from how a study is made.
"""

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import optuna
import pandas as pd

from benchmarks.synthetic import METRIC, SHAPES, Array, _objective, frames, study
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Domain, Range, choice, integers, log_uniform, uniform
from tuner.design.objective import Objective
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace

EXAMPLES = 200  # of the validation set whose accuracy is a multiple of 1/200
BEYOND, FARTHEST = -0.2, 1.2  # optima that lie outside: 20 % of the range beyond an edge


@dataclass(frozen=True, slots=True)
class KindCase:
    """A study with the right verdict of each hyperparameter that matters or not; `named`: pairs on a ridge."""

    kind: str
    frames: StudyFrames
    truth: Mapping[str, str]
    named: tuple[str, ...] = ()


@dataclass(slots=True)
class Drawn:
    """A space and its points: `units` [trials, hyperparameters] on the sampling scale."""

    space: SearchSpace
    points: pd.DataFrame
    units: Array


def kind_case(kind: str, seed: int, *, trials: int = 30, noise: float = 0.02) -> KindCase:
    """The study of a kind with this seed."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind), trials, round(1000 * noise)])
    return KINDS[kind](rng, seed, trials, noise)


def _drawn(space: SearchSpace, seed: int, trials: int) -> Drawn:
    points = [dict(p.values_by_name) for p in quasi_random_points(space, seed=seed, start=0, count=trials)]
    table = pd.DataFrame(points)
    return Drawn(space, table, _units(space, table))


def _units(space: SearchSpace, points: pd.DataFrame) -> Array:
    return np.column_stack([[_unit(h.domain, value) for value in points[h.name]] for h in space])


def _unit(domain: Domain, value: object) -> float:
    if isinstance(domain, Range):
        return domain.unit_of(float(value))
    return domain.choices.index(value) / (len(domain.choices) - 1)


def _space(rng: np.random.Generator, **first: Domain) -> SearchSpace:
    """`first`, or two ranges that matter, and up to two that do not."""
    matter = first or {"h0": log_uniform(1e-4, 1e-1), "h1": uniform(1.0, 3.0)}
    others = {f"other{i}": log_uniform(1e-3, 1.0) for i in range(int(rng.integers(0, 3)))}
    return SearchSpace(**matter, **others)


def _optima(rng: np.random.Generator, count: int = 2) -> Array:
    return np.where(rng.random(count) < 0.6, rng.uniform(0.2, 0.8, count), rng.choice([BEYOND, FARTHEST], count))


def _side(place: float) -> str:
    return "ok" if 0.0 <= place <= 1.0 else "expand_high" if place > 1.0 else "expand_low"


def _truth(space: SearchSpace, optima: Array) -> dict[str, str]:
    names = [h.name for h in space]
    right = [_side(float(place)) for place in optima]
    return dict(zip(names, right + ["ok"] * (len(names) - len(right)), strict=True))


def _noisy(values: Array, noise: float, rng: np.random.Generator) -> Array:
    return np.asarray(values + noise * np.std(values) * rng.standard_normal(len(values)))


def _bowl(units: Array, optima: Array, rng: np.random.Generator) -> Array:
    return _objective(units[:, : len(optima)], optima, str(rng.choice(SHAPES)), rng)


def _plain(rng: np.random.Generator, seed: int, trials: int) -> tuple[Drawn, Array, Array]:
    drawn = _drawn(_space(rng), seed, trials)
    optima = _optima(rng)
    return drawn, optima, _bowl(drawn.units, optima, rng)


def _ridge(flat: str) -> Callable[..., KindCase]:
    """A diagonal valley in h0 and h1, whose floor is flat, has its best inside, or falls into a corner and beyond."""

    def made(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
        names = {"learning_rate": log_uniform(1e-4, 1e-1), "batch_size": integers(16, 1024, log=True)}
        drawn = _drawn(_space(rng, **names), seed, trials)
        slope = float(rng.choice([-1.0, 1.0]))
        first, second = drawn.units[:, 0] - 0.5, slope * (drawn.units[:, 1] - 0.5)
        shift = 0.0 if flat == "corner" else float(rng.uniform(-0.15, 0.15))
        across, along = (first - second - shift) / math.sqrt(2), (first + second) / math.sqrt(2)
        towards = float(rng.choice([-1.0, 1.0]))
        shallow = float(rng.uniform(0.03, 0.1))  # of the curvature across
        floor = {
            "flat": np.zeros_like(along),
            "inside": shallow * (along - rng.uniform(-0.2, 0.2)) ** 2,
            "corner": shallow * (along - towards * rng.uniform(0.95, 1.2)) ** 2,
        }[flat]
        values = across**2 + floor
        values = np.sqrt(values + 0.02) if rng.random() < 0.5 else values
        truth = {h.name: "ok" for h in drawn.space}
        if flat == "corner":
            high = {True: "expand_high", False: "expand_low"}
            truth |= {"learning_rate": high[towards > 0], "batch_size": high[towards * slope > 0]}
        found = frames(study(drawn.space, trials=trials), drawn.points, _noisy(values, noise, rng))
        return KindCase(f"ridge_{flat}", found, truth, ("learning_rate", "batch_size"))

    return made


def _luck(share: float) -> Callable[..., KindCase]:
    """Some trials fail by bad luck, wherever they are: far worse than the objective there, with a heavy tail."""

    def made(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
        drawn, optima, values = _plain(rng, seed, trials)
        spread = float(np.std(values))
        values = _noisy(values, noise, rng)
        failed = rng.permutation(trials) < round(share * trials)
        values = values + failed * spread * (2.0 + 2.0 * rng.pareto(1.5, trials))
        found = frames(study(drawn.space, trials=trials), drawn.points, values)
        return KindCase(f"luck_{share:.0%}", found, _truth(drawn.space, optima))

    return made


def _heavy_tails(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """Noise of Student's t with 2 degrees of freedom: one value in ten is more than three deviations off."""
    drawn, optima, values = _plain(rng, seed, trials)
    values = values + noise * np.std(values) * rng.standard_t(2.0, trials)
    return KindCase(
        "heavy_tails", frames(study(drawn.space, trials=trials), drawn.points, values), _truth(drawn.space, optima)
    )


def _pruned(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """The worst 70 % were stopped after a fifth to a half of their steps: their last value is no final one."""
    drawn, optima, values = _plain(rng, seed, trials)
    values = _noisy(values, noise, rng)
    values = (values - values.min()) / np.ptp(values) + 0.3
    where = study(drawn.space, evaluations=20, trials=trials)
    steps = np.asarray(where.budget.evaluation_steps)
    falling = rng.uniform(0.8, 1.2, trials)[:, None] * np.exp(-5.0 * steps / steps[-1])[None, :]
    curves = values[:, None] + falling
    judged = values + 0.1 * rng.standard_normal(trials)  # what a pruner saw
    stopped = np.argsort(np.argsort(judged)) >= trials - round(0.7 * trials)
    ends = np.where(stopped, rng.integers(4, 11, trials), len(steps))
    rows = [
        pd.DataFrame({"trial": i, "step": steps[:end], "metric": METRIC, "value": curves[i, :end]})
        for i, end in enumerate(ends)
    ]
    last = np.array([curves[i, end - 1] for i, end in enumerate(ends)])
    found = frames(where, drawn.points, last, pd.concat(rows, ignore_index=True))
    found.trials["state"] = np.where(stopped, "cancelled", "complete")
    found.trials["reason"] = np.where(stopped, [f"pruned at step {steps[end - 1]}" for end in ends], "")
    found.trials["steps"] = steps[ends - 1]
    found.trials["best_step"] = pd.array(steps[ends - 1], dtype="Int64")
    return KindCase("pruned_70%", found, _truth(drawn.space, optima))


def _model_based(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """Points that Optuna's TPE proposed: most of them lie near the best."""
    space = _space(rng)
    optima = _optima(rng)
    anywhere = _drawn(space, seed, 64)
    shape, inner = str(rng.choice(SHAPES)), int(rng.integers(2**31))
    spread = float(np.std(_objective(anywhere.units[:, :2], optima, shape, np.random.default_rng(inner))))
    optuna.logging.set_verbosity(logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed % 2**31)
    asked = optuna.create_study(sampler=sampler)
    distributions = {
        h.name: optuna.distributions.FloatDistribution(h.domain.low, h.domain.high, log=h.domain.log)
        for h in space
        if isinstance(h.domain, Range)
    }
    points, values = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(trials):
            trial = asked.ask(distributions)
            units = _units(space, pd.DataFrame([trial.params]))
            exact = float(_objective(units[:, :2], optima, shape, np.random.default_rng(inner))[0])
            value = exact + noise * spread * float(rng.standard_normal())
            asked.tell(trial, value)
            points.append(trial.params)
            values.append(value)
    found = frames(study(space, trials=trials), pd.DataFrame(points), np.array(values))
    return KindCase("model_based", found, _truth(space, optima))


def _ordered(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """Two ordered choices of numbers, by ratios and by differences."""
    space = _space(rng, batch=choice(32, 64, 128, 256, 512), sharpness=choice(1.5, 2.0, 2.5, 3.0, 3.5, 4.0))
    drawn = _drawn(space, seed, trials)
    optima = np.where(rng.random(2) < 0.6, rng.uniform(0.25, 0.75, 2), rng.choice([-0.25, 1.25], 2))
    values = _noisy(_bowl(drawn.units, optima, rng), noise, rng)
    found = frames(study(drawn.space, trials=trials), drawn.points, values)
    return KindCase("ordered_choices", found, _truth(drawn.space, optima))


def _natural(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """The best lies at ends beyond which there is nothing: 1 layer, no dropout, momentum near 1."""
    ends: dict[str, tuple[Domain, float]] = {
        "n_layers": (integers(1, 6), BEYOND), "hidden_dropout_prob": (uniform(0.0, 0.5), BEYOND),
        "weight_decay": (uniform(0.0, 0.3), BEYOND), "momentum": (uniform(0.0, 1.0), FARTHEST),
        "label_smoothing": (uniform(0.0, 0.2), BEYOND), "one_minus_beta1": (log_uniform(1e-3, 1.0), FARTHEST),
        "num_heads": (integers(1, 16, log=True), BEYOND), "extra_blocks": (integers(0, 4), BEYOND),
    }  # fmt: skip
    names = [str(name) for name in rng.choice(list(ends), 2, replace=False)]
    drawn = _drawn(_space(rng, **{name: ends[name][0] for name in names}), seed, trials)
    optima = np.array([ends[name][1] for name in names])
    values = _noisy(_bowl(drawn.units, optima, rng), noise, rng)
    found = frames(study(drawn.space, trials=trials), drawn.points, values)
    return KindCase("natural_ends", found, {h.name: "ok" for h in drawn.space})


def _two_optimizers(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """A learning rate that two optimizers share, with another optimum for each; one of them may lie outside."""
    optimizer = choice("sgd", "adam")
    space = _space(rng, learning_rate=log_uniform(1e-4, 1e-1), h1=uniform(1.0, 3.0), optimizer=optimizer)
    drawn = _drawn(space, seed, trials)
    shape = str(rng.choice(SHAPES))
    mine = int(rng.integers(2**31))
    outside = float(rng.choice([0.25, BEYOND])), float(rng.choice([0.75, FARTHEST]))
    if outside[0] < 0.0 and outside[1] > 1.0:
        outside = (0.25, outside[1])
    second = float(rng.uniform(0.3, 0.7))
    is_adam = (drawn.points["optimizer"] == "adam").to_numpy()
    both = [
        _objective(drawn.units[:, :2], np.array([place, second]), shape, np.random.default_rng(mine))
        for place in outside
    ]
    # One of the two is better as a whole: the other's best is not the study's.
    behind = np.std(both[0]) * rng.uniform(0.1, 0.6) * np.where(is_adam, 1.0, 0.0)
    values = _noisy(np.where(is_adam, both[1], both[0]) + behind, noise, rng)
    declared = study(drawn.space, trials=trials)
    if rng.random() < 0.5:
        declared = replace(declared, scientific=("optimizer",))
    truth = {h.name: "ok" for h in drawn.space if h.name != "optimizer"}
    truth["learning_rate"] = _side(outside[0]) if outside[0] < 0.0 else _side(outside[1])
    return KindCase("two_optimizers", frames(declared, drawn.points, values), truth)


def _quantised(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """An accuracy on 200 examples: many trials share a value."""
    drawn, optima, values = _plain(rng, seed, trials)
    worse = (values - values.min()) / np.ptp(values)
    accuracy = rng.uniform(0.85, 0.97) - rng.uniform(0.3, 0.6) * worse
    seen = np.round(_noisy(accuracy, noise, rng) * EXAMPLES) / EXAMPLES
    declared = replace(study(drawn.space, trials=trials), objective=Objective("validation/accuracy", "maximize"))
    return KindCase("quantised", frames(declared, drawn.points, seen), _truth(drawn.space, optima))


def _chance(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """Far from the optimum nothing is learned: a third to a half of the trials stay at the level of guessing."""
    drawn, optima, values = _plain(rng, seed, trials)
    level = float(np.quantile(values, rng.uniform(0.5, 0.67)))
    found = frames(study(drawn.space, trials=trials), drawn.points, _noisy(np.minimum(values, level), noise, rng))
    return KindCase("chance_plateau", found, _truth(drawn.space, optima))


def _floor(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """Nothing is better than a floor, which a part of the space reaches; towards an edge that lies on it nothing is
    gained, towards one that does not reach it much."""
    drawn = _drawn(_space(rng), seed, trials)
    optima = np.where(rng.random(2) < 0.6, rng.uniform(0.2, 0.8, 2), rng.choice([-0.35, 1.35], 2))
    offset = drawn.units[:, :2] - optima
    values = np.maximum((offset**2).sum(axis=1), 0.15**2)
    found = frames(study(drawn.space, trials=trials), drawn.points, _noisy(values, noise, rng))
    return KindCase("floor", found, _truth(drawn.space, optima))


def _nothing(rng: np.random.Generator, seed: int, trials: int, noise: float) -> KindCase:
    """All values agree to a few millionths: whatever the fit makes of them, no gain is worth anything."""
    drawn, _, values = _plain(rng, seed, trials)
    values = 0.7925 + 4e-6 * (_noisy(values, noise, rng) - values.min()) / np.ptp(values)
    found = frames(study(drawn.space, trials=trials), drawn.points, values)
    return KindCase("nothing_to_gain", found, {h.name: "ok" for h in drawn.space})


KINDS: dict[str, Callable[..., KindCase]] = {
    "ridge_flat": _ridge("flat"),
    "ridge_inside": _ridge("inside"),
    "ridge_corner": _ridge("corner"),
    "luck_15%": _luck(0.15),
    "luck_60%": _luck(0.60),
    "heavy_tails": _heavy_tails,
    "pruned_70%": _pruned,
    "model_based": _model_based,
    "ordered_choices": _ordered,
    "natural_ends": _natural,
    "two_optimizers": _two_optimizers,
    "quantised": _quantised,
    "chance_plateau": _chance,
    "floor": _floor,
    "nothing_to_gain": _nothing,
}
