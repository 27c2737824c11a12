"""Curves that can be compared evaluation by evaluation, wherever each trial was evaluated.

Where trials share their steps, these are the evaluations as they are. Where each trial was evaluated at its own steps
(by the clock, or once an epoch with the batch size searched), every curve is brought to common shares of the budget:
the mean of its evaluations in each share, or the line between them where there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.analysis.noise import Array, noise_of, rounding_noise
from tuner.analysis.study_frames import TOP, StudyFrames, ranked_results, ranked_trials
from tuner.budget.step_budget import MINIMUM_EVALUATIONS
from tuner.design.objective import Objective, metric_from

MOST_SHARES = 200  # [P] of the budget; more evaluations are averaged
MISSED = 0.1  # [P] of its evaluations: a trial that lacks more was evaluated at its own steps
NEAR = 2.0  # [P] times the distance of its evaluations: so far beyond them a curve keeps its last value


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The curves of some trials (rows) at common steps (columns), negated where the objective is maximized.

    steps: [columns] ascending; the end of each share of the budget where trials have different steps.
    at: [columns] where the values were measured: `steps`, or on average in each share.
    values: [trials, columns]; NaN where a value is not finite, or nothing was measured.
    noise: [trials] of one column, NaN where it is not known; at least what the granularity of the metric hides (an
        accuracy that stays on one step is not known more exactly). evaluation_noise: [trials] of one evaluation, which
        is more where a column is the mean of several.
    evaluations: [trials] how many finite values were measured. last: [trials] the step of the last of them, or NaN.
    own_steps: whether each trial was evaluated at its own steps.
    """

    steps: Array
    at: Array
    values: Array
    noise: Array
    evaluation_noise: Array
    evaluations: NDArray[np.intp]
    last: Array
    own_steps: bool

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """The trials with enough evaluations to resolve the first part of the budget (D14)."""
        enough = self.evaluations >= MINIMUM_EVALUATIONS
        return enough if self.own_steps else np.full(len(self.values), True)

    @property
    def whole(self) -> NDArray[np.bool_]:
        """The trials with a finite value at every step."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def rows(self, chosen: NDArray[np.bool_]) -> "Curves":
        """The curves of some of the trials, at the same steps."""
        parts = (self.noise[chosen], self.evaluation_noise[chosen], self.evaluations[chosen], self.last[chosen])
        return Curves(self.steps, self.at, self.values[chosen], *parts, self.own_steps)


def common_curves(
    frames: StudyFrames, trials: Sequence[int] | pd.Series, metric: str | None = None, *, steps: Array | None = None
) -> Curves:
    """The curves of `trials`, rows in their order: of the objective's metric, or another one of its direction.

    Only evaluations at equal distances: a share of the columns is a share of the budget. `steps`: those of another
    metric that these curves are to be compared with.
    """
    numbers = np.asarray(trials, dtype=np.int64)
    key = ("common_curves", metric, numbers.tobytes(), None if steps is None else steps.tobytes())
    found = frames.memo.get(key)
    if not isinstance(found, Curves):
        found = frames.memo[key] = _common_curves(frames, numbers, metric, steps)
        for values in (found.values, found.noise, found.evaluation_noise):
            values.flags.writeable = False  # several questions share them
    return found


def _common_curves(frames: StudyFrames, numbers: NDArray[np.int64], metric: str | None, steps: Array | None) -> Curves:
    objective, curves, budget = frames.study.objective, frames.curves, frames.study.budget
    places, rows = _rows_of(frames, numbers, metric or objective.metric)
    if budget.early:
        even = np.isin(curves["step"].to_numpy()[rows], budget.even_steps)
        places, rows = places[even], rows[even]
    values = curves["value"].to_numpy(dtype=np.float64)[rows]
    values = np.where(np.isfinite(values), values, np.nan)
    measured = _Measured(
        len(numbers),
        places,
        curves["step"].to_numpy(dtype=np.float64)[rows],
        values if objective.direction == "minimize" else -values,
    )
    own, columns = np.unique(measured.steps, return_inverse=True)
    shared = _share_steps(measured, columns) and (steps is None or np.array_equal(own, steps))
    if shared:
        matrix = np.full((len(numbers), len(own)), np.nan)
        matrix[measured.places, columns] = measured.values
        noise = np.maximum(noise_of(matrix), rounding_noise(matrix))
        return Curves(own, own, matrix, noise, noise, *_counted(measured), own_steps=False)
    return _at_shares(measured, float(budget.max_train_steps), steps)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Evaluations of some trials, one after the other: the place of the trial, the step, the value."""

    trials: int
    places: NDArray[np.intp]
    steps: Array
    values: Array

    def bounds(self) -> NDArray[np.intp]:
        """Where the evaluations of each trial begin, and where the last one's end."""
        return np.searchsorted(self.places, np.arange(self.trials + 1))


