"""Learning rate schedules over each other: what a longer round does with its extra steps (A35, A40-A42)."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.budget.schedules import Schedule
from tuner.plots import theme
from tuner.records import TrialRecord

MOST_STEPS = 2000  # of a longer schedule so many steps are drawn, and the ends of each piece
Based = Mapping[str, tuple[Schedule, float]]  # schedules with their base rates, by the name they are drawn under


def base_rate(record: TrialRecord) -> float:
    """The base learning rate of a trial; 1, and so fractions of it, where the point has none."""
    rate = record.point.get("learning_rate")
    return float(rate) if isinstance(rate, int | float) else 1.0


def trained_schedules(trials: Sequence[tuple[str, TrialRecord]]) -> dict[str, tuple[Schedule, float]]:
    """The schedules of trials as they were trained, by "round-1 trial 7: 0.01"."""
    return {
        f"{study} trial {record.number}: {base_rate(record):.3g}": (record.schedule, base_rate(record))
        for study, record in trials
        if record.schedule is not None
    }


def schedules_frame(schedules: Based) -> pd.DataFrame:
    """Long form: schedule, step (counted from 0), learning_rate."""
    parts = []
    for name, (schedule, base) in schedules.items():
        steps = _steps(schedule)
        rates = [base * schedule.fraction(step) for step in steps]
        parts.append(pd.DataFrame({"schedule": name, "step": steps, "learning_rate": rates}))
    columns = ["schedule", "step", "learning_rate"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def schedules_plot(
    table: pd.DataFrame, *, title: str = "Learning rate schedules", reason: str = "No schedules to draw."
) -> Figure:
    """`table`: as `schedules_frame` makes it. One line a schedule, told apart by colour and dash.

    `reason`: what stands there where there is none.
    """
    figure = theme.new_figure(7.0, 3.6, title)
    if table.empty:
        return theme.empty(figure, reason)
    axes = figure.add_subplot()
    theme.style(axes, x="step", y="learning rate")
    for place, (name, line) in enumerate(table.groupby("schedule", sort=False)):
        color, dash = theme.SERIES[place % len(theme.SERIES)], theme.DASHES[place % len(theme.DASHES)]
        axes.plot(
            line["step"], line["learning_rate"], color=color, linestyle=dash, linewidth=1.8, label=str(name)
        )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    axes.set_xlim(0.0, float(table["step"].max()) + 1.0)
    theme.legend(axes, above=True, columns=3)
    return figure


def _steps(schedule: Schedule) -> list[int]:
    """Every step, or of long schedules some of them and the first and last of each piece."""
    if len(schedule) <= MOST_STEPS:
        return list(range(len(schedule)))
    ends = list(accumulate(piece.steps for piece in schedule.pieces))
    spread = np.linspace(0, len(schedule) - 1, MOST_STEPS).round().astype(int).tolist()
    return sorted({*spread, *(end - 1 for end in ends), *ends[:-1]})
