"""Logged curves, cleaned by rules (D13, D27, D33): each value that is left out is a note.

An empty cell was not measured, or it is how a tool writes the NaN of a run that diverged. Loggers put the metrics of
training and validation into rows of their own, and leave the other cells empty; pandas writes NaN as an empty cell.
Beside finite values an empty cell is no measurement. Where a curve ends in nothing but empty cells, both can be true,
and only the person who made the table knows.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tuner.design.objective import Objective
from tuner.errors import DeclarationError
from tuner.records import FinishedTrial, State
from tuner.shown import counted

LARGEST = 1e300
READINGS = ("not-measured", "diverged")
MOST = 0.5  # of the runs: where more curves end in empty cells, the reading decides what the study says


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended, as its curve shows it."""

    state: State
    reason: str
    step: int


def without_overflow(value: float) -> float:
    """The value, or infinity beyond LARGEST: such a loss diverged, and differences of such numbers are not finite."""
    return math.copysign(math.inf, value) if abs(value) > LARGEST else value


def without_repeats(curves: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The curves with one row a step: of a restarted run the row that was logged last counts (D33)."""
    keys = ["trial", "metric", "step"]
    repeated = curves.duplicated(keys, keep="last")
    if repeated.any():
        trials = curves.loc[repeated, "trial"].nunique()
        notes.append(
            f"{counted(int(repeated.sum()), 'repeated or rewound step')} in {counted(trials, 'trial')}: the row logged "
            "last is taken (D33)"
        )
    return curves[~repeated]


def interval_of(curves: pd.DataFrame) -> int:
    """The usual distance of evaluations in steps, at least 1: of each trial by its own steps, then their median.

    Without a column `trial` all rows are one trial's.
    """
    steps = np.asarray(curves["step"], dtype=np.int64)
    trials = np.asarray(curves["trial"]) if "trial" in curves else np.zeros(len(steps), dtype=np.int64)
    order = np.lexsort((steps, trials))
    gaps = pd.DataFrame({"trial": trials[order][1:], "gap": np.diff(steps[order])})
    gaps = gaps[(np.diff(trials[order]) == 0) & (gaps["gap"].to_numpy() > 0)]
    return max(1, int(gaps.groupby("trial")["gap"].median().median())) if len(gaps) else 1


def reach_of(steps: ArrayLike, interval: int) -> int:
    """How many steps after its last evaluation a trial may have gone on without another one (D13).

    By its own evaluations: the largest distances that are usual among them, as those by the clock vary; of a trial that
    was evaluated once `interval`, the usual distance in its study.
    """
    gaps = np.diff(np.unique(np.asarray(steps, dtype=np.int64)))
    if not len(gaps):
        return interval
    return max(1, math.ceil(min(float(np.quantile(gaps, 0.9)), 2.0 * float(np.median(gaps)))))


def ends_by_curve(
    curves: pd.DataFrame, objective: Objective, max_train_steps: int, interval: int
) -> Mapping[int, Ended]:
    """How each trial with a curve of the objective ended: COMPLETE, INFEASIBLE (its last value is not finite) or
    CANCELLED (it stopped more than one of its own evaluations short of the budget, D13; `interval`: of a trial that was
    evaluated once).
    """
    mine = curves[curves["metric"] == objective.metric].sort_values(["trial", "step"], kind="stable")
    ends: dict[int, Ended] = {}
    for trial, curve in mine.groupby("trial"):
        last, value = int(curve["step"].iloc[-1]), float(curve["value"].iloc[-1])
        if not np.isfinite(value):
            bad = ~np.isfinite(curve["value"].to_numpy())
            first = int(curve["step"].iloc[len(bad) - int(np.argmin(bad[::-1])) if not bad.all() else 0])
            ends[int(str(trial))] = Ended(State.INFEASIBLE, f"diverged: not finite from step {first} on", last)
        elif last + reach_of(curve["step"], interval) < max_train_steps:
            reason = f"cut short: last measured at step {last} of {max_train_steps}"
            ends[int(str(trial))] = Ended(State.CANCELLED, reason, last)
        else:
            ends[int(str(trial))] = Ended(State.COMPLETE, "", last)
    return ends


def note_ends(
    ends: Mapping[int, Ended], by_curve: Mapping[int, Ended], curves: pd.DataFrame, objective: Objective
) -> list[str]:
    """Add a note for each rule about how trials ended; `by_curve`: how their curves alone would decide."""
    states = [end.state for end in ends.values()]
    whole = [trial for trial, end in ends.items() if end.state is State.COMPLETE]
    short = sum(trial in by_curve and by_curve[trial].state is State.CANCELLED for trial in whole)
    mine = curves[(curves["metric"] == objective.metric) & curves["trial"].isin(whole)]
    holes = mine.loc[~np.isfinite(mine["value"].to_numpy()), "trial"].nunique()
    notes = [
        (states.count(State.CANCELLED), "trial", "did not reach the end (stopped, or still running when the table was "
         "written): cancelled, and no verdict speaks about cancelled trials (D13)"),
        (states.count(State.INFEASIBLE), "infeasible trial", "ended without a finite value, or by the state in the "
         "points (D27)"),
        (short, "trial", "ended before the budget by the curves, and completed by the state in the points"),
        (holes, "complete trial", "had values on the way that are not finite; these are passed over (D27)"),
        (sum(trial not in by_curve for trial in ends), "trial", f"recorded no curve of {objective.metric}: failed, "
         "unless the points give another state"),
    ]  # fmt: skip
    return [f"{counted(count, noun)} {told}" for count, noun, told in notes if count] + _by_epochs(
        by_curve, curves, objective
    )


def _by_epochs(by_curve: Mapping[int, Ended], curves: pd.DataFrame, objective: Objective) -> list[str]:
    """Add a note where trials seem cut short but were evaluated as often: once an epoch, other batch sizes."""
    mine = curves[(curves["metric"] == objective.metric) & np.isfinite(curves["value"])]
    count = mine.groupby("trial")["step"].nunique()
    short = [trial for trial, end in by_curve.items() if end.state is State.CANCELLED and trial in count.index]
    whole = [trial for trial, end in by_curve.items() if end.state is State.COMPLETE and trial in count.index]
    if not short or not whole:
        return []
    usual = int(count[whole].median())
    alike = int((count[short] == usual).sum())
    if usual < 2 or alike * 2 <= len(short):
        return []
    return [
        f"{alike} of the trials that end early were evaluated {usual} times, as those that reach the end: where each "
        "trained for the same number of epochs, import their steps as epochs: --step-column epoch"
    ]


def schedule_by_curve(curves: pd.DataFrame, metrics: tuple[str, ...]) -> str | None:
    """The schedule, constant or decaying, from a logged learning rate; None without one."""
    mine = curves[curves["metric"].isin(metrics) & np.isfinite(curves["value"])]
    if mine.empty:
        return None
    ordered = mine.sort_values(["trial", "step"], kind="stable").groupby("trial")["value"]
    fraction = ordered.last() / ordered.max()
    return "constant" if bool((fraction > 0.99).all()) else "decaying"


def note_replicates(trials: Sequence[FinishedTrial]) -> list[str]:
    """Add a note about replicates, which have equal configurations, and copies, which also have equal curves."""
    points = Counter(repr(one.trial.point.values_by_name) for one in trials)
    several = [count for count in points.values() if count > 1]
    if not several:
        return []
    told = (
        f"{sum(several)} trials share {counted(len(several), 'point')} and count as replicates (the most of one point: "
        f"{max(several)}); `tuner adopt` compares points that have 3 or more"
    )
    seen = Counter(
        (repr(one.trial.point.values_by_name), tuple((m.step, m.metric, repr(m.value)) for m in one.measurements))
        for one in trials
        if points[repr(one.trial.point.values_by_name)] > 1 and one.measurements
    )
    copies = sum(count - 1 for count in seen.values())
    if not copies:
        return [told]
    return [told, f"{counted(copies, 'replicate')} repeated another to the last bit: copies of one run, or of one seed"]


def without_empty(
    curves: pd.DataFrame, metric: str, reading: str | None, notes: list[str], *, known: bool = False
) -> pd.DataFrame:
    """`curves` (run, step, metric, value, empty) without its empty cells; those that mean a divergence become NaN.

    `metric` is the one that selects. `reading`: one of READINGS, or None for where nobody said. `known`: a logger
    wrote the table that writes nan where it means it. Raises DeclarationError where only the user can know.
    """
    if reading is not None and reading not in READINGS:
        raise DeclarationError(f"--empty is one of {', '.join(READINGS)}, got {reading!r:.80}")
    empty = curves["empty"].to_numpy(dtype=bool)
    if not empty.any():
        return curves
    ending = _ending(curves) & ~(known and reading is None)
    mine = curves["metric"] == metric
    doubtful = curves.loc[ending & mine, "run"].nunique()
    if reading is None and doubtful > MOST * curves.loc[mine, "run"].nunique():
        raise DeclarationError(
            f"{doubtful} of {curves.loc[mine, 'run'].nunique()} curves of {metric} end in empty cells, and an empty "
            "cell can mean that nothing was measured or that the value was NaN; say which: --empty not-measured or "
            "--empty diverged"
        )
    diverged = ending if reading == "diverged" else ending & False
    dropped = curves["empty"] & ~diverged
    if dropped.any():
        notes.append(f"{counted(int(dropped.sum()), 'empty cell')} left out, as not measured")
    if diverged.any():
        notes.append(
            f"{counted(int(diverged.sum()), 'empty cell')} at the ends of curves taken as NaN (--empty diverged)"
        )
    elif doubtful and reading is None:
        notes.append(
            f"the curves of {counted(doubtful, 'trial')} end in empty cells, taken as not measured; --empty diverged "
            "takes such cells as NaN"
        )
    return curves[~dropped].reset_index(drop=True)


def _ending(curves: pd.DataFrame) -> pd.Series:
    """The empty cells with which a curve ends although it was due: at least one of its own intervals after its last
    value, while nothing else of the run was measured to be finite.
    """
    keys = [curves["run"], curves["metric"]]
    measured = curves["step"].where(~curves["empty"])
    last = measured.groupby(keys).transform("max").fillna(-1)
    interval = _longest_gap(curves)
    due = last + interval
    alive = curves["step"].where(np.isfinite(curves["value"])).groupby(curves["run"]).transform("max").fillna(-1)
    farthest = curves["step"].where(curves["empty"]).groupby(keys).transform("max")
    return curves["empty"] & (curves["step"] > last) & (farthest >= due) & (alive < due)


def _longest_gap(curves: pd.DataFrame) -> pd.Series:
    """For every row the longest distance of measurements of its curve; that of the metric where it has only one."""
    there = curves[~curves["empty"]].sort_values("step", kind="stable")
    gaps = there.groupby(["run", "metric"])["step"].diff()
    longest = gaps.groupby([there["run"], there["metric"]]).max().rename("gap").reset_index()
    of_metric = longest.groupby("metric")["gap"].median().rename("usual")
    found = curves[["run", "metric"]].merge(longest, how="left", on=["run", "metric"])
    gap = found["gap"].fillna(found["metric"].map(of_metric)).fillna(1.0)
    return pd.Series(gap.to_numpy(), index=curves.index)
