"""Training and validation curves of the best trials, with the selected checkpoint marked (A12, B24)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import pruned_curves_frame, top_curves_frame
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot
from tuner.plots.scales import value_scale

_LINES = {"training": (theme.VERMILLION, "--", 1.2), "validation": (theme.BLUE, "-", 1.6)}


def curves_plot(table: pd.DataFrame, *, title: str = "Training curves of the best trials") -> Figure:
    """One panel for each trial, best first, all on one scale.

    `table`: the frame that `analysis.trial_curves.top_curves_frame` returns. Rows with the split "pruned" are the
    curves of pruned trials: thin lines behind each panel's curves that end in a hollow square. Where the table has a
    column `stopped`, the step at which a trial stopped early (<NA>: it did not), the panel says so.
    """
    pruned = table[table["split"] == "pruned"] if len(table) else table
    ranks = sorted(table["rank"].dropna().unique()) if len(table) else []
    figure = theme.new_figure(max(5.0, 3.4 * len(ranks)), 3.6, title)
    if not ranks:
        return theme.empty(figure, CURVES.absent)
    for place, (rank, axes) in enumerate(zip(ranks, _row_of(figure, len(ranks)), strict=True)):
        mine = table[table["rank"] == rank]
        _behind(axes, pruned)
        _panel(axes, mine)
        theme.style(
            axes, x="step", y=str(mine["metric"].iloc[0]) if place == 0 else "",
            title=f"trial {mine['trial'].iloc[0]} (rank {rank}){_stopped(mine)}",
        )  # fmt: skip
        axes.tick_params(labelleft=place == 0)
        if place == 0:
            value_scale(axes, table.loc[table["split"] != "pruned", "value"].to_numpy(dtype=np.float64))
    theme.legend_below(figure)
    return figure


def _stopped(mine: pd.DataFrame) -> str:
    """That the trial of a panel stopped early, for its title: where its curves end."""
    return ", stopped early" if "stopped" in mine and mine["stopped"].notna().any() else ""


def _row_of(figure: Figure, columns: int) -> list[Axes]:
    return list(figure.subplots(1, columns, sharex=True, sharey=True, squeeze=False)[0])


def _behind(axes: Axes, pruned: pd.DataFrame) -> None:
    for _, line in pruned.groupby("trial") if len(pruned) else ():
        axes.plot(line["step"], line["value"], color=theme.PURPLE, linewidth=0.6, alpha=0.4, zorder=0.5)
    if len(pruned):
        last = pruned.drop_duplicates("trial", keep="last")
        theme.pruned_marks(axes, last["step"], last["value"])


def _panel(axes: Axes, curves: pd.DataFrame) -> None:
    for split, (color, dash, width) in _LINES.items():
        line = curves[curves["split"] == split]
        axes.plot(line["step"], line["value"], linestyle=dash, color=color, linewidth=width, label=split)
    chosen = curves[curves["chosen"] & (curves["split"] == "validation")]
    for row in chosen.to_dict("records"):
        axes.axvline(row["step"], color=theme.GRAY, linestyle=":", linewidth=1.0, zorder=1)
    axes.plot(
        chosen["step"], chosen["value"], "D", color=theme.ORANGE, markeredgecolor=theme.BLACK, markersize=7, zorder=3,
        linestyle="none", label="chosen checkpoint",
    )  # fmt: skip


def _draw(frames: StudyFrames) -> Drawn:
    table = top_curves_frame(frames)
    if len(table) and len(frames.pruned):
        table = pd.concat([table.astype({"rank": "Int64"}), pruned_curves_frame(frames)], ignore_index=True)
    return curves_plot(table, title=f"Best trials of {frames.study.name}"), table


CURVES = StudyPlot(
    name="curves",
    title="Training curves of the best trials",
    caption="Training and validation over steps. The diamond is the checkpoint that retrospective selection chose "
    "(A12).",
    absent="No complete trial has a curve yet.",
    place=50,
    draw=_draw,
    on_page=True,
)
