"""Does the objective still improve towards an edge of the search space? (B20)

Counting the best points near an edge gives false alarms for hyperparameters that do not matter and misses edges that
do (D39, F5). So the objective is fitted over all hyperparameters jointly, and an edge is judged at the best point of
the fit: by the gain from a little inside the edge to the edge itself, with the error of that gain.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.judged_trials import judged_trials, thinned
from tuner.analysis.noise import Array, granularity, rounding_noise
from tuner.analysis.ranges import Axis, axis_of
from tuner.analysis.replicates import replicate_spread
from tuner.analysis.response import Response, followed, ridges
from tuner.analysis.robust_response import robust_response
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Choice, Hyperparameter, Value, fulfils

OUTER = 0.10  # [P] the part of the range next to an edge
MINIMUM_TRIALS = 10  # [P] completed trials below which nothing is fitted
MINIMUM_POINTS = 4  # [P] different points below which nothing is fitted: a layer count has few, replicates add none
TRIALS_PER_DIMENSION = 2  # [P] different points for each dimension below which nothing is fitted
MINIMUM_EACH = 8  # [P] trials of a value of a choice that is judged by its own best point
FITTED_ALONE = 30  # [P] trials of a value that are fitted alone: the trials of other values may be noisier
REPLICATES_CONFIDENCE = 0.9  # [P] that the noise of replicates is no less than the least noise of the fit


RELATIVE = 0.001  # [P] of the best value: a smaller gain does not justify a wider range, unless `worth` is declared


@dataclass(frozen=True, slots=True)
class Worth:
    """The smallest gain that counts; `because` says where it comes from."""

    least: float
    because: str


def worth_of(frames: StudyFrames, values: Array) -> Worth:
    """From the declaration, else from the best value and the granularity of the metric.

    `values`: of the judged trials, minimized.
    """
    declared = frames.study.objective.worth
    if declared is not None:
        return Worth(declared, f"the {declared:g} that was declared to matter")
    least = RELATIVE * abs(float(values.min()))
    step = granularity(values)
    if step > least:
        return Worth(step, f"{step:.3g}, the smallest difference between two values of this metric")
    return Worth(least, f"{least:.3g}, {RELATIVE:.1%} of the best value")


class EdgeGain(NamedTuple):
    """At the best point of the fit, moved to an edge; the others follow where that surely pays.

    gain: of the edge over a little inside it, positive where the edge is better; error: its standard deviation.
    Both in standard deviations of the objective over the trials, with a long tail of bad trials pulled in.
    worse: by how many standard deviations the edge is worse than the best point itself. value_gain and value_error:
    gain and error in the unit of the metric. where: the value with a best of its own ("optimizer = sgd"), or "".
    """

    gain: float
    error: float
    worse: float
    value_gain: float
    value_error: float
    where: str = ""


UNKNOWN = EdgeGain(0.0, float("inf"), 0.0, 0.0, float("inf"))


@dataclass(slots=True)
class EdgeGains:
    """What a study shows about its edges. gains: by hyperparameter and edge, one for each value with a best of its own.

    partners: of a hyperparameter, those it makes up for along a ridge; set_aside: numbers of trials that are far worse
    than their neighbours; pruned: how many trials count by their rank when they were stopped; worth: the smallest gain
    that counts; span: by how much the values differ at most; few: of a hyperparameter, values with too few
    trials to be judged; members: the trials of each value that is judged.
    """

    gains: dict[tuple[str, str], list[EdgeGain]] = field(default_factory=dict)
    partners: dict[str, list[str]] = field(default_factory=dict)
    set_aside: set[int] = field(default_factory=set)
    judged: int = 0
    pruned: int = 0
    worth: Worth = field(default_factory=lambda: Worth(0.0, ""))
    span: float = float("nan")
    few: dict[str, list[str]] = field(default_factory=dict)
    members: dict[str, set[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Branch:
    """The trials in which a condition holds, as a matrix: one column a number and one an alternative of a choice."""

    rows: pd.DataFrame
    design: pd.DataFrame
    discrete: tuple[int, ...]
    asked: tuple[str, ...]


def axes_of(frames: StudyFrames) -> list[Axis]:
    """The hyperparameters whose values have an order, as declared."""
    return [axis for h in frames.study.hyperparameters if (axis := axis_of(h)) is not None]


def edge_gains(frames: StudyFrames) -> EdgeGains:
    """Of every hyperparameter with an order, and edge ("low", "high").

    The error is infinite where too few trials completed to fit anything. What exists in one branch only is
    fitted on the trials of that branch alone (B13, D46). What exists in all of them is judged separately for each value
    of a scientific hyperparameter, of one with branches and of the optimizer: each value has its own best point.
    """
    found, judged = EdgeGains(), judged_trials(frames)
    found.judged, found.pruned = len(judged), int(judged["pruned"].sum())
    values = judged["minimized"].to_numpy(dtype=np.float64)
    if len(values):
        found.worth, found.span = worth_of(frames, values), float(np.ptp(values))
    axes = axes_of(frames)
    least = _least_noise(frames, values)
    for condition in dict.fromkeys(axis.hyperparameter.condition for axis in axes):
        asked = [axis for axis in axes if axis.hyperparameter.condition == condition]
        exists = judged[asked[0].name].notna() if condition is not None else pd.Series(True, index=judged.index)
        _add_branch(found, frames, _branch(frames, thinned(judged[exists]), asked), least)
    return found


def _add_branch(found: EdgeGains, frames: StudyFrames, branch: _Branch, least: float) -> None:
    values = branch.rows["minimized"].to_numpy(dtype=np.float64)
    distinct, least_points = len(branch.design.drop_duplicates()), TRIALS_PER_DIMENSION * branch.design.shape[1]
    if len(values) < MINIMUM_TRIALS or distinct < max(MINIMUM_POINTS, least_points) or np.ptp(values) == 0.0:
        found.gains |= {(name, edge): [UNKNOWN] for name in branch.asked for edge in ("low", "high")}
        return
    response, kept = _fitted(branch, least)
    found.set_aside |= set(branch.rows.loc[~kept, "trial"].tolist())
    for where, fixed, trials in _separate_values(found, frames, branch, kept):
        alone = _alone(branch, trials)
        if alone is None:
            _add_edges(found, response, branch, where, fixed)
            continue
        own, rested = _fitted(alone, least)
        found.set_aside |= set(alone.rows.loc[~rested, "trial"].tolist())
        _add_edges(found, own, alone, where, {})


def _fitted(branch: _Branch, least: float) -> tuple[Response, NDArray[np.bool_]]:
    units = branch.design.to_numpy(dtype=np.float64)
    values = branch.rows["minimized"].to_numpy(dtype=np.float64)
    return robust_response(units, values, discrete=branch.discrete, least_noise=least)


def _alone(branch: _Branch, trials: set[int]) -> _Branch | None:
    """The trials of one value as a branch; None where they are too few, or do not differ in what is judged."""
    rows = branch.rows[branch.rows["trial"].isin(trials)]
    whole = branch.design.loc[rows.index]
    design = whole.loc[:, whole.max() > whole.min()]
    if len(rows) < FITTED_ALONE or len(rows) == len(branch.rows) or not set(branch.asked) <= set(design.columns):
        return None
    discrete = {branch.design.columns[place] for place in branch.discrete}
    return _Branch(rows, design, tuple(i for i, name in enumerate(design.columns) if name in discrete), branch.asked)


def _add_edges(found: EdgeGains, response: Response, branch: _Branch, where: str, fixed: Mapping[int, float]) -> None:
    best = response.minimizer(fixed)
    _add_ridges(found, response, best, branch)
    for name in branch.asked:
        place = int(branch.design.columns.get_loc(name))  # type: ignore[arg-type]
        for edge, inner, outer in (("low", OUTER, 0.0), ("high", 1.0 - OUTER, 1.0)):
            gain = _gain(response, best, (place, inner, outer), fixed)
            found.gains.setdefault((name, edge), []).append(gain._replace(where=where))


def _gain(response: Response, best: Array, places: tuple[int, float, float], fixed: Mapping[int, float]) -> EdgeGain:
    column, inner, outer = places
    inside = followed(response, best, {**fixed, column: inner})
    at_edge = followed(response, best, {**fixed, column: outer})
    gain, error = response.difference(inside, at_edge)
    lost, doubt = response.difference(at_edge, best)
    before, after = response.mean(np.vstack([inside, at_edge])).tolist()
    value_gain = response.scores.value(before) - response.scores.value(after)
    slope = abs(value_gain / (before - after)) if before != after else response.scores.slope(after)
    return EdgeGain(gain, error, lost / doubt, value_gain, error * slope)


def _add_ridges(found: EdgeGains, response: Response, best: Array, branch: _Branch) -> None:
    names = list(branch.design.columns)
    columns = [place for place in range(len(names)) if place not in branch.discrete]
    for one, other in ridges(response, best, columns):
        for name, partner in ((names[one], names[other]), (names[other], names[one])):
            if partner not in found.partners.setdefault(name, []):
                found.partners[name].append(partner)


def _separate_values(
    found: EdgeGains, frames: StudyFrames, branch: _Branch, kept: NDArray[np.bool_]
) -> Iterator[tuple[str, dict[int, float], set[int]]]:
    """The values that are judged by their own best, with the columns that hold them and all their trials.

    All trials at once where there are no such values, or none of them has enough trials.
    """
    split = [h for h in frames.study.hyperparameters if isinstance(h.domain, Choice) and _is_separate(frames, h)]
    split = [h for h in split if axis_of(h) is None and branch.rows[h.name].map(repr).nunique() > 1]
    any_separate = False
    names = list(branch.design.columns)
    for hyperparameter in split:
        rows = branch.rows[kept]
        texts = rows[hyperparameter.name].map(repr)
        for choice in hyperparameter.domain.choices:  # type: ignore[union-attr]
            where = f"{hyperparameter.name} = {choice}"
            if (texts == repr(choice)).sum() >= MINIMUM_EACH:
                found.members[where] = set(rows.loc[texts == repr(choice), "trial"].tolist())
                columns = {names.index(name): text for name, text in _alternatives(hyperparameter) if name in names}
                fixed = {place: float(text == repr(choice)) for place, text in columns.items()}
                of_value = branch.rows[hyperparameter.name].map(repr) == repr(choice)
                any_separate = True
                yield where, fixed, set(branch.rows.loc[of_value, "trial"].tolist())
            elif _can_be(frames, branch, hyperparameter, choice):
                for name in branch.asked:
                    found.few.setdefault(name, []).append(where)
    if not any_separate:
        yield "", {}, set()


def _can_be(frames: StudyFrames, branch: _Branch, hyperparameter: Hyperparameter, choice: Value) -> bool:
    """Whether the judged hyperparameters can exist together with a choice: momentum under sgd does not with adam."""
    one = next(h for h in frames.study.hyperparameters if h.name == branch.asked[0])
    condition = one.condition
    return condition is None or condition[0] != hyperparameter.name or fulfils(condition, choice)


def _is_separate(frames: StudyFrames, hyperparameter: Hyperparameter) -> bool:
    """Whether each value has its own best: the choice is scientific, has branches, or is the optimizer."""
    name = hyperparameter.name
    parents = {h.condition[0] for h in frames.study.hyperparameters if h.condition is not None}
    return name in frames.study.scientific or name in parents or hyperparameter.short_name in ("optimizer", "optim")


def _branch(frames: StudyFrames, rows: pd.DataFrame, asked: Sequence[Axis]) -> _Branch:
    """Positions in 0..1; what does not exist in all of the trials is 0.5 where it does not."""
    columns: dict[str, Array] = {}
    discrete: list[str] = []
    condition = asked[0].hyperparameter.condition
    for hyperparameter in frames.study.hyperparameters:
        if condition is not None and hyperparameter.condition not in (None, condition):
            continue
        axis = axis_of(hyperparameter)
        if axis is not None:
            columns[axis.name] = np.nan_to_num(axis.positions(rows[axis.name]), nan=0.5)
        else:
            made = _indicators(hyperparameter, rows[hyperparameter.name])
            columns |= made
            discrete += list(made)
    design = pd.DataFrame(columns, index=rows.index)
    places = tuple(list(columns).index(name) for name in discrete)
    return _Branch(rows, design, places, tuple(axis.name for axis in asked))


def _indicators(hyperparameter: Hyperparameter, column: pd.Series) -> dict[str, Array]:
    """One column for each alternative but the first, where it varies."""
    texts: Sequence[str] = column.map(repr).tolist()
    found = {}
    for name, alternative in _alternatives(hyperparameter):
        indicator = np.array([text == alternative for text in texts], dtype=np.float64)
        if indicator.size and np.ptp(indicator) > 0.0:
            found[name] = indicator
    return found


def _alternatives(hyperparameter: Hyperparameter) -> list[tuple[str, str]]:
    """The column and the text of every choice but the first."""
    choices = hyperparameter.domain.choices if isinstance(hyperparameter.domain, Choice) else ()
    return [(f"{hyperparameter.name}={choice!r}", repr(choice)) for choice in choices[1:]]


def _least_noise(frames: StudyFrames, values: Array) -> float:
    """The noise that is known, in the unit of the metric: of replicates, and of values that are multiples of a step."""
    rounded = rounding_noise(values)
    spread = replicate_spread(frames)
    if spread is None:
        return rounded
    high = float(stats.chi2.ppf(REPLICATES_CONFIDENCE, spread.freedom)) / spread.freedom
    return max(rounded, spread.sd / math.sqrt(high))
