"""Curves as they were logged, made curves by rule (D13, D27, D33): nothing is dropped in silence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.design.objective import Objective
from tuner.records import State


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended, by its curve."""

    state: State
    reason: str
    step: int


def without_repeats(curves: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Of a step that was measured more than once the row that was logged last holds: a restarted run (D33)."""
    keys = ["trial", "metric", "step"]
    repeated = curves.duplicated(keys, keep="last")
    if repeated.any():
        trials = curves.loc[repeated, "trial"].nunique()
        notes.append(
            f"{int(repeated.sum())} repeated or rewound steps in {trials} trials: the row logged last holds (D33)"
        )
    return curves[~repeated]


def interval_of(curves: pd.DataFrame) -> int:
    """The usual distance of evaluations in steps, at least 1."""
    steps = np.sort(curves["step"].unique())
    return max(1, int(np.median(np.diff(steps)))) if len(steps) > 1 else 1


def ends_by_curve(
    curves: pd.DataFrame, objective: Objective, max_train_steps: int, interval: int
) -> Mapping[int, Ended]:
    """How each trial with a curve of the objective ended: COMPLETE, INFEASIBLE (its last value is not finite) or
    CANCELLED (it stopped more than one evaluation short of the budget, D13).
    """
    mine = curves[curves["metric"] == objective.metric].sort_values(["trial", "step"], kind="stable")
    ends: dict[int, Ended] = {}
    for trial, curve in mine.groupby("trial"):
        last, value = int(curve["step"].iloc[-1]), float(curve["value"].iloc[-1])
        if not np.isfinite(value):
            bad = ~np.isfinite(curve["value"].to_numpy())
            first = int(curve["step"].iloc[len(bad) - int(np.argmin(bad[::-1])) if not bad.all() else 0])
            ends[int(str(trial))] = Ended(State.INFEASIBLE, f"diverged: not finite from step {first} on", last)
        elif last + interval < max_train_steps:
            reason = f"cut short: last measured at step {last} of {max_train_steps}"
            ends[int(str(trial))] = Ended(State.CANCELLED, reason, last)
        else:
            ends[int(str(trial))] = Ended(State.COMPLETE, "", last)
    return ends


def note_ends(ends: Mapping[int, Ended], curves: pd.DataFrame, objective: Objective, notes: list[str]) -> None:
    """What was decided by rule about the ends of trials."""
    cut = sum(end.state is State.CANCELLED for end in ends.values())
    diverged = sum(end.state is State.INFEASIBLE for end in ends.values())
    whole = [trial for trial, end in ends.items() if end.state is State.COMPLETE]
    mine = curves[(curves["metric"] == objective.metric) & curves["trial"].isin(whole)]
    holes = mine.loc[~np.isfinite(mine["value"].to_numpy()), "trial"].nunique()
    if cut:
        notes.append(f"{cut} trials were cut short and count as cancelled: no verdict speaks about them (D13)")
    if diverged:
        notes.append(f"{diverged} trials end without a finite value and count as infeasible (D27)")
    if holes:
        notes.append(f"{holes} complete trials have values that are not finite on the way; they are passed over (D27)")


def schedule_by_curve(curves: pd.DataFrame, metrics: tuple[str, ...]) -> str | None:
    """Constant or decaying, by a learning rate that was logged; None where there is none."""
    mine = curves[curves["metric"].isin(metrics) & np.isfinite(curves["value"])]
    if mine.empty:
        return None
    ordered = mine.sort_values(["trial", "step"], kind="stable").groupby("trial")["value"]
    fraction = ordered.last() / ordered.max()
    return "constant" if bool((fraction > 0.99).all()) else "decaying"
