"""Box plot of the best of n trials: how much of the best value is luck (B21, the playbook's Figure 3)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.questions.enough_points import best_of_n_frame
from tuner.analysis.study_frames import StudyFrames
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot

MOST_BOXES = 16


def best_of_n_plot(
    table: pd.DataFrame, metric: str, *, title: str = "Best of n trials", pruned: Sequence[float] = ()
) -> Figure:
    """Boxes are quartiles, whiskers are the 5 % and 95 % quantiles.

    `table`: the frame that `analysis.enough_points.best_of_n_frame` returns. `pruned`: the best values of pruned
    trials, drawn as hollow squares at the left. At most 16 numbers n are drawn, at about equal ratios, because the
    effect of luck shrinks fast for small n and slowly for large n.
    """
    figure = theme.new_figure(7.0, 3.6, title)
    if len(table) < 2:
        return theme.empty(figure, BEST_OF_N.absent)
    counts = table["n"].to_numpy(dtype=np.float64)
    wanted = np.geomspace(counts[0], counts[-1], MOST_BOXES)
    shown = table.iloc[np.unique(np.abs(counts[:, None] - wanted).argmin(axis=0))]
    axes = figure.add_subplot()
    theme.style(axes, x="n, trials resampled from the complete ones", y=f"best {metric}")
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


def _draw(frames: StudyFrames) -> Drawn:
    table = best_of_n_frame(frames)
    title, pruned = f"Best of n trials of {frames.study.name}", frames.pruned["best_value"].dropna().tolist()
    return best_of_n_plot(table, frames.study.objective.metric, title=title, pruned=pruned), table


BEST_OF_N = StudyPlot(
    name="best-of-n",
    title="Best of n trials",
    caption="The best value that fewer trials would have given, resampled from these trials. The spread of a box shows "
    "how much of the best value is luck (B21).",
    absent="Fewer than two trials have trained their whole budget yet.",
    place=30,
    draw=_draw,
    on_page=True,
    needs_search=True,
)
