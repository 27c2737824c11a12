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

    @property
    def trials(self) -> int:
        """How many complete trials it rests on."""
        return self.freedom + self.points


def replicate_groups(frames: StudyFrames, *, minimum: int = 2) -> list[tuple[int, ...]]:
    """The numbers of trials with equal points, ascending, for every point that at least `minimum` trials have.

    Trials of every state are in it. Equal means equal in value and type: 1, 1.0, True and "1" differ.
    """
    members: dict[tuple[str, ...], list[int]] = {}
    for number, key in zip(frames.trials["trial"].tolist(), _keys(frames.trials, frames.hyperparameters), strict=True):
        members.setdefault(key, []).append(int(number))
    return [tuple(group) for group in members.values() if len(group) >= minimum]


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


def _keys(trials: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The point of every trial as text that tells values of different types apart."""
    if not names:
        return [()] * len(trials)
    return list(zip(*([repr(value) for value in trials[name].tolist()] for name in names), strict=True))
