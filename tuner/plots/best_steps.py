"""Best step of each good trial as a fraction of the budget, with the bands of the verdict (A13-A15, D10, D12)."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tuner.analysis.levels import LATE
from tuner.analysis.pooled_gains import EARLY
from tuner.analysis.questions.best_steps import best_steps_frame
from tuner.analysis.study_frames import StudyFrames
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot

MOST_NAMED = 30  # trials whose numbers are written on the axis
CROWD = 60  # more trials than these get small marks and no connecting lines


def best_steps_plot(
    table: pd.DataFrame,
    *,
    max_train_steps: int,
    title: str = "Best steps",
    pruned: Sequence[float] = (),
    ended: str = "pruned",
) -> Figure:
    """`table`: the frame that `analysis.best_steps.best_steps_frame` returns, best trial first.

    Circles are best steps; a hollow circle is the last evaluation, so a longer run might have a later best step.
    Triangles are the first step within noise of the best value; the verdict depends on these. `pruned`: the fractions
    of the budget at which a pruner, or their patience (`ended` says which), stopped trials, drawn as hollow squares at
    the right; the verdict ignores them.
    """
    figure = theme.new_figure(max(5.0, min(11.0, 3.0 + 0.28 * len(table))), 4.0, title)
    if table.empty:
        return theme.empty(figure, BEST_STEPS.absent)
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
        theme.pruned_marks(axes, right + width * np.linspace(0.1, 0.9, len(pruned)), sorted(pruned), label=ended)
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


def _draw(frames: StudyFrames) -> Drawn:
    table = best_steps_frame(frames)
    budget = frames.study.budget.max_train_steps
    early = frames.selectable[frames.stopped_early(frames.selectable)]
    short, how = (early, "stopped early") if len(early) else (frames.pruned, "pruned")
    shares = short["steps"] / budget
    title = f"Best steps of {frames.study.name}"
    figure = best_steps_plot(table, max_train_steps=budget, title=title, pruned=shares.tolist(), ended=how)
    if table.empty or short.empty:
        return figure, table
    ended = short[["trial", "best_value", "best_step"]].assign(fraction=shares)
    return figure, pd.concat([table.assign(state="complete"), ended.assign(state=how)], ignore_index=True)


BEST_STEPS = StudyPlot(
    name="best-steps",
    title="Best steps",
    caption="When each good trial was at its best, as a share of the budget. If all lie in the lower band, the budget "
    "is too long. If nearly all lie in the upper band, the budget may be too short (A13-A15).",
    absent="No trial that trained its whole budget has a best step yet.",
    place=10,
    draw=_draw,
    on_page=True,
)
