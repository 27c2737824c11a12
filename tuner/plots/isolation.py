"""Isolation plots: the best value for each value of one hyperparameter, over all others (B29, D40)."""

import math

import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.questions.isolation import isolation_frame, scientific_names, with_pruned_of_each
from tuner.analysis.study_frames import StudyFrames
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot
from tuner.plots.scales import name_ticks

COLUMNS = 3
CROWD = 20  # more values than these get no counts beside their marks; the CSV file has the counts


def isolation_plot(
    table: pd.DataFrame, metric: str, *, title: str = "Best over the nuisance hyperparameters"
) -> Figure:
    """One panel for each hyperparameter. `table`: rows of `analysis.isolation.isolation_frame`.

    The number beside a mark counts the complete trials that the value is the best of (D40). A value without complete
    trials has no mark. Hollow squares, where the table has the columns pruned and pruned_best, are the best values of
    pruned trials.
    """
    names = list(dict.fromkeys(table["hyperparameter"])) if len(table) else []
    columns = min(COLUMNS, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = theme.new_figure(max(4.5, 3.6 * columns), 3.1 * rows + 0.3, title)
    if table.empty or table["best_value"].isna().all():
        return theme.empty(figure, ISOLATION.absent)
    shared = None
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1, sharey=shared)
        shared = shared or axes
        theme.style(axes, x=name, y=f"best {metric}" if place % columns == 0 else "")
        mine = table[table["hyperparameter"] == name].reset_index(drop=True)
        there = mine[mine["best_value"].notna()]
        axes.plot(
            there.index, there["best_value"], "D", color=theme.BLUE, markersize=7, linestyle="none", label="completed"
        )
        for position, row in there.iterrows() if len(there) <= CROWD else ():
            axes.annotate(
                str(row["complete"]), (float(str(position)), row["best_value"]), xytext=(7, 4),
                textcoords="offset points", fontsize=theme.SMALL, color=theme.GRAY,
            )  # fmt: skip
        if "pruned_best" in mine:
            ended = mine[mine["pruned_best"].notna()]
            theme.pruned_marks(axes, ended.index, ended["pruned_best"])
        axes.tick_params(labelleft=place % columns == 0)
        name_ticks(axes, mine["value"].tolist())
    if "pruned" in table and table["pruned"].sum():
        theme.legend_below(figure)
    return figure


def _draw(frames: StudyFrames) -> Drawn:
    """Draw the scientific hyperparameters, or all that vary where none is scientific."""
    names = scientific_names(frames) or frames.hyperparameters
    made = with_pruned_of_each if len(frames.pruned) else isolation_frame
    parts = [made(frames, name) for name in names]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    table = table if len(frames.complete) else table.iloc[:0]
    title = f"Best over the nuisances: {frames.study.name}"
    return isolation_plot(table, frames.study.objective.metric, title=title), table


ISOLATION = StudyPlot(
    name="isolation",
    title="Best over the nuisances",
    caption="The best value over all other hyperparameters (the nuisances) for each value or slice of one "
    "hyperparameter. The number beside a mark counts the trials that it is the best of (B29, D40).",
    absent="No trial has trained its whole budget yet, or nothing varies.",
    place=40,
    draw=_draw,
    on_page=True,
    needs_search=True,
)
