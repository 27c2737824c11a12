"""Isolation plots: the best over the nuisances for each value of a hyperparameter, with how many trials each had."""

import math

import pandas as pd
from matplotlib.figure import Figure

from tuner.plots import theme
from tuner.plots.scales import name_ticks

COLUMNS = 3
CROWD = 20  # more values than this have no counts beside their marks; the CSV has them


def isolation_plot(
    table: pd.DataFrame, metric: str, *, title: str = "Best over the nuisance hyperparameters"
) -> Figure:
    """`table`: rows of `analysis.isolation.isolation_frame`, of one or more hyperparameters; one panel each.

    The number beside a mark is how many completed trials it is the best of (D40); a value without any stays empty.
    With the columns pruned and pruned_best, hollow squares are the best that pruned trials of a value reached.
    """
    names = list(dict.fromkeys(table["hyperparameter"])) if len(table) else []
    columns = min(COLUMNS, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = theme.new_figure(max(4.5, 3.6 * columns), 3.1 * rows + 0.3, title)
    if table.empty or table["best_value"].isna().all():
        return theme.empty(figure, "No completed trials, or nothing varies.")
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
