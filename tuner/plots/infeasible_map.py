"""Where infeasible trials lie, on the two hyperparameters that separate them best (B22)."""

from itertools import combinations
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.questions.infeasible import infeasible_frame
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Range
from tuner.plots import theme
from tuner.plots.plot import Drawn, StudyPlot
from tuner.plots.scales import searched_scale


def infeasible_map_frame(frames: StudyFrames) -> pd.DataFrame:
    """Columns: trial, state ("pruned" where a pruner stopped the trial), and two numeric hyperparameters.

    The two are the pair that most infeasible trials have; among equals, the pair that separates them best.
    """
    finished = frames.trials[frames.trials["state"].isin(["complete", "infeasible"])]
    finished = pd.concat([finished, frames.pruned.assign(state="pruned")]).sort_values("trial")
    names = _pair(infeasible_frame(frames), finished)
    return finished[["trial", "state", *names]].reset_index(drop=True)


def _pair(ranked: pd.DataFrame, finished: pd.DataFrame) -> list[str]:
    """The pair that most infeasible trials have, then most trials, then the one that separates them best."""
    apart = dict(zip(ranked["hyperparameter"], ranked["separation"].abs().fillna(0.0), strict=True))
    bad = finished["state"] == "infeasible"

    def worth(names: tuple[str, ...]) -> tuple[int, int, float]:
        there = finished[list(names)].notna().all(axis=1)
        return int((there & bad).sum()), int(there.sum()), sum(apart[name] for name in names)

    several: list[tuple[str, ...]] = [*combinations(apart, 2)] or [(name,) for name in apart]
    best = max(several, key=worth, default=())
    return sorted(best, key=lambda name: -apart[name])


def infeasible_map(table: pd.DataFrame, frames: StudyFrames, *, title: str = "Infeasible trials") -> Figure:
    """`table`: the frame that `infeasible_map_frame` returns.

    Crosses are infeasible trials, circles complete ones, squares pruned ones; dashed lines bound the searched range.
    The legend counts the trials that are drawn, and the trials that lack one of the two hyperparameters.
    """
    figure = theme.new_figure(5.4, 4.2, title)
    names = [name for name in table.columns if name not in ("trial", "state")]
    bad = int((table["state"] == "infeasible").sum()) if len(table) else 0
    if table.empty or not names:
        return theme.empty(figure, INFEASIBLE.absent)
    if not bad:
        finished = int((table["state"] != "pruned").sum())
        return theme.empty(figure, f"None of {finished} finished trials is infeasible.")
    axes = figure.add_subplot()
    theme.style(axes, x=names[0], y=names[1] if len(names) > 1 else "trial")
    there = table[names].notna().all(axis=1)
    for state, marker, color in (("complete", "o", theme.BLUE), ("infeasible", "x", theme.RED), ("pruned", "s", "")):
        mine = table["state"] == state
        part, total = table[mine & there], int(mine.sum())
        told = f"{state} ({len(part)}{f' of {total}' if len(part) < total else ''})"
        x, y = part[names[0]].astype(float), part[names[1] if len(names) > 1 else "trial"].astype(float)
        if state == "pruned":
            if total:
                theme.pruned_marks(axes, x, y, label=told)
            continue
        axes.plot(
            x, y, marker, color=color, markersize=6, markeredgewidth=1.6, linestyle="none", label=told,
            markerfacecolor="none",
        )  # fmt: skip
    _scales(axes, names, frames)
    theme.legend(axes, above=True, columns=3)
    return figure


def _scales(axes: Axes, names: list[str], frames: StudyFrames) -> None:
    domains = {h.name: h.domain for h in frames.study.hyperparameters}
    whiches: tuple[Literal["x", "y"], ...] = ("x", "y")
    for name, which in zip(names, whiches, strict=False):
        domain = domains[name]
        if isinstance(domain, Range):
            searched_scale(axes, which, domain)


def _draw(frames: StudyFrames) -> Drawn:
    table = infeasible_map_frame(frames)
    return infeasible_map(table, frames, title=f"Infeasible trials of {frames.study.name}"), table


INFEASIBLE = StudyPlot(
    name="infeasible",
    title="Infeasible trials",
    caption="Infeasible (crosses), complete (circles) and pruned trials (squares) on the two hyperparameters that "
    "separate the infeasible ones best. Dashed lines are the limits of the searched ranges (B22).",
    absent="No trial has finished yet, or no number varies.",
    place=70,
    draw=_draw,
)
