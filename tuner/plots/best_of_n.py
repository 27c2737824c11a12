"""Box plot of the best of n trials: how much of a best value is luck (B21, the playbook's Figure 3)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.plots import theme

MOST_BOXES = 25


def best_of_n_plot(table: pd.DataFrame, metric: str, *, title: str = "Best of n trials") -> Figure:
    """`table`: as `analysis.enough_points.best_of_n_frame` makes it. Boxes: quartiles; whiskers: 5 % and 95 %."""
    figure = theme.new_figure(7.0, 3.6, title)
    if len(table) < 2:
        return theme.empty(figure, "No more than one completed trial yet.")
    places = np.unique(np.linspace(0, len(table) - 1, min(MOST_BOXES, len(table))).round().astype(int))
    shown = table.iloc[places]
    axes = figure.add_subplot()
    theme.style(axes, x="n, trials drawn anew from those that completed", y=f"best {metric}")
    boxes = [
        {"med": row["median"], "q1": min(row["q25"], row["q75"]), "q3": max(row["q25"], row["q75"]),
         "whislo": min(row["q05"], row["q95"]), "whishi": max(row["q05"], row["q95"])}
        for row in shown.to_dict("records")
    ]  # fmt: skip
    width = 0.6 * float(np.diff(shown["n"]).min())
    axes.bxp(
        boxes, positions=shown["n"].tolist(), widths=width, showfliers=False, patch_artist=True,
        boxprops={"facecolor": theme.SKY, "edgecolor": theme.BLUE}, medianprops={"color": theme.BLACK},
        manage_ticks=False,
    )  # fmt: skip
    return figure
