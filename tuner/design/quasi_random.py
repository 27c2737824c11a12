"""Where the points of an exploration come from: a scrambled low-discrepancy sequence.

A point is a function of (space, seed, index). So one worker, eight workers and a resumed launch train the same points,
and more points have the next indices (B17, D35, D36).
"""

import numpy as np
from scipy.stats import qmc

from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.space import SearchSpace


def quasi_random_points(space: SearchSpace, *, seed: int, start: int, count: int) -> tuple[Point, ...]:
    """Points `start`..`start + count - 1` of the scrambled Halton sequence of (space, seed).

    The bases are small primes, scrambled by the seed: at any count the points are more even than random ones.
    """
    if len(space) == 0:
        return tuple(Point.of(space.values_at(())) for _ in range(count))
    names = [hyperparameter.name for hyperparameter in space]
    rng = np.random.default_rng(derived_seed("points", seed, *names))
    sequence = qmc.Halton(len(space), scramble=True, rng=rng)
    sequence.fast_forward(start)
    units = sequence.random(count) if count else np.empty((0, len(space)))
    return tuple(Point.of(space.values_at(tuple(map(float, row)))) for row in units)
