"""Parallel view: the top trials as lines across all hyperparameters, on their sampling scales."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.curves import ranked_trials
from tuner.analysis.positions import unit_positions
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range
from tuner.plots import theme

TOP = 10


def parallel_frame(frames: StudyFrames) -> pd.DataFrame:
    """Long form, the best ten trials: rank, trial, best_value, hyperparameter, value, position (0 to 1; NaN absent)."""
    best = ranked_trials(frames).head(TOP)
    parts = []
    for hyperparameter in frames.study.hyperparameters:
        column, domain = best[hyperparameter.name], hyperparameter.domain
        if isinstance(domain, Range):
            positions = unit_positions(column, domain)
        else:
            known = {repr(choice): place / (len(domain.choices) - 1) for place, choice in enumerate(domain.choices)}
            positions = np.array([known.get(repr(value), np.nan) for value in column], dtype=np.float64)
        part = best[["trial", "best_value"]].assign(rank=range(1, len(best) + 1), hyperparameter=hyperparameter.name)
        parts.append(part.assign(value=column.astype(object), position=positions))
    columns = ["rank", "trial", "best_value", "hyperparameter", "value", "position"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def parallel_plot(table: pd.DataFrame, *, title: str = "The best trials across all hyperparameters") -> Figure:
    """`table`: as `parallel_frame` makes it. Ten lines: the best in front, told apart by colour and dash."""
    names = list(dict.fromkeys(table["hyperparameter"])) if len(table) else []
    figure = theme.new_figure(max(5.0, 1.5 * len(names) + 2.0), 3.8, title)
    if not names:
        return theme.empty(figure, "No completed trials, or nothing varies.")
    axes = figure.add_subplot()
    theme.style(axes, y="position in the searched range")
    for rank, line in reversed(list(table.groupby("rank"))):
        place = int(str(rank)) - 1
        ordered = line.set_index("hyperparameter")["position"].reindex(names)
        axes.plot(
            range(len(names)), ordered.to_numpy(dtype=np.float64), marker="o", markersize=4,
            color=theme.SERIES[place % len(theme.SERIES)], linestyle=theme.DASHES[place % len(theme.DASHES)],
            linewidth=2.2 if place == 0 else 1.1, label=f"trial {line['trial'].iloc[0]}",
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)
    theme.plain(axes.get_xticklabels())
    axes.set_ylim(-0.03, 1.03)
    theme.legend(axes)
    return figure
