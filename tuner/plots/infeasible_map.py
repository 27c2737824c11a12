"""Where infeasible trials lie, over the two hyperparameters that separate them best (B22)."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.infeasible import infeasible_frame
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range
from tuner.plots import theme
from tuner.plots.scales import searched_scale


def infeasible_map_frame(frames: StudyFrames) -> pd.DataFrame:
    """trial, state, and the values of the two numeric hyperparameters that separate infeasible trials most."""
    ranked = infeasible_frame(frames).assign(apart=lambda table: table["separation"].abs().fillna(0.0))
    names = ranked.sort_values("apart", ascending=False, kind="stable")["hyperparameter"].head(2).tolist()
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    return finished[["trial", "state", *names]].reset_index(drop=True)


def infeasible_map(table: pd.DataFrame, frames: StudyFrames, *, title: str = "Infeasible trials") -> Figure:
    """`table`: as `infeasible_map_frame` makes it. Crosses: infeasible; circles: complete; dashed: the search."""
    figure = theme.new_figure(5.4, 4.2, title)
    names = [name for name in table.columns if name not in ("trial", "state")]
    if table.empty or not names:
        return theme.empty(figure, "No finished trials, or no numbers that vary.")
    axes = figure.add_subplot()
    theme.style(axes, x=names[0], y=names[1] if len(names) > 1 else "trial")
    for state, marker, color in (("complete", "o", theme.BLUE), ("infeasible", "x", theme.RED)):
        part = table[(table["state"] == state) & table[names].notna().all(axis=1)]  # where they exist
        axes.plot(
            part[names[0]].astype(float), part[names[-1] if len(names) > 1 else "trial"].astype(float), marker,
            color=color, markersize=6, markeredgewidth=1.6, linestyle="none", label=f"{state} ({len(part)})",
            markerfacecolor="none",
        )  # fmt: skip
    _scales(axes, names, frames)
    theme.legend(axes, above=True, columns=2)
    return figure


def _scales(axes: Axes, names: list[str], frames: StudyFrames) -> None:
    domains = {h.name: h.domain for h in frames.study.hyperparameters}
    whiches: tuple[Literal["x", "y"], ...] = ("x", "y")
    for name, which in zip(names, whiches, strict=False):
        domain = domains[name]
        if isinstance(domain, Range):
            searched_scale(axes, which, domain)
