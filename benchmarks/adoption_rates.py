"""How often `tuner adopt` is right on synthetic trials: `python benchmarks/adoption_rates.py --cases 20000`.

Three ways to an interval or a test, five replicates against five, over kinds of noise. Without a difference the rate of
ADOPT has to stay within (1 - level) / 2; with a difference of 2 standard deviations it has to be found in 80 %.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from tuner.analysis.replicates import welch_difference

Array = NDArray[np.float64]
Test = Callable[[Array, Array, float], bool]


def _skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return (rng.lognormal(0.0, 0.75, shape) - np.exp(0.75**2 / 2)) / 1.15


def _outliers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A seed in ten is bad by 5 standard deviations of the others."""
    return rng.standard_normal(shape) - 5.0 * (rng.random(shape) < 0.1)


NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails (t, 3)": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "skewed to the good": _skewed,
    "skewed to the bad": lambda rng, shape: -_skewed(rng, shape),
    "bad seeds": _outliers,
    "rounded to 1 sd": lambda rng, shape: np.round(rng.standard_normal(shape)),
}


def welch(candidate: Array, baseline: Array, level: float) -> bool:
    return welch_difference(candidate, baseline, level).low > 0.0


def permutation(candidate: Array, baseline: Array, level: float) -> bool:
    """One-sided: the share of the regroupings whose difference of means is at least as large."""
    whole = np.concatenate([candidate, baseline])
    chosen = np.array(list(combinations(range(len(whole)), len(candidate))))
    sums = whole[chosen].sum(axis=1)
    return bool(np.mean(sums >= sums[0] - 1e-12) <= (1 - level) / 2)


def ranks(candidate: Array, baseline: Array, level: float) -> bool:
    """The same with ranks in the place of values (Mann and Whitney); shared ranks are halved."""
    whole = np.concatenate([candidate, baseline])
    order = (whole[:, None] > whole).sum(1) + 0.5 * (whole[:, None] == whole).sum(1)
    return permutation(order[: len(candidate)], order[len(candidate) :], level)


TESTS: dict[str, Test] = {"welch": welch, "permutation": permutation, "ranks": ranks}


def adopted(
    test: Test, noise: str, *, cases: int, replicates: int = 5, shift: float = 0.0, spread: float = 1.0,
    level: float = 0.8, seed: int = 0,
) -> float:  # fmt: skip
    """The share of cases in which a candidate better by `shift` sd, with `spread` times the noise, is adopted."""
    rng = np.random.default_rng([seed, cases, replicates])
    baseline = NOISES[noise](rng, (cases, replicates))
    candidate = spread * NOISES[noise](rng, (cases, replicates)) + shift
    return float(np.mean([test(one, other, level) for one, other in zip(candidate, baseline, strict=True)]))


def rates(cases: int, level: float) -> pd.DataFrame:
    """Percent adopted: one row a noise and spread, without a difference and with one of 2 sd, for each test."""
    rows = []
    for noise in NOISES:
        for spread in (1.0, 3.0):
            row: dict[str, object] = {"noise": noise, "candidate's spread": spread}
            for name, test in TESTS.items():
                few = cases if name == "welch" else cases // 4
                for shift in (0.0, 2.0):
                    rate = adopted(test, noise, cases=few, shift=shift, spread=spread, level=level)
                    row[f"{name} {shift:g} sd"] = round(100 * rate, 1)
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=20_000)
    options.add_argument("--level", type=float, default=0.8)
    given = options.parse_args()
    print(
        f"percent adopted, 5 against 5, level {given.level:g}: at most {50 * (1 - given.level):g} without a difference"
    )
    print(rates(given.cases, given.level).to_string(index=False))


if __name__ == "__main__":
    main()
