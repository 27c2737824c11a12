"""Does the objective still improve towards an edge of the search space? (B20)

Counting the best points near an edge fires on hyperparameters that do not matter and misses edges that do (D39,
F5). So the objective is fitted over all hyperparameters jointly, and an edge is judged at the best point of the
fit: by what is gained between a little inside the edge and the edge itself, with the error of that gain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tuner.analysis.positions import unit_positions
from tuner.analysis.pruned import with_pruned
from tuner.analysis.response import Array, fitted_response
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Choice, Condition, Hyperparameter, Range

OUTER = 0.10  # [P] the part of the range next to an edge
BEST, SPREAD = 100, 100  # [P] at most so many trials are fitted: the best, and others spread over the ranking
MINIMUM_TRIALS = 10  # [P] completed trials below which nothing is fitted
TRIALS_PER_DIMENSION = 2  # [P] nor below this many for each dimension


class EdgeGain(NamedTuple):
    """At the best point of the fit, moved to an edge.

    gain: of the edge over a little inside it, positive where the edge is better; error: its standard deviation.
    Both in spreads: standard deviations of the objective over the trials, a long tail of bad ones pulled in.
    worse: by how many standard deviations the edge is worse than the best point itself.
    """

    gain: float
    error: float
    worse: float


_UNKNOWN = EdgeGain(0.0, float("inf"), 0.0)


def edge_gains(frames: StudyFrames) -> dict[tuple[str, str], EdgeGain]:
    """By numeric hyperparameter and edge ("low", "high").

    The error is infinite where too few trials completed to fit anything. What exists in one branch only is
    fitted on the trials of that branch alone (B13, D46).
    """
    found: dict[tuple[str, str], EdgeGain] = {}
    ranked = with_pruned(frames)
    conditions = {h.condition: None for h in frames.study.hyperparameters}
    for condition in conditions:
        rows = ranked[frames.where(ranked, condition)]
        found |= _branch_gains(frames, _thinned(rows), condition)
    return found


def _branch_gains(
    frames: StudyFrames, rows: pd.DataFrame, condition: Condition | None
) -> dict[tuple[str, str], EdgeGain]:
    numeric = [h for h in frames.study.hyperparameters if isinstance(h.domain, Range)]
    asked = [h.name for h in numeric if h.condition == condition]
    design = _design(frames, rows, condition)
    values = rows["best_value"].to_numpy(dtype=np.float64)
    found = {(name, edge): _UNKNOWN for name in asked for edge in ("low", "high")}
    if len(rows) < max(MINIMUM_TRIALS, TRIALS_PER_DIMENSION * design.shape[1]) or np.ptp(values) == 0.0:
        return found
    response = fitted_response(
        design.to_numpy(dtype=np.float64), values if frames.study.objective.direction == "minimize" else -values
    )
    best = response.minimizer()
    for name in asked:
        place = design.columns.get_loc(name)
        for edge, inner, outer in (("low", OUTER, 0.0), ("high", 1.0 - OUTER, 1.0)):
            inside, at_edge = best.copy(), best.copy()
            inside[place], at_edge[place] = inner, outer
            lost, doubt = response.difference(at_edge, best)
            found[name, edge] = EdgeGain(*response.difference(inside, at_edge), lost / doubt)
    return found


def _design(frames: StudyFrames, rows: pd.DataFrame, condition: Condition | None) -> pd.DataFrame:
    """Positions in 0..1, one column a number and one an alternative of a choice; what does not exist is 0.5."""
    columns: dict[str, Array] = {}
    for hyperparameter in frames.study.hyperparameters:
        if _relevant(hyperparameter, condition):
            column = rows[hyperparameter.name]
            if isinstance(hyperparameter.domain, Range):
                columns[hyperparameter.name] = np.nan_to_num(unit_positions(column, hyperparameter.domain), nan=0.5)
            else:
                columns |= _indicators(hyperparameter.name, hyperparameter.domain, column)
    return pd.DataFrame(columns, index=rows.index)


def _relevant(hyperparameter: Hyperparameter, condition: Condition | None) -> bool:
    return condition is None or hyperparameter.condition in (None, condition)


def _indicators(name: str, domain: Choice, column: pd.Series) -> dict[str, Array]:
    """One column for each alternative but the first, where it varies."""
    texts: Sequence[str] = column.map(repr).tolist()
    found = {}
    for choice in domain.choices[1:]:
        indicator = np.array([text == repr(choice) for text in texts], dtype=np.float64)
        if indicator.size and np.ptp(indicator) > 0.0:
            found[f"{name}={choice!r}"] = indicator
    return found


def _thinned(ranked: pd.DataFrame) -> pd.DataFrame:
    if len(ranked) <= BEST + SPREAD:
        return ranked
    others = np.linspace(BEST, len(ranked) - 1, SPREAD).round().astype(int)
    return ranked.iloc[np.concatenate([np.arange(BEST), others])]
