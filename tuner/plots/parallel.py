"""Parallel coordinates: the best trials as lines across all hyperparameters, on their sampling scales."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.ranges import unit_positions
from tuner.analysis.study_frames import StudyFrames, ranked_results
from tuner.design.hyperparameters import Range
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot
from tuner.plots.scales import name_ticks

TOP = 10
ENDS = 14  # characters of the text at the end of an axis


def parallel_frame(frames: StudyFrames) -> pd.DataFrame:
    """Long form, one row for each trial and hyperparameter: the ten best trials, then pruned trials without a rank.

    Columns: rank, trial, best_value, hyperparameter, value, position (0 to 1; NaN where the trial lacks the
    hyperparameter), low and high (the text at positions 0 and 1).
    """
    best = ranked_results(frames).head(TOP)
    pruned = frames.pruned if len(best) else frames.pruned.head(0)
    ranks = pd.array([*range(1, len(best) + 1), *[None] * len(pruned)], "Int64")
    best = pd.concat([best, pruned], ignore_index=True) if len(pruned) else best
    parts = []
    for hyperparameter in frames.study.hyperparameters:
        column, domain = best[hyperparameter.name], hyperparameter.domain
        if isinstance(domain, Range):
            positions, ends = unit_positions(column, domain), (f"{domain.low:.3g}", f"{domain.high:.3g}")
        else:
            ends = (str(domain.choices[0]), str(domain.choices[-1]))
            known = {repr(choice): place / (len(domain.choices) - 1) for place, choice in enumerate(domain.choices)}
            positions = np.array([known.get(repr(value), np.nan) for value in column], dtype=np.float64)
        part = best[["trial", "best_value"]].assign(rank=ranks, hyperparameter=hyperparameter.name)
        parts.append(part.assign(value=column.astype(object), position=positions, low=ends[0], high=ends[1]))
    columns = ["rank", "trial", "best_value", "hyperparameter", "value", "position", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def parallel_plot(table: pd.DataFrame, *, title: str = "The best trials across all hyperparameters") -> Figure:
    """`table`: the frame that `parallel_frame` returns. Lines differ by colour, mark and dash; the best is in front."""
    names = list(dict.fromkeys(table["hyperparameter"])) if len(table) else []
    figure = theme.new_figure(max(5.0, 1.5 * len(names) + 2.0), 3.8, title)
    if not names:
        return theme.empty(figure, PARALLEL.absent)
    axes = figure.add_subplot()
    theme.style(axes, y="position in the searched range")
    for rank, line in table.groupby("rank"):
        place = int(str(rank)) - 1
        known = line[line["position"].notna()]  # the line skips hyperparameters of other branches
        told = f"trial {line['trial'].iloc[0]}: {line['best_value'].iloc[0]:.4g}"
        color, marker = theme.look(place)
        axes.plot(
            known["hyperparameter"].map(names.index), known["position"], markersize=5, marker=marker, color=color,
            linestyle=theme.DASHES[place % len(theme.DASHES)],
            linewidth=2.2 if place == 0 else 1.1, label=told, zorder=3.0 - 0.1 * place,
        )  # fmt: skip
    ended = table[table["rank"].isna() & table["position"].notna()]
    if len(ended):
        beside = 0.06 * (ended["trial"].rank(method="dense") / max(1, ended["trial"].nunique()) - 0.5)
        theme.pruned_marks(axes, ended["hyperparameter"].map(names.index) + beside, ended["position"])
    name_ticks(axes, names)
    _name_ends(axes, table.drop_duplicates("hyperparameter"))
    axes.set_ylim(-0.09, 1.09)
    theme.legend(axes, beside=True)
    return figure


def _name_ends(axes: Axes, hyperparameters: pd.DataFrame) -> None:
    """Write the ends of each range above and below its axis."""
    for place, row in enumerate(hyperparameters.to_dict("records")):
        for end, height, side in (("low", -0.03, "top"), ("high", 1.03, "bottom")):
            axes.text(
                place, height, theme.short(row[end], ENDS), ha="center", va=side, fontsize=theme.SMALL,
                color=theme.GRAY, parse_math=False,
            )  # fmt: skip


def _draw(frames: StudyFrames) -> Drawn:
    table = parallel_frame(frames)
    return parallel_plot(table, title=f"Best trials of {frames.study.name}"), table


PARALLEL = StudyPlot(
    name="parallel",
    title="Best trials across all hyperparameters",
    caption="Each line is one of the ten best trials, across all hyperparameters, on the scales that were sampled.",
    absent="No trial is complete yet, or nothing varies.",
    place=80,
    draw=_draw,
)
