"""A round beside the one before: did configurations keep their order, and what did the extra steps gain (A30, A32)?"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tuner.analysis.replicates import transfer_pairs
from tuner.analysis.study_frames import StudyFrames
from tuner.plots import theme
from tuner.plots.plot import Drawn, RoundPlot
from tuner.plots.scales import value_scale

MOST_PARENTS = 12  # in the legend
_ARM = "-."  # a base rate that differs from the parent's
_STROKES: dict[str, tuple[Any, str]] = {
    "parent": ((0, (1, 1)), "the round before"),
    "same": ("--", "same seed"),
    "fresh": ("-", "fresh seeds"),
}


def transfer_frame(before: StudyFrames, after: StudyFrames) -> pd.DataFrame:
    """Long form. Columns: panel ("pairs" or "steps"), trial, parent, seeds, rate, step, value.

    "pairs": the parent's best value in the shorter round, then the trial's best value in the longer one. "steps": the
    best value so far of the parent (trial <NA>) and of the trial at each evaluation, to compare them at an equal step.
    """
    pairs = transfer_pairs(before, after)
    pairs = pairs[pairs["complete"]]
    short, long = before.study.budget.max_train_steps, after.study.budget.max_train_steps
    parts = []
    for row in pairs.to_dict("records"):
        named: dict[str, Any] = {str(name): row[name] for name in ("trial", "parent", "seeds", "rate")}
        ends = pd.DataFrame({"step": [short, long], "value": [row["value_before"], row["value"]]})
        parts.append(ends.assign(panel="pairs", **named))
        parts.append(_best_so_far(after, int(row["trial"])).assign(panel="steps", **named))
    for parent in pairs["parent"].unique():
        mine: dict[str, Any] = {"parent": int(parent), "seeds": "parent", "rate": 1.0, "trial": pd.NA}
        parts.append(_best_so_far(before, int(parent)).assign(panel="steps", **mine))
    columns = ["panel", "trial", "parent", "seeds", "rate", "step", "value"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat([part.astype({"trial": "Int64"}) for part in parts], ignore_index=True)[columns]


def transfer_plot(table: pd.DataFrame, metric: str, *, title: str = "From a shorter to a longer round") -> Figure:
    """Left: the value of each configuration in both rounds. Right: its best value so far over steps.

    `table`: the frame that `transfer_frame` returns. Each parent has its own colour and mark. Hollow marks and dashed
    lines are trials with the seed of their parent.
    """
    figure = theme.new_figure(11.0, 3.8, title)
    if table.empty:
        return theme.empty(figure, TRANSFER.absent)
    left, right = figure.subplots(1, 2)
    theme.style(
        left, x="steps of the round", y=metric, title="compare fresh seeds; the same seed shares its parent's luck"
    )
    theme.style(right, x="step", title="best so far: compare at an equal step")
    looks = {int(parent): theme.look(place) for place, parent in enumerate(table["parent"].unique())}
    _draw_pairs(left, table[table["panel"] == "pairs"], looks)
    steps = table[table["panel"] == "steps"]
    _draw_steps(right, steps, looks)
    right.set_xscale("log")
    value_scale(right, steps["value"].to_numpy(dtype=np.float64))
    _explain(right, looks, sorted(set(steps["rate"]) - {1.0}))
    return figure


def _explain(axes: Axes, looks: dict[int, tuple[str, str]], arms: list[float]) -> None:
    """In both panels colours and marks are parents, and strokes are seeds."""
    shown = list(looks.items())[:MOST_PARENTS]
    marks = [Line2D([], [], color=c, marker=m, linestyle="none", label=f"trial {parent}") for parent, (c, m) in shown]
    if len(looks) > len(shown):
        marks.append(Line2D([], [], linestyle="none", label=f"and {len(looks) - len(shown)} more"))
    strokes = [*_STROKES.values(), *((_ARM, f"{rate:g} x rate") for rate in arms)]
    lines = [Line2D([], [], color=theme.BLACK, linestyle=dash, label=told) for dash, told in strokes]
    theme.legend(axes, beside=True, handles=[*marks, *lines])


def _draw_pairs(axes: Axes, pairs: pd.DataFrame, looks: dict[int, tuple[str, str]]) -> None:
    for _, line in pairs.groupby("trial"):
        row = line.iloc[0]
        fresh = row["seeds"] == "fresh"
        style = _ARM if row["rate"] != 1.0 else "-" if fresh else "--"
        color, marker = looks[int(row["parent"])]
        axes.plot(
            ["shorter", "longer"], line["value"], style, marker=marker, color=color, linewidth=1.6,
            markerfacecolor=color if fresh else "white",
        )  # fmt: skip
    steps = sorted(pairs["step"].unique())
    axes.set_xticks([0, 1], [f"{steps[0]:,}", f"{steps[-1]:,}"])
    axes.set_xlim(-0.15, 1.15)


def _draw_steps(axes: Axes, steps: pd.DataFrame, looks: dict[int, tuple[str, str]]) -> None:
    for (parent, seeds, _), line in steps.groupby(["parent", "seeds", "trial"], dropna=False):
        dash = _ARM if line["rate"].iloc[0] != 1.0 else _STROKES[str(seeds)][0]
        color, marker = looks[int(str(parent))]
        axes.plot(
            line["step"], line["value"], color=color, linestyle=dash, linewidth=1.4, marker=marker,
            markersize=4, markevery=0.15,
            markerfacecolor=color if seeds == "fresh" else "white",
        )  # fmt: skip


def _best_so_far(frames: StudyFrames, trial: int) -> pd.DataFrame:
    curve = frames.curve(trial, frames.study.objective.metric).dropna()
    smaller = frames.study.objective.direction == "minimize"
    return curve.assign(value=curve["value"].cummin() if smaller else curve["value"].cummax())


def _draw(before: StudyFrames, after: StudyFrames) -> Drawn:
    table = transfer_frame(before, after)
    title = f"From {before.study.name} to {after.study.name}"
    return transfer_plot(table, after.study.objective.metric, title=title), table


TRANSFER = RoundPlot(
    name="transfer",
    title="From the round before",
    caption="Left: the values of promoted configurations in both rounds; hollow and dashed where the seed is that of "
    "the first training, which confirms nothing. Right: the best value so far over steps; dotted lines are the shorter "
    "trials (A30, A32).",
    absent="No promoted trial has trained its whole budget yet.",
    place=100,
    draw=_draw,
)
