"""The plots of a study by the names of `tuner plot KIND`: each gives its Figure and the frame that is plotted."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.questions.best_steps import best_steps_frame
from tuner.analysis.questions.enough_points import best_of_n_frame
from tuner.analysis.questions.isolation import isolation_frame, scientific_names, with_pruned_of_each
from tuner.analysis.study_frames import TOP, StudyFrames, ranked_trials
from tuner.analysis.trial_curves import pruned_curves_frame, top_curves_frame
from tuner.budget.schedules import UNKNOWN_SHAPES, Schedule
from tuner.design.names import Name
from tuner.plots.axes import axes_frame, axes_plot
from tuner.plots.best_of_n import best_of_n_plot
from tuner.plots.best_steps import best_steps_plot
from tuner.plots.curves import curves_plot
from tuner.plots.infeasible_map import infeasible_map, infeasible_map_frame
from tuner.plots.isolation import isolation_plot
from tuner.plots.parallel import parallel_frame, parallel_plot
from tuner.plots.schedules import schedules_frame, schedules_plot

Drawn = tuple[Figure, pd.DataFrame]


def _best_steps(frames: StudyFrames) -> Drawn:
    table = best_steps_frame(frames)
    budget = frames.study.budget.max_train_steps
    pruned = frames.pruned["steps"] / budget
    title = f"Best steps of {frames.study.name}"
    figure = best_steps_plot(table, max_train_steps=budget, title=title, pruned=pruned.tolist())
    if table.empty or pruned.empty:
        return figure, table
    ended = frames.pruned[["trial", "best_value", "best_step"]].assign(fraction=pruned)
    return figure, pd.concat([table.assign(state="complete"), ended.assign(state="pruned")], ignore_index=True)


def _axes(frames: StudyFrames) -> Drawn:
    table = axes_frame(frames)
    return axes_plot(table, frames, title=f"Hyperparameter axes of {frames.study.name}"), table


def _curves(frames: StudyFrames) -> Drawn:
    table = top_curves_frame(frames)
    if len(table) and len(frames.pruned):
        table = pd.concat([table.astype({"rank": "Int64"}), pruned_curves_frame(frames)], ignore_index=True)
    return curves_plot(table, title=f"Best trials of {frames.study.name}"), table


def _schedules(frames: StudyFrames) -> Drawn:
    """The best trials' schedules as they were trained; fractions of the base rate where a point has no rate."""
    study = frames.study
    if study.schedule.name in UNKNOWN_SHAPES:
        known = "falls; its shape is not known" if study.schedule.name == "decaying" else "is not known"
        reason = f"{study.name} was trained elsewhere, and its learning rate schedule {known}."
        title = f"Learning rate schedules of {study.name}"
        return schedules_plot(schedules_frame({}), title=title, reason=reason), schedules_frame({})
    based: dict[str, tuple[Schedule, float]] = {}
    for row in ranked_trials(frames).head(TOP).to_dict("records"):
        base = _base_rate(frames, row)
        if row["trial"] in frames.schedules:
            based[f"trial {row['trial']}: {base:.3g}"] = frames.schedules[row["trial"]], base
    table = schedules_frame(based)
    return schedules_plot(table, title=f"Learning rate schedules of {study.name}"), table


def _base_rate(frames: StudyFrames, row: Mapping[Hashable, Any]) -> float:
    """The learning rate of a trial's point: searched, of the branch that the trial is in, or fixed; else 1."""
    searched = [row[name] for name in frames.hyperparameters if Name.of(name).short == "learning_rate"]
    branches = {f"{row['optimizer']}.learning_rate"} if "optimizer" in row else set()
    fixed = [one.value for name, one in frames.study.fixed if name in branches | {"learning_rate"}]
    known = [rate for rate in (*searched, *fixed) if isinstance(rate, int | float) and not math.isnan(rate)]
    return float(known[0]) if known else 1.0


def _isolation(frames: StudyFrames) -> Drawn:
    """Of the scientific hyperparameters; of all that vary where none is."""
    names = scientific_names(frames) or frames.hyperparameters
    made = with_pruned_of_each if len(frames.pruned) else isolation_frame
    parts = [made(frames, name) for name in names]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    title = f"Best over the nuisances: {frames.study.name}"
    table = table if len(frames.complete) else table.iloc[:0]
    return isolation_plot(table, frames.study.objective.metric, title=title), table


def _best_of_n(frames: StudyFrames) -> Drawn:
    table = best_of_n_frame(frames)
    title, pruned = f"Best of n trials of {frames.study.name}", frames.pruned["best_value"].dropna().tolist()
    return best_of_n_plot(table, frames.study.objective.metric, title=title, pruned=pruned), table


def _infeasible(frames: StudyFrames) -> Drawn:
    table = infeasible_map_frame(frames)
    return infeasible_map(table, frames, title=f"Infeasible trials of {frames.study.name}"), table


def _parallel(frames: StudyFrames) -> Drawn:
    table = parallel_frame(frames)
    return parallel_plot(table, title=f"Best trials of {frames.study.name}"), table


PLOTS: Mapping[str, Callable[[StudyFrames], Drawn]] = {
    "best-steps": _best_steps,
    "axes": _axes,
    "curves": _curves,
    "schedules": _schedules,
    "isolation": _isolation,
    "best-of-n": _best_of_n,
    "infeasible": _infeasible,
    "parallel": _parallel,
}
