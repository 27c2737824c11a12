"""Synthetic studies whose curves are disturbed as real ones are, with the right verdict by construction.

`python benchmarks/curve_cases.py --studies 300` prints percent right, wrong and open of each cell with binomial
intervals. The seeds of `--tune` are for choosing statistics, the others for the table (docs/about/verdict-rates.md).
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from benchmarks.synthetic import METRIC, TRAINING, Array, frames, study
from tuner.analysis.finding import Finding
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.improvement import improvement_finding
from tuner.analysis.questions.insensitivity import insensitivity_finding
from tuner.analysis.questions.instability import instability_finding
from tuner.analysis.questions.late_variance import late_variance_finding
from tuner.analysis.questions.overfitting import overfitting_finding
from tuner.analysis.questions.periodicity import periodicity_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.families import constant, constant_then_decay, cosine
from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace

STEPS = 2000
TABLE_SEED, TUNING_SEED = 3_000_000, 2_000_000
SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5))
SHAPES = {"early": "too_long", "plateau": "ok", "improving": "maybe_too_short"}
DISTURBED = (
    "even", "clock", "epochs", "spikes", "heavy tails", "growing", "correlated", "quantised", "floor", "cosine",
    "decay",
)  # fmt: skip
# Those whose rate falls to (almost) zero late: there a curve that is flat or falls is weak evidence at most.
WEAK = ("cosine",)
LONELY = {
    "chance": "inconclusive",
    "grokking late": "maybe_too_short",
    "grokking early": "ok",
    "double descent, falling": "maybe_too_short",
    "double descent, done": "ok",
    "19 evaluations": "inconclusive",
    "12 evaluations by the clock": "inconclusive",
    "dead rate": "ok",
}


@dataclass(frozen=True, slots=True)
class CurveCase:
    """truth: the right verdict. weak: whether more than weak evidence would be a wrong claim."""

    frames: StudyFrames
    truth: str
    weak: bool = False


def best_step_kinds() -> dict[str, Callable[[np.random.Generator, int, float], CurveCase]]:
    """By name of the cell."""
    kinds: dict[str, Callable[[np.random.Generator, int, float], CurveCase]] = {}
    for disturbed in DISTURBED:
        for shape in SHAPES:
            kinds[f"{disturbed}, {shape}"] = _disturbed(shape, disturbed)
    return kinds | {kind: _lonely(kind) for kind in LONELY}


def _disturbed(shape: str, disturbed: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        slow = disturbed in ("correlated", "growing", "heavy tails")
        curve = _shape(rng, shape, noise * (2.0 if slow else 1.0))
        made = _made(rng, trials, noise, disturbed, lambda at, _: curve(at))
        return CurveCase(made, SHAPES[shape], weak=disturbed in WEAK and shape != "early")

    return make


def _lonely(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        at = float(rng.uniform(0.80, 0.88) if kind == "grokking late" else rng.uniform(0.3, 0.5))
        bottom = float(rng.uniform(0.2, 0.4))

        def grok(done: Array, jitter: float) -> Array:
            return np.asarray(1.0 / (1.0 + np.exp((done - at * (1.0 + 0.05 * jitter)) / 0.015)))

        def double(done: Array, _: float) -> Array:
            first = np.maximum(0.0, 1.0 - done / 0.15) ** 1.5
            hump = 0.5 * np.exp(-0.5 * ((done - 0.3) / 0.08) ** 2)
            late = 0.4 * (np.maximum(0.0, 1.0 - done) if kind.endswith("falling") else np.maximum(0.0, 0.6 - done))
            return np.asarray(first + hump + late)

        curves: Mapping[str, Callable[[Array, float], Array]] = {
            "chance": lambda done, _: np.ones_like(done),
            "grokking late": grok,
            "grokking early": grok,
            "double descent, falling": double,
            "double descent, done": double,
        }
        usual = curves.get(kind, lambda done, _: np.maximum(0.0, 1.0 - done / bottom) ** 1.5)
        disturbed = {"19 evaluations": "few", "12 evaluations by the clock": "few by the clock"}.get(kind, kind)
        made = _made(rng, trials, noise, disturbed, usual, alike=kind == "chance")
        return CurveCase(made, LONELY[kind], weak=kind == "dead rate")

    return make


def _shape(rng: np.random.Generator, shape: str, noise: float) -> Callable[[Array], Array]:
    """From 1 down to 0 early or in the middle, then flat; or a power law that gains `noise` in the last quarter."""
    center = float(rng.uniform(0.03, 0.07) if shape == "early" else rng.uniform(0.25, 0.6))
    bent, power = float(rng.uniform(1.0, 2.0)), float(rng.uniform(0.3, 0.8))

    def improving(done: Array) -> Array:
        gained = (1 + 0.75 / 0.02) ** -power - (1 + 1.0 / 0.02) ** -power
        return np.asarray((1 + done / 0.02) ** -power - done * max(0.0, noise - gained) / 0.25)

    def flat(done: Array) -> Array:
        return np.asarray(np.maximum(0.0, 1.0 - done / center) ** bent)

    return improving if shape == "improving" else flat


def _made(
    rng: np.random.Generator,
    trials: int,
    noise: float,
    disturbed: str,
    curve: Callable[[Array, float], Array],
    *,
    alike: bool = False,
) -> StudyFrames:
    """Trials whose level depends on their point, and on chance; each evaluated and disturbed in its own way."""
    families = {"cosine": cosine(), "decay": constant_then_decay(0.2), "dead rate": constant_then_decay(0.7)}
    where = study(SPACE, steps=STEPS, evaluations=50, trials=trials)
    where = replace(where, schedule=families.get(disturbed, constant()))
    points = quasi_random_points(SPACE, seed=int(rng.integers(1 << 30)), start=0, count=trials)
    rates = np.log10([float(point["learning_rate"]) for point in points])
    levels = 0.3 + (0.0 if alike else 1.0) * (0.05 * (rates + 2.5) ** 2 + rng.exponential(0.05, trials))
    parts, values, best = [], np.empty(trials), np.empty(trials, dtype=np.int64)
    for trial in range(trials):
        steps = _steps(rng, disturbed, trial)
        done = steps / STEPS
        made = curve(done, float(rng.uniform(-1.0, 1.0))) + levels[trial] + _noise(rng, disturbed, done, noise)
        if disturbed == "floor":
            made = np.maximum(0.0, made - levels[trial])
        if disturbed == "quantised":
            made = np.round(200.0 * 0.6 * made) / 200.0
        parts.append(pd.DataFrame({"trial": trial, "step": steps, "metric": METRIC, "value": made}))
        values[trial], best[trial] = made.min(), int(steps[made.argmin()])
    table = pd.DataFrame([dict(point.values_by_name) for point in points])
    found = frames(where, table, values, pd.concat(parts, ignore_index=True))
    found.trials["best_step"] = pd.array(best, dtype="Int64")
    if disturbed == "dead rate":  # the rate has fallen to zero by 60 % of the run, and stays there
        family = constant_then_decay(0.5).schedule(round(0.6 * STEPS))
        dead = replace(family.pieces[-1], shape="linear", steps=STEPS - len(family), start=0.0, end=0.0)
        found = replace(found, schedules=dict.fromkeys(range(trials), replace(family, pieces=(*family.pieces, dead))))
    return found


def _steps(rng: np.random.Generator, disturbed: str, trial: int) -> Array:
    """Where a trial was evaluated: integers as floats."""
    if disturbed == "epochs":
        batch = (32, 64, 128)[trial % 3]
        return np.round(np.arange(1, int(STEPS * batch / 2560) + 1) * 2560 / batch)
    if disturbed in ("clock", "few by the clock"):
        usual = STEPS / (12.0 if disturbed == "few by the clock" else 50.0) * rng.uniform(0.7, 1.4)
        ends = np.cumsum(usual * rng.uniform(0.7, 1.3, 200))
        return np.unique(np.round(ends[ends <= STEPS]))
    count = 19 if disturbed == "few" else 50
    return np.round(np.arange(1, count + 1) * STEPS / count)


def _noise(rng: np.random.Generator, disturbed: str, done: Array, noise: float) -> Array:
    """Of one trial, evaluation by evaluation; `noise` is its standard deviation, of the whole run where it grows."""
    drawn = rng.standard_normal(len(done))
    if disturbed == "correlated":
        for place in range(1, len(drawn)):
            drawn[place] = 0.7 * drawn[place - 1] + math.sqrt(1.0 - 0.49) * drawn[place]
    if disturbed == "growing":
        grown = 0.3 + 2.0 * done
        return np.asarray(noise * drawn * grown / math.sqrt(float(np.mean(grown**2))))
    if disturbed == "heavy tails":
        return np.asarray(noise * rng.standard_t(3, len(done)) / math.sqrt(3.0))
    if disturbed == "spikes":
        for place in rng.choice(len(drawn), int(rng.integers(1, 4)), replace=False):
            drawn[place] += rng.uniform(8.0, 40.0)
    return np.asarray(noise * drawn)


# The other questions


def improvement_case(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    disturbed, shape = kind.split(", ")
    truths = {"plateau": "saturated", "improving": "still_improving", "worse": "got_worse"}

    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        usual = _shape(rng, "plateau" if shape == "worse" else shape, noise)
        rise = max(0.1, noise * rng.uniform(3.0, 10.0)) / 0.25 if shape == "worse" else 0.0
        made = _made(rng, trials, noise, disturbed, lambda at, _: usual(at) + rise * np.maximum(0.0, at - 0.6))
        return CurveCase(made, truths[shape])

    return make


def overfitting_case(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    """Training falls; validation rises by 6 noises or more, stays, or has spikes and nothing else."""
    disturbed, shape = kind.split(", ")

    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        usual = _shape(rng, "plateau", noise)
        rise = max(0.05, noise * rng.uniform(8.0, 20.0)) if shape == "rises" else 0.0
        made = _made(rng, trials, noise, disturbed, lambda at, _: usual(at) + rise * np.maximum(0.0, at - 0.6) / 0.4)
        training = made.curves.assign(metric=TRAINING)
        if disturbed == "clock":  # loggers write training more often
            steps = np.arange(10.0, STEPS + 1.0, 10.0)
            parts = [pd.DataFrame({"trial": n, "step": steps, "metric": TRAINING}) for n in range(trials)]
            training = pd.concat(parts, ignore_index=True)
        done = training["step"].to_numpy() / STEPS
        training["value"] = np.exp(-4.0 * done) + noise * rng.standard_normal(len(done))
        curves = pd.concat([made.curves, training]).sort_values(["trial", "metric", "step"], ignore_index=True)
        return CurveCase(replace(made, curves=curves), "overfitting" if shape == "rises" else "ok")

    return make


def insensitivity_case(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    """Values that depend on a hyperparameter by three times the spread of seeds, or by nothing; seeds vary."""
    seeds = {"seeds as evaluations": 1.0, "seeds five times": 5.0}[kind.split(", ")[0]]
    matters = kind.endswith("matters")

    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        usual = _shape(rng, "plateau", noise)
        made = _made(rng, trials, noise, "even", lambda at, _: usual(at), alike=True)
        spread = seeds * noise * rng.standard_normal(trials)
        place = np.log10(made.trials["learning_rate"].to_numpy(dtype=np.float64)) + rng.uniform(2.0, 3.5)
        spread += (3.0 * seeds * noise * (place**2 - np.mean(place**2)) / np.std(place**2)) if matters else 0.0
        curves = made.curves.assign(value=made.curves["value"] + spread[made.curves["trial"].to_numpy()])
        trials_table = made.trials.assign(best_value=made.trials["best_value"] + spread)
        return CurveCase(replace(made, trials=trials_table, curves=curves), "sensitive" if matters else "insensitive")

    return make


def instability_case(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    """Crashes anywhere, at 5 to 40 %; or everything above a rate diverges, with crashes anywhere besides."""

    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        points = quasi_random_points(SPACE, seed=int(rng.integers(1 << 30)), start=0, count=trials)
        rates = np.log10([float(point["learning_rate"]) for point in points])
        edge = rng.uniform(-2.2, -1.7)
        best = edge - math.log10(2.0) if kind.startswith("edge") else rng.uniform(-3.5, -1.5)
        values = (rates - best) ** 2 + noise * rng.standard_normal(trials)
        crashed = rng.random(trials) < {"edge": 0.0, "edge and crashes": 0.1}.get(kind, rng.uniform(0.05, 0.4))
        values[crashed | (kind.startswith("edge") & (rates > edge))] = math.nan
        table = pd.DataFrame([dict(point.values_by_name) for point in points])
        made = frames(study(SPACE, trials=trials), table, values)
        return CurveCase(made, "likely_instability" if kind.startswith("edge") else "ok")

    return make


def periodicity_case(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    """Noise that all trials share, as where they share the order of their examples; with a period, or without one."""

    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        usual = _shape(rng, "plateau", noise)
        shared = noise * rng.standard_normal(50)
        if kind == "shared noise, a period":
            shared += 6.0 * noise * np.sin(2.0 * math.pi * np.arange(50) / rng.uniform(4.0, 5.7))
        made = _made(rng, trials, 0.3 * noise, "even", lambda at, _: usual(at) + shared)
        return CurveCase(made, "periodic" if kind.endswith("period") else "none")

    return make


def late_variance_case(kind: str) -> Callable[[np.random.Generator, int, float], CurveCase]:
    """The trials lie many noises apart, or not, while every curve has spikes."""

    def make(rng: np.random.Generator, trials: int, noise: float) -> CurveCase:
        usual = _shape(rng, "plateau", noise)
        made = _made(rng, trials, noise, "spikes", lambda at, _: usual(at), alike=True)
        apart = noise * np.arange(trials) * (rng.uniform(1.0, 3.0) if kind.endswith("apart") else 0.01)
        curves = made.curves.assign(value=made.curves["value"] + apart[made.curves["trial"].to_numpy()])
        best = curves.groupby("trial")["value"].min().to_numpy()
        trials_table = made.trials.assign(best_value=best)
        return CurveCase(replace(made, trials=trials_table, curves=curves), "ok" if kind.endswith("apart") else "noisy")

    return make


Kinds = dict[str, Callable[[np.random.Generator, int, float], CurveCase]]
# By question: who answers, and the kinds with how a case of each is made.
QUESTIONS: Mapping[str, tuple[Callable[[StudyFrames], Finding], Kinds]] = {
    "best_steps": (best_steps_finding, best_step_kinds()),
    "improvement": (
        improvement_finding,
        {
            f"{disturbed}, {shape}": improvement_case(f"{disturbed}, {shape}")
            for disturbed in ("even", "clock", "spikes")
            for shape in ("plateau", "improving", "worse")
        },
    ),
    "overfitting": (
        overfitting_finding,
        {
            f"{disturbed}, {shape}": overfitting_case(f"{disturbed}, {shape}")
            for disturbed in ("even", "clock", "spikes", "growing", "correlated")
            for shape in ("rises", "stays")
        },
    ),
    "late_variance": (
        late_variance_finding,
        {kind: late_variance_case(kind) for kind in ("spikes, apart", "spikes, together")},
    ),
    "insensitivity": (
        insensitivity_finding,
        {
            f"{seeds}, {matters}": insensitivity_case(f"{seeds}, {matters}")
            for seeds in ("seeds as evaluations", "seeds five times")
            for matters in ("matters", "nothing")
        },
    ),
    "instability": (
        instability_finding,
        {kind: instability_case(kind) for kind in ("crashes anywhere", "edge", "edge and crashes")},
    ),
    "periodicity": (
        periodicity_finding,
        {kind: periodicity_case(kind) for kind in ("shared noise", "shared noise, a period")},
    ),
}


def curve_case(question: str, kind: str, seed: int, *, trials: int = 30, noise: float = 0.02) -> CurveCase:
    """The case of a seed."""
    make = QUESTIONS[question][1][kind]
    rng = np.random.default_rng([seed, trials, round(1000 * noise), *kind.encode(), *question.encode()])
    return make(rng, trials, noise)


def outcome(finding: Finding, case: CurveCase) -> str:
    """right, wrong or open. A claim that is stronger than its evidence is wrong; so is one where nothing is known."""
    if finding.verdict == case.truth:
        return "wrong" if case.weak and finding.strength != "weak" else "right"
    return "open" if finding.verdict in ("inconclusive", "undecided") else "wrong"


def rates(question: str, kind: str, seeds: range, *, trials: int = 30, noise: float = 0.02) -> dict[str, object]:
    """Of one kind: question, kind, truth, right, wrong, open (counts), and the wrong verdicts."""
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    truth = ""
    for seed in seeds:
        case = curve_case(question, kind, seed, trials=trials, noise=noise)
        found = QUESTIONS[question][0](case.frames)
        truth = f"{case.truth}{' (weak)' if case.weak else ''}"
        counts[outcome(found, case)] += 1
        if outcome(found, case) == "wrong":
            wrong[f"{found.verdict} {found.strength}"] += 1
    told = ", ".join(f"{count} {verdict}" for verdict, count in wrong.items())
    return {"question": question, "kind": kind, "truth": truth, "wrong verdicts": told} | {
        name: counts[name] for name in ("right", "wrong", "open")
    }


def interval(count: int, of: int) -> str:
    """Percent with the exact binomial interval of 95 %."""
    low = 0.0 if count == 0 else float(stats.beta.ppf(0.025, count, of - count + 1))
    high = 1.0 if count == of else float(stats.beta.ppf(0.975, count + 1, of - count))
    return f"{100 * count / of:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300, help="studies in each cell")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--noise", type=float, default=0.02)
    parser.add_argument("--tune", action="store_true", help="the seeds that statistics may be chosen by")
    parser.add_argument("--only", choices=list(QUESTIONS), nargs="*", default=list(QUESTIONS))
    given = parser.parse_args()
    first = TUNING_SEED if given.tune else TABLE_SEED
    for question in given.only:
        sys.stdout.write(
            f"\n### {question}\n\n| kind | right answer | wrong | undecided | wrong verdicts |\n|---|---|---|---|---|\n"
        )
        for kind in QUESTIONS[question][1]:
            seeds = range(first, first + given.studies)
            row = rates(question, kind, seeds, trials=given.trials, noise=given.noise)
            cells = [interval(int(str(row[name])), given.studies) for name in ("wrong", "open")]
            line = " | ".join([kind, str(row["truth"]), *cells, str(row["wrong verdicts"])])
            sys.stdout.write(f"| {line} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