def _share_steps(measured: _Measured, columns: NDArray[np.intp]) -> bool:
    """Whether most trials were evaluated at every step at which any was, up to their last, and none lacks many.

    `columns`: the place of each evaluation among all steps.
    """
    counts = np.bincount(measured.places, minlength=measured.trials)
    due = np.zeros(measured.trials, dtype=np.intp)
    np.maximum.at(due, measured.places, columns + 1)
    there = counts > 0
    missed = (due - counts)[there]
    return bool((missed == 0).mean() > 0.5 and (missed <= MISSED * due[there]).all()) if there.any() else True


def _counted(measured: _Measured) -> tuple[NDArray[np.intp], Array]:
    finite = np.isfinite(measured.values)
    counts = np.bincount(measured.places[finite], minlength=measured.trials)
    last = np.full(measured.trials, np.nan)
    last[measured.places[finite]] = measured.steps[finite]  # of each trial the last one stays
    return counts, last


def _at_shares(measured: _Measured, budget: float, steps: Array | None) -> Curves:
    """Curves at shares of the budget: as many as the evaluations of the median trial that has enough of them."""
    counts, last = _counted(measured)
    if steps is None:
        enough = counts[counts >= MINIMUM_EVALUATIONS]
        few = int(np.median(enough if len(enough) else counts[counts > 0])) if counts.any() else 0
        number = min(few, MOST_SHARES)
        steps = budget * np.arange(1, number + 1) / max(number, 1)
    at = _centers(measured.steps[np.isfinite(measured.values)], steps)
    values = np.full((measured.trials, len(steps)), np.nan)
    raw, noise = np.full(measured.trials, np.nan), np.full(measured.trials, np.nan)
    bounds, least = measured.bounds(), rounding_noise(measured.values)
    for place in range(measured.trials if len(steps) else 0):
        part = slice(bounds[place], bounds[place + 1])
        known = np.isfinite(measured.values[part])
        mine, curve = measured.steps[part][known], measured.values[part][known]
        if len(mine):
            values[place] = _averaged(mine, curve, steps, at)
            raw[place] = np.maximum(noise_of(curve[None, :], mine)[0], least)
            noise[place] = raw[place] / np.sqrt(max(1.0, len(mine) / len(steps)))
    return Curves(steps, at, values, noise, raw, counts, last, own_steps=True)


def _centers(measured: Array, steps: Array) -> Array:
    """The mean step of all evaluations in each share, or its middle where there is none."""
    if not len(steps):
        return steps
    cells = np.minimum(np.searchsorted(steps, measured - 1e-9), len(steps) - 1)
    counts = np.bincount(cells, minlength=len(steps))
    total = np.bincount(cells, weights=measured, minlength=len(steps))
    middles = (np.concatenate([[0.0], steps[:-1]]) + steps) / 2.0
    return np.asarray(np.where(counts > 0, total / np.maximum(counts, 1), middles))


def _averaged(mine: Array, curve: Array, steps: Array, at: Array) -> Array:
    """The mean of a curve's evaluations in each share, or the line between them; NaN far outside of them."""
    cells = np.minimum(np.searchsorted(steps, mine - 1e-9), len(steps) - 1)
    counts = np.bincount(cells, minlength=len(steps))
    total = np.bincount(cells, weights=curve, minlength=len(steps))
    means = np.where(counts > 0, total / np.maximum(counts, 1), np.interp(at, mine, curve))
    near = NEAR * (float(np.median(np.diff(mine))) if len(mine) > 1 else 0.0)
    outside = (counts == 0) & ((steps < mine[0] - near) | (at > mine[-1] + near))
    return np.asarray(np.where(outside, np.nan, means))


