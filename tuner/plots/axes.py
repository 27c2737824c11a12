"""Each searched hyperparameter against the best value over training (B20, B29)."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.study_frames import TOP, StudyFrames, ranked_results
from tuner.design.hyperparameters import Hyperparameter, Range
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot
from tuner.plots.scales import name_ticks, searched_scale

COLUMNS = 3
SIDEWAYS = 0.03  # trials with the same choice are drawn a little apart


def axes_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row for each hyperparameter and each finished or pruned trial that has that hyperparameter.

    Columns: hyperparameter, trial, value, best_value (NaN where an infeasible trial never had a finite value; for a
    pruned trial the best value before it was stopped), state ("pruned" where a pruner stopped the trial), rank (1 is
    the best trial; <NA> where the trial is not complete).
    """
    ranked = ranked_results(frames)
    ranks = pd.Series(range(1, len(ranked) + 1), index=ranked["trial"], dtype="Int64")
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    finished = pd.concat([finished, frames.pruned.assign(state="pruned")]).sort_values("trial")
    parts = []
    for name in frames.hyperparameters:
        there = finished[frames.exists_in(finished, name)]
        part = there[["trial", "best_value", "state"]].assign(hyperparameter=name, value=there[name].astype(object))
        parts.append(part.assign(rank=ranks.reindex(there["trial"]).to_numpy()))
    columns = ["hyperparameter", "trial", "value", "best_value", "state", "rank"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def axes_plot(table: pd.DataFrame, frames: StudyFrames, *, title: str = "Hyperparameter axes") -> Figure:
    """One panel for each hyperparameter; all panels share the y axis. `table`: the frame that `axes_frame` returns.

    Only complete trials that are no far outliers set the scale. Crosses at the worse edge are infeasible trials,
    arrows there are far outliers, hollow squares are pruned trials at their best value. Dashed lines bound the searched
    range.
    """
    varied = frames.study.hyperparameters
    columns = min(COLUMNS, max(1, len(varied)))
    rows = max(1, math.ceil(len(varied) / columns))
    figure = theme.new_figure(max(4.5, 3.3 * columns), 2.8 * rows + 0.4, title)
    if table.empty:
        return theme.empty(figure, AXES.absent)
    limits = value_limits(table, minimize=frames.study.objective.direction == "minimize")
    shared = None
    for place, hyperparameter in enumerate(varied):
        axes = figure.add_subplot(rows, columns, place + 1, sharey=shared)
        shared = shared or axes
        theme.style(axes, x=hyperparameter.name, y=frames.study.objective.metric if place % columns == 0 else "")
        axes.tick_params(labelleft=place % columns == 0)
        mine = table[table["hyperparameter"] == hyperparameter.name]
        _panel(axes, mine.assign(position=_scale_x(axes, hyperparameter, mine["value"])), limits)
    if shared is not None and table["rank"].isna().all():
        shared.set_yticks([])  # no trial has a value, so the scale has no meaning
    theme.legend_below(figure)
    return figure


def value_limits(table: pd.DataFrame, *, minimize: bool) -> tuple[float, float]:
    """The ends of the y axis, (better, worse): the best complete value and the worst one that is no far outlier."""
    sign = 1.0 if minimize else -1.0
    values = sign * table.loc[(table["state"] == "complete") & table["best_value"].notna(), "best_value"]
    if values.empty:
        return sign * 0.0, sign * 1.0
    quarter, half, most = values.quantile([0.25, 0.5, 0.75])
    worst = float(min(values.max(), most + 3.0 * max(most - quarter, most - half)))
    best = float(values.min())
    room = 0.08 * (worst - best) or 0.05 * abs(best) or 1.0
    return sign * (best - room), sign * (worst + 1.5 * room)


def _panel(axes: Axes, points: pd.DataFrame, limits: tuple[float, float]) -> None:
    better, worse = limits
    axes.set_ylim(min(limits), max(limits))
    edge = 0.965 if worse > better else 0.035
    at_edge = axes.get_xaxis_transform()
    complete = points[(points["state"] == "complete") & points["best_value"].notna()]
    beyond = (complete["best_value"] > worse) if worse > better else (complete["best_value"] < worse)
    top = complete["rank"].le(TOP).astype(bool)
    inside, outside, infeasible = complete[~beyond & ~top], complete[beyond], points[points["state"] == "infeasible"]
    axes.plot(inside["position"], inside["best_value"], "o", color=theme.BLUE, markersize=4.5, alpha=0.7, label="trial")
    arrow = "^" if worse > better else "v"
    axes.plot(
        outside["position"], [edge] * len(outside), arrow, color=theme.BLUE, markersize=5, markerfacecolor="none",
        transform=at_edge, label="off the scale",
    )  # fmt: skip
    axes.plot(
        infeasible["position"], [edge] * len(infeasible), "x", color=theme.RED, markersize=6, markeredgewidth=1.6,
        transform=at_edge, label="infeasible",
    )  # fmt: skip
    pruned = points[points["state"] == "pruned"]
    inner = min(limits) + edge * abs(worse - better)
    height = pruned["best_value"].fillna(inner)
    height = height.clip(upper=inner) if worse > better else height.clip(lower=inner)
    theme.pruned_marks(axes, pruned["position"], height)
    stars = complete[top]
    axes.plot(
        stars["position"], stars["best_value"], "*", color=theme.ORANGE, markersize=13, markeredgecolor=theme.BLACK,
        markeredgewidth=0.7, label=f"best {TOP}", zorder=3,
    )  # fmt: skip


def _scale_x(axes: Axes, hyperparameter: Hyperparameter, values: pd.Series) -> pd.Series:
    """Give the x axis the sampling scale and the searched bounds; return the positions of `values` on that axis."""
    domain = hyperparameter.domain
    if not isinstance(domain, Range):
        name_ticks(axes, [str(choice) for choice in domain.choices])
        places = {repr(choice): place for place, choice in enumerate(domain.choices)}
        positions = [places[repr(value)] + SIDEWAYS * (row % 9 - 4) for row, value in enumerate(values.tolist())]
        return pd.Series(positions, index=values.index, dtype=float)
    searched_scale(axes, "x", domain)
    return values.astype(float)


def _draw(frames: StudyFrames) -> Drawn:
    table = axes_frame(frames)
    return axes_plot(table, frames, title=f"Hyperparameter axes of {frames.study.name}"), table


AXES = StudyPlot(
    name="axes",
    title="Hyperparameter axes",
    caption="Best value over training against each hyperparameter, on the scale that was sampled. Good configurations "
    "that crowd at a dashed limit call for a wider range (B20). Crosses are infeasible trials, hollow squares are "
    "pruned ones; neither stretches the axis.",
    absent="No trial has finished yet, or nothing varies.",
    place=20,
    draw=_draw,
    on_page=True,
    needs_search=True,
)
