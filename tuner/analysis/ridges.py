"""Ridges: a diagonal valley, along which two hyperparameters make up for each other (learning rate and batch size).

Moved alone, each of them seems to have its best where the other happens to be. So an edge is judged where the others
follow, as far as following surely pays.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tuner.analysis.response import Response
from tuner.analysis.scores import Array

PAYS = 2.0  # [P] standard deviations, and
PAYS_AT_LEAST = 0.05  # [P] spreads by which the others must make it better to be moved
SHALLOW = 0.35  # [P] of what is lost by moving one alone is lost where the other follows: a ridge
LOST = 0.5  # [P] spreads that are lost by moving one alone: less is no slope that something could make up for
SURELY_LOST = 3.0  # [P] standard deviations of that loss
REACH, FAR = 0.4, 0.25  # [P] of the range by which one is moved; shorter ways, before an edge, show no ridge
FOLLOWS = 0.15  # [P] of the range by which the other moves
STEEP = 1.5  # [P] in 1 / ranges: the fit has a direction across, in which both count
_GRID = 41


def followed(response: Response, best: Array, held: Mapping[int, float]) -> Array:
    """`best` with the `held` columns where they have to be, the others moved where that surely pays."""
    alone = best.copy()
    for column, value in held.items():
        alone[column] = value
    other = response.minimizer(held, near=alone)
    gained, doubt = response.difference(alone, other)
    return other if gained > max(PAYS_AT_LEAST, PAYS * doubt) else alone


def ridges(response: Response, best: Array, columns: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of columns that make up for each other, each pair once, in order."""
    found: set[tuple[int, int]] = set()
    steep = [int(place) for place in np.flatnonzero(np.abs(response.across) >= STEEP)]
    if len(steep) == 2:
        found.add((steep[0], steep[1]))
    for column in columns:
        for place in (best[column] - REACH, best[column] + REACH):
            if abs(best[column] - np.clip(place, 0.0, 1.0)) < FAR:
                continue
            partner = _partner(response, best, column, float(np.clip(place, 0.0, 1.0)), columns)
            if partner is not None:
                found.add((min(column, partner), max(column, partner)))
    return sorted(found)


def _partner(response: Response, best: Array, column: int, place: float, columns: Sequence[int]) -> int | None:
    """The column that makes up for moving `column` to a place; None where there is none."""
    alone = best.copy()
    alone[column] = place
    lost, doubt = response.difference(alone, best)
    if lost < LOST or lost < SURELY_LOST * doubt:
        return None
    reached: dict[int, float] = {}
    for partner in columns:
        if partner == column:
            continue
        grid = np.repeat(alone[None, :], _GRID, axis=0)
        grid[:, partner] = np.linspace(0.0, 1.0, _GRID)
        moved = grid[np.argmin(response.mean(grid))]
        if abs(moved[partner] - best[partner]) >= FOLLOWS:
            gained, doubt = response.difference(alone, moved)
            if gained > PAYS * doubt:
                reached[partner] = _value_lost(response, moved, best)
    if not reached:
        return None
    partner = min(reached, key=lambda one: reached[one])
    return partner if reached[partner] <= SHALLOW * _value_lost(response, alone, best) else None


def _value_lost(response: Response, one: Array, best: Array) -> float:
    """By how much `one` is worse than `best`, in the unit of the metric."""
    value, least = (response.scores.value(score) for score in response.mean(np.vstack([one, best])).tolist())
    return value - least