def _rows_of(frames: StudyFrames, trials: NDArray[np.int64], metric: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the measurements of a metric of some trials are: the place of the trial among them, and the row."""
    sorted_trials = frames.curves["trial"].to_numpy()
    starts, ends = (np.searchsorted(sorted_trials, trials, side=side) for side in ("left", "right"))
    counts = ends - starts
    places = np.repeat(np.arange(len(trials)), counts)
    # Of each trial one row after the other: the start of its rows, and how many of them came before.
    rows = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    of_metric = (frames.curves["metric"].iloc[rows] == metric).to_numpy()
    return places[of_metric], rows[of_metric]


def pruned_curves_frame(frames: StudyFrames, *, most: int = 40) -> pd.DataFrame:
    """The validation curves of `most` pruned trials, as rows of `top_curves_frame` without a rank."""
    name, _, validation = _selecting(frames)
    trials = frames.pruned["trial"].head(most)
    curves = frames.curves[(frames.curves["metric"] == validation) & frames.curves["trial"].isin(trials)]
    table = curves.assign(rank=pd.array([pd.NA] * len(curves), "Int64"), split="pruned", metric=name, chosen=False)
    return table[["rank", "trial", "split", "metric", "step", "value", "chosen"]].reset_index(drop=True)


def top_curves_frame(frames: StudyFrames, *, top: int = TOP) -> pd.DataFrame:
    """Training and validation curves of the `top` best trials.

    Columns: rank (1 is best), trial, split, metric (without its split), step, value, chosen (the step that
    retrospective selection picked). Only the metric that selects, on both splits. Where one of the trials stopped
    early there is also stopped: the step at which it did, <NA> for those that did not.
    """
    best = ranked_results(frames).head(top)
    name, *metrics = _selecting(frames)
    curves = frames.curves[frames.curves["metric"].isin(metrics)]
    places = pd.DataFrame({"trial": best["trial"], "rank": range(1, len(best) + 1), "best_step": best["best_step"]})
    table = places.merge(curves, on="trial")
    table["split"] = table["metric"].astype(str).map(lambda text: metric_from(text).split)
    table["metric"] = name
    table["chosen"] = table["step"] == table["best_step"]
    columns = ["rank", "trial", "split", "metric", "step", "value", "chosen"]
    ends = best.loc[frames.stopped_early(best), ["trial", "steps"]].set_index("trial")["steps"]
    if len(ends):
        table["stopped"] = table["trial"].map(ends).astype("Int64")
        columns.append("stopped")
    return table[columns].sort_values(["rank", "split", "step"]).reset_index(drop=True)


def _selecting(frames: StudyFrames) -> tuple[str, str, str]:
    """The name of the selecting metric, and the metric on the training and on the validation split."""
    metric = frames.study.objective.measured
    return metric.name, str(metric.on("training")), str(metric.on("validation"))


MINIMUM_CURVE = 3  # evaluations below which there is no curve


def split_metrics(objective: Objective) -> tuple[str, str]:
    """The selecting metric on the training and on the validation split."""
    return str(objective.measured.on("training")), str(objective.measured.on("validation"))


def unreported(frames: StudyFrames) -> str:
    """What to report besides, where the selecting metric was recorded on one split only; follows a sentence."""
    training, validation = split_metrics(frames.study.objective)
    if training in frames.metrics or validation not in frames.metrics:
        return ""
    return f": {training} was not recorded; report it beside {validation}, at every evaluation"


def has_curves(frames: StudyFrames) -> bool:
    """Whether any trial that ran its whole budget was evaluated often enough to have a curve of the objective.

    Of a study with early stopping none counts: those that did not stop are just the ones that still improved late.
    """
    if frames.stops_early:
        return False
    mine = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
    counts = mine.groupby("trial").size()
    return bool((counts.reindex(frames.complete["trial"]).fillna(0) >= MINIMUM_CURVE).any())


def best_with(frames: StudyFrames, metric: str, *, top: int) -> tuple[pd.DataFrame, Curves]:
    """The best completed trials that have `metric` over the whole run, with their curves in the same order.

    Curves have the sign of the objective: less is better.
    """
    ranked = ranked_trials(frames).head(top)
    curves = common_curves(frames, ranked["trial"], metric)
    enough = curves.steps.size >= MINIMUM_CURVE
    there = curves.whole if enough else np.full(len(ranked), False)
    return ranked[there].reset_index(drop=True), curves.rows(there)
