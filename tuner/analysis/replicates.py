"""Trials of equal points are replicates: what differs between them is the luck of a run, and nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.analysis.study_frames import StudyFrames


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard deviation of the best value between replicates, pooled over the points that have several.

    `sd` is in the units of the metric; `freedom` is its degrees of freedom (each point of n trials gives n - 1).
    """

    sd: float
    freedom: int
    points: int


def replicate_groups(frames: StudyFrames, *, minimum: int = 2) -> list[tuple[int, ...]]:
    """The numbers of trials with equal points, ascending, for every point that at least `minimum` trials have.

    Trials of every state are in it. Equal means equal in value and type: 1, 1.0, True and "1" differ.
    """
    members: dict[tuple[str, ...], list[int]] = {}
    for number, key in zip(frames.trials["trial"].tolist(), _keys(frames.trials, frames.hyperparameters), strict=True):
        members.setdefault(key, []).append(int(number))
    return [tuple(group) for group in members.values() if len(group) >= minimum]


def replicates_of(frames: StudyFrames, trial: int) -> tuple[int, ...]:
    """The trials with the same point as `trial`, itself among them; empty where there is no such trial."""
    groups = replicate_groups(frames, minimum=1)
    return next((group for group in groups if trial in group), ())


def replicate_spread(frames: StudyFrames) -> Spread | None:
    """How far complete trials of equal points lie apart; None where no point has two complete trials.

    A point whose trials all have the same best value to the last bit is left out: these are copies of one run, or runs
    of one seed, and show nothing about luck.
    """
    values = frames.complete.set_index("trial")["best_value"]
    squares, freedom, points = 0.0, 0, 0
    for group in replicate_groups(frames):
        mine = values.reindex(group).dropna().to_numpy(dtype=np.float64)
        if len(mine) < 2 or (mine == mine[0]).all():
            continue
        squares += float(((mine - mine.mean()) ** 2).sum())
        freedom += len(mine) - 1
        points += 1
    return Spread(math.sqrt(squares / freedom), freedom, points) if freedom else None


def one_of_each(frames: StudyFrames) -> pd.DataFrame:
    """The complete trials with one row for each point: its first trial, with the mean `best_value` of its replicates.

    Columns as in `frames.complete`, and `replicates`, the number of complete trials of the point. What counts points
    (a fit over the space, how many points are good) counts these rows: five runs of one point are one point.
    """
    complete = frames.complete.reset_index(drop=True)
    keys = pd.Series(_keys(complete, frames.hyperparameters), index=complete.index, dtype=object)
    code = pd.Series(pd.factorize(keys)[0], index=complete.index)
    first = ~code.duplicated()
    means = complete["best_value"].groupby(code).mean()
    counts = code.value_counts()
    return (
        complete[first]
        .assign(best_value=means.reindex(code[first]).to_numpy(), replicates=counts.reindex(code[first]).to_numpy())
        .reset_index(drop=True)
    )


def _keys(trials: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The point of every trial as text that tells values of different types apart."""
    if not names:
        return [()] * len(trials)
    return list(zip(*([repr(value) for value in trials[name].tolist()] for name in names), strict=True))
