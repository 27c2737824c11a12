"""Best step of each good trial as a fraction of the budget, with the bands of A14 and A15 (A13, D10, D12)."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tuner.analysis.levels import LATE
from tuner.analysis.pooled_gains import EARLY
from tuner.plots import theme

MOST_NAMED = 30  # trials whose numbers are written
CROWD = 60  # more trials than this are drawn as small marks without the lines between


def best_steps_plot(
    table: pd.DataFrame, *, max_train_steps: int, title: str = "Best steps", pruned: Sequence[float] = ()
) -> Figure:
    """`table`: as `analysis.best_steps.best_steps_frame` makes it, best trial first.

    Circles: the raw best step, hollow where it is the last evaluation (so it may lie later). Triangles: the
    first step within noise of the best, which drives the verdict. `pruned`: at which share of the budget trials were
    ended by a pruner; hollow squares at the right, which take no part in the verdict.
    """
    figure = theme.new_figure(max(5.0, min(11.0, 3.0 + 0.28 * len(table))), 4.0, title)
    if table.empty:
        return theme.empty(figure, "No good completed trials yet.")
    axes = figure.add_subplot()
    theme.style(axes, x="trial, best first", y=f"step / {max_train_steps:,} steps")
    _bands(axes)
    ranks = pd.Series(range(len(table)), index=table.index)
    censored = table["censored"].astype(bool)
    size, edge = (7.0, 1.4) if len(table) <= CROWD else (3.5, 0.7)
    if len(table) <= CROWD:
        axes.vlines(ranks, table["earliest_fraction"], table["fraction"], color=theme.GRAY, linewidth=0.8)
    axes.plot(
        ranks, table["earliest_fraction"], "v", color=theme.ORANGE, markeredgecolor=theme.BLACK, markeredgewidth=0.6,
        markersize=size, label="first within noise", zorder=2,
    )  # fmt: skip
    for mask, fill, label in ((~censored, theme.BLUE, "best step"), (censored, "white", "best at the end")):
        if mask.any():
            axes.plot(
                ranks[mask], table.loc[mask, "fraction"], "o", color=theme.BLUE, markerfacecolor=fill, markersize=size,
                markeredgewidth=edge, label=label, clip_on=False, zorder=3,
            )  # fmt: skip
    axes.set_ylim(0.0, 1.02)
    right = len(table) - 0.4
    if len(pruned):
        width = max(1.0, 0.15 * len(table))
        axes.axvline(right, color=theme.GRAY, linewidth=0.8)
        theme.pruned_marks(axes, right + width * np.linspace(0.1, 0.9, len(pruned)), sorted(pruned))
        right += width
    axes.set_xlim(-0.6, right)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    every = math.ceil(len(table) / MOST_NAMED)
    axes.set_xticks(ranks[::every].to_list(), [str(trial) for trial in table["trial"][::every]])
    theme.legend(axes, above=True, columns=4 if len(pruned) else 3)
    return figure


def _bands(axes: Axes) -> None:
    for low, high, text in ((0.0, EARLY, "too long"), (LATE, 1.02, "maybe\ntoo short")):
        axes.axhspan(low, high, facecolor=theme.PALE, edgecolor="none", zorder=0)
        axes.annotate(
            text, (1.0, 0.5 * (low + high)), xycoords=("axes fraction", "data"), xytext=(5, 0), va="center", ha="left",
            textcoords="offset points", fontsize=theme.SMALL, color=theme.GRAY,
        )  # fmt: skip
    for bound in (EARLY, LATE):
        axes.axhline(bound, color=theme.GRAY, linewidth=0.8, linestyle="--", zorder=1)
