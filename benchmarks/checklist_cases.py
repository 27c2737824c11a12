"""Synthetic studies with known answers to the questions of the checklist about curves, trials and stability.

A case is right, wrong, or open where the truth is "tie" or the verdict "inconclusive". What is only counted (effort,
infeasible share, best steps inside the warmup) has no rate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.synthetic import METRIC, TRAINING, Array, frames, study
from tuner.analysis.finding import Finding
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.insensitivity import insensitivity_finding
from tuner.analysis.questions.instability import instability_finding
from tuner.analysis.questions.isolation import isolation_findings
from tuner.analysis.questions.late_variance import late_variance_finding
from tuner.analysis.questions.overfitting import overfitting_finding
from tuner.analysis.questions.periodicity import periodicity_finding
from tuner.analysis.questions.training_loss import training_loss_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import choice, log_uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace

SPACE = SearchSpace(h0=log_uniform(1e-4, 1e-1))


@dataclass(frozen=True, slots=True)
class Case:
    """kind: what the curves or trials are like; truth: the right verdict."""

    frames: StudyFrames
    truth: str
    kind: str


@dataclass(frozen=True, slots=True)
class Size:
    trials: int
    evaluations: int
    noise: float  # of one evaluation, in descents from the first one


def overfitting_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """Validation rises by at least 6 noises (and 5 % of its descent) while training falls, or both do what else."""
    done = _done(size)
    bottom = rng.uniform(0.2, 0.6)
    later = np.maximum(0.0, done - bottom) / (1.0 - bottom)
    rise = max(0.05, size.noise * rng.uniform(6.0, 20.0))
    falling = np.exp(-6.0 * done)
    training, validation = {
        "overfits": (falling - 0.05 * done, _descent(done, bottom) + rise * later),
        "flat": (_descent(done, bottom), _descent(done, bottom)),
        "falls": (falling, falling),
        "diverges late": (_descent(done, bottom) + rise * later, _descent(done, bottom) + rise * later),
    }[kind]
    truth = "overfitting" if kind == "overfits" else "ok"
    return Case(_curves(rng, size, training, validation), truth, kind)


def improvement_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """At least one noise (and 2 % of the descent) is gained in the last quarter, nothing since well before it, or
    several noises are lost again.
    """
    done = _done(size)
    bottom = rng.uniform(0.2, 0.6)
    gained = max(0.02, size.noise * rng.uniform(1.0, 3.0))
    power = (1.0 + done / 0.02) ** -rng.uniform(0.3, 0.8)
    validation = {
        "power law": power - done * max(0.0, gained - float(np.interp(0.75, done, power) - power[-1])) / 0.25,
        "line": 1.0 - done * max(1.0, 4.0 * gained),
        "plateau": _descent(done, bottom),
        "overfits": _descent(done, bottom) + max(0.5, 25.0 * size.noise) * np.maximum(0.0, done - bottom),
    }[kind]
    truth = {"plateau": "saturated", "overfits": "got_worse"}.get(kind, "still_improving")
    return Case(_curves(rng, size, validation, validation), truth, kind)


def late_variance_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """The ten best trials lie five noises apart or more, or a fifth of a noise; the threshold is two."""
    noise = max(size.noise, 0.002)
    apart = noise * (rng.uniform(1.0, 5.0) if kind == "apart" else rng.uniform(0.0, 0.04))
    levels = np.arange(size.trials) * apart
    curves = _descent(_done(size), rng.uniform(0.2, 0.6))
    made = _curves(rng, replace(size, noise=noise), curves, curves, levels=levels)
    return Case(made, "ok" if kind == "apart" else "noisy", kind)


def insensitivity_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """All trials are one curve with noise, or their point spreads their levels by four noises or more."""
    noise = max(size.noise, 0.002)
    spread = 0.0 if kind == "alike" else noise * rng.uniform(4.0, 20.0)
    curves = _descent(_done(size), rng.uniform(0.2, 0.6))
    points = np.exp(rng.uniform(math.log(1e-4), math.log(1e-1), size.trials))
    away = (np.log10(points) + rng.uniform(2.0, 3.0)) ** 2
    levels = spread * (away - away.mean()) / away.std()
    made = _curves(rng, replace(size, noise=noise), curves, curves, levels=levels, points=points)
    return Case(made, "insensitive" if kind == "alike" else "sensitive", kind)


def training_loss_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """Training loses half of its descent again, for good, from the middle on; or falls, stays, spikes once."""
    done = _done(size)
    start = rng.uniform(0.3, 0.7)
    rise = max(rng.uniform(0.5, 1.5), 8.0 * size.noise)
    training = {
        "rises": _descent(done, start) + rise * np.maximum(0.0, done - start) / (1.0 - start),
        "falls": np.exp(-5.0 * done),
        "stays": _descent(done, start),
        "spikes": _descent(done, start) + rise * (np.abs(done - start - 0.2) < 0.02),
    }[kind]
    validation = _descent(done, start)
    return Case(_curves(rng, size, training, validation), "rising" if kind == "rises" else "ok", kind)


def periodicity_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """A wave of 1.4 noises that comes at least 7 times, its phases equal or not; or none, the noise slow or not."""
    noise = max(size.noise, 0.002)
    places = np.arange(size.evaluations)
    base = _descent(_done(size), rng.uniform(0.1, 0.4))
    longest = min(10.0, 0.8 * size.evaluations / 7.0)
    period, phases = rng.uniform(4.0, longest), rng.uniform(0.0, 2.0 * math.pi, size.trials)
    if kind == "in phase":
        phases = np.full(size.trials, phases[0])
    wave = 0.0 if kind in ("none", "slow noise") else noise * 1.4
    waves = wave * np.sin(2.0 * math.pi * places / period + phases[:, None])
    if kind == "slow noise":
        waves = np.apply_along_axis(_slow, 1, noise * rng.standard_normal((size.trials, size.evaluations)))
    made = _curves(rng, replace(size, noise=noise), base + waves, base + waves)
    return Case(made, "none" if kind in ("none", "slow noise") else "periodic", kind)


def instability_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """Everything above a rate diverges and the optimum lies within 2.5 of it, or 15 below it; or nothing diverges."""
    space = SearchSpace(learning_rate=log_uniform(1e-5, 1.0), other=log_uniform(1e-4, 1e-1))
    points = quasi_random_points(space, seed=int(rng.integers(1 << 30)), start=0, count=size.trials)
    rates = np.log10([float(point["learning_rate"]) for point in points])
    edge = rng.uniform(-2.5, -1.0)
    best = edge - math.log10({"at the edge": 2.0, "below it": 20.0, "no edge": 20.0}[kind])
    values = (rates - best) ** 2 + size.noise * rng.standard_normal(size.trials)
    if kind != "no edge":
        values[rates > edge] = math.nan
    table = pd.DataFrame([dict(point.values_by_name) for point in points])
    made = frames(study(space, trials=size.trials), table, values)
    return Case(made, "likely_instability" if kind == "at the edge" else "ok", kind)


def isolation_case(rng: np.random.Generator, size: Size, kind: str) -> Case:
    """Two values of a scientific hyperparameter: the same, or one better by two spreads of the trials."""
    space = SearchSpace(h0=log_uniform(1e-4, 1e-1), act=choice("a", "b"))
    points = quasi_random_points(space, seed=int(rng.integers(1 << 30)), start=0, count=size.trials)
    values = np.array([(math.log10(float(p["h0"])) + 2.5) ** 2 for p in points])
    values = values + size.noise * values.std() * rng.standard_normal(size.trials)
    table = pd.DataFrame([dict(point.values_by_name) for point in points])
    if kind == "better":
        values = values - 2.0 * values.std() * (table["act"] == "a").to_numpy()
    where = replace(study(space, trials=size.trials), scientific=("act",))
    return Case(frames(where, table, values), "tie" if kind == "same" else "leads", kind)


def _first_isolation(made: StudyFrames) -> Finding:
    return isolation_findings(made)[0]


Making = Callable[[np.random.Generator, Size, str], Case]
# By question: how a case is made, who answers, and the kinds.
QUESTIONS: Mapping[str, tuple[Making, Callable[[StudyFrames], Finding], tuple[str, ...]]] = {
    "overfitting": (overfitting_case, overfitting_finding, ("overfits", "flat", "falls", "diverges late")),
    "improvement": (improvement_case, improvement_finding, ("power law", "line", "plateau", "overfits")),
    "late_variance": (late_variance_case, late_variance_finding, ("apart", "together")),
    "insensitivity": (insensitivity_case, insensitivity_finding, ("alike", "different")),
    "training_loss": (training_loss_case, training_loss_finding, ("rises", "falls", "stays", "spikes")),
    "periodicity": (periodicity_case, periodicity_finding, ("in phase", "out of phase", "none", "slow noise")),
    "instability": (instability_case, instability_finding, ("at the edge", "below it", "no edge")),
    "isolation": (isolation_case, _first_isolation, ("same", "better")),
}


def checklist_case(question: str, seed: int, size: Size) -> Case:
    """The case of a seed; kinds take turns."""
    make, _, kinds = QUESTIONS[question]
    rng = np.random.default_rng([seed, size.trials, size.evaluations, round(100 * size.noise), len(question)])
    return make(rng, size, kinds[seed % len(kinds)])


def _done(size: Size) -> Array:
    return np.arange(1, size.evaluations + 1) / size.evaluations


def _descent(done: Array, bottom: float) -> Array:
    """From 1 down to 0 at `bottom`, then flat."""
    return np.asarray(np.maximum(0.0, 1.0 - done / bottom) ** 1.5)


def _slow(noise: Array) -> Array:
    """Noise of which half is remembered from one evaluation to the next."""
    made = noise.copy()
    for place in range(1, len(made)):
        made[place] = 0.5 * made[place - 1] + noise[place]
    return made


def _curves(
    rng: np.random.Generator,
    size: Size,
    training: Array,
    validation: Array,
    *,
    levels: Array | None = None,
    points: Array | None = None,
) -> StudyFrames:
    """Every trial these curves (one for all, or one each), its own level and point, and noise in each evaluation."""
    where = study(SPACE, evaluations=size.evaluations, trials=size.trials)
    steps = np.asarray(where.budget.evaluation_steps)
    shape = (size.trials, len(steps))
    above = 0.3 + (rng.exponential(0.1, size.trials) if levels is None else levels)
    parts, best, values = [], [], []
    for metric, curve, lower in ((TRAINING, training, 0.1), (METRIC, validation, 0.0)):
        each = np.broadcast_to(curve, shape) + above[:, None] - lower + size.noise * rng.standard_normal(shape)
        best, values = steps[each.argmin(axis=1)].tolist(), each.min(axis=1)
        trials = np.repeat(np.arange(size.trials), len(steps))
        parts.append(
            pd.DataFrame(
                {"trial": trials, "step": np.tile(steps, size.trials), "metric": metric, "value": each.ravel()}
            )
        )
    curves = pd.concat(parts).sort_values(["trial", "metric", "step"], kind="stable", ignore_index=True)
    drawn = np.exp(rng.uniform(math.log(1e-4), math.log(1e-1), size.trials)) if points is None else points
    made = frames(where, pd.DataFrame({"h0": drawn}), np.asarray(values), curves)
    made.trials["best_step"] = pd.array(best, dtype="Int64")
    return made
