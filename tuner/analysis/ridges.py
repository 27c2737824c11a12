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
FAR = 0.25  # [P] of the range: shorter ways show no ridge
FOLLOWS = 0.15  # [P] of the range by which the other moves
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
    for column in columns:
        for edge in (0.0, 1.0):
            if abs(best[column] - edge) < FAR:
                continue
            partner = _partner(response, best, column, edge, columns)
            if partner is not None:
                found.add((min(column, partner), max(column, partner)))
    return sorted(found)


def _partner(response: Response, best: Array, column: int, edge: float, columns: Sequence[int]) -> int | None:
    """The column that makes up for moving `column` to an edge; None where there is none."""
    alone = best.copy()
    alone[column] = edge
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
                reached[partner] = lost - gained
    if not reached:
        return None
    partner = min(reached, key=lambda one: reached[one])
    return partner if reached[partner] <= SHALLOW * lost else None
