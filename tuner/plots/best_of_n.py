"""Box plot of the best of n trials: how much of a best value is luck (B21, the playbook's Figure 3)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.plots import theme

MOST_BOXES = 16


def best_of_n_plot(
    table: pd.DataFrame, metric: str, *, title: str = "Best of n trials", pruned: Sequence[float] = ()
) -> Figure:
    """`table`: as `analysis.enough_points.best_of_n_frame` makes it. Boxes: quartiles; whiskers: 5 % and 95 %.

    `pruned`: the best values that pruned trials reached; hollow squares beside the trials that completed.

    Some n, at about equal ratios: luck shrinks fast at first and slowly then.
    """
    figure = theme.new_figure(7.0, 3.6, title)
    if len(table) < 2:
        return theme.empty(figure, "No more than one completed trial yet.")
    counts = table["n"].to_numpy(dtype=np.float64)
    wanted = np.geomspace(counts[0], counts[-1], MOST_BOXES)
    shown = table.iloc[np.unique(np.abs(counts[:, None] - wanted).argmin(axis=0))]
    axes = figure.add_subplot()
    theme.style(axes, x="n, trials drawn anew from those that completed", y=f"best {metric}")
    boxes = [
        {"med": row["median"], "q1": min(row["q25"], row["q75"]), "q3": max(row["q25"], row["q75"]),
         "whislo": min(row["q05"], row["q95"]), "whishi": max(row["q05"], row["q95"])}
        for row in shown.to_dict("records")
    ]  # fmt: skip
    axes.bxp(
        boxes, positions=range(len(shown)), widths=0.6, showfliers=False, patch_artist=True,
        boxprops={"facecolor": theme.SKY, "edgecolor": theme.BLUE}, medianprops={"color": theme.BLACK},
        manage_ticks=False,
    )  # fmt: skip
    axes.set_xticks(range(len(shown)), [f"{n:,}" for n in shown["n"]])
    if len(pruned):
        bottom, top = axes.get_ylim()
        values = np.clip(np.asarray(pruned, dtype=np.float64), bottom, top)
        theme.pruned_marks(
            axes, -0.75 + 0.3 * np.arange(len(values)) / len(values), values, label=f"pruned ({len(values)})"
        )
        axes.set_ylim(bottom, top)
        theme.legend(axes)
    return figure
