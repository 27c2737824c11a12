"""Each varied hyperparameter against the best value over training (B29): where the good points lie (B20)."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.study_frames import TOP, StudyFrames, ranked_trials
from tuner.design.hyperparameters import Hyperparameter, Range
from tuner.plots import theme
from tuner.plots.scales import name_ticks, searched_scale

COLUMNS = 3
SIDEWAYS = 0.03  # points of one choice are drawn a little beside each other


def axes_frame(frames: StudyFrames) -> pd.DataFrame:
    """What is plotted: a row per hyperparameter and finished or pruned trial in whose branch it exists.

    Columns: hyperparameter, trial, value, best_value (NaN for an infeasible trial without a finite one; of a pruned
    trial until it was ended), state ("pruned" for one that a pruner ended), rank (1 is the best trial; <NA> where not
    complete).
    """
    ranked = ranked_trials(frames)
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
    """One panel a hyperparameter, all with the same y axis.

    Infeasible trials are crosses on the worse edge and take no part in the scale; nor do far outliers, which are
    drawn as arrows on that edge, nor pruned trials, hollow squares at the best value they reached. Dashed lines: the
    searched range.
    """
    varied = frames.study.hyperparameters
    columns = min(COLUMNS, max(1, len(varied)))
    rows = max(1, math.ceil(len(varied) / columns))
    figure = theme.new_figure(max(4.5, 3.3 * columns), 2.8 * rows + 0.4, title)
    if table.empty:
        return theme.empty(figure, "No finished trials, or nothing varies.")
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
        shared.set_yticks([])  # nothing has a value, so the scale says nothing
    theme.legend_below(figure)
    return figure


def value_limits(table: pd.DataFrame, *, minimize: bool) -> tuple[float, float]:
    """The y axis, (better, worse): from the best complete value to the worst that is no far outlier."""
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
    """Set the x axis to the sampling scale with the searched bounds; the positions of `values` on it."""
    domain = hyperparameter.domain
    if not isinstance(domain, Range):
        name_ticks(axes, [str(choice) for choice in domain.choices])
        places = {repr(choice): place for place, choice in enumerate(domain.choices)}
        positions = [places[repr(value)] + SIDEWAYS * (row % 9 - 4) for row, value in enumerate(values.tolist())]
        return pd.Series(positions, index=values.index, dtype=float)
    searched_scale(axes, "x", domain)
    return values.astype(float)
