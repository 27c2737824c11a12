"""Learning rate schedules over each other: what a longer round does with its extra steps (A35, A40-A42)."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from tuner.budget.schedules import learning_rates as rates_along
from tuner.plots import theme
from tuner.records import TrialRecord


def base_rate(record: TrialRecord) -> float:
    """The base learning rate of a trial; 1, and so fractions of it, where the point has none."""
    rate = record.point.get("learning_rate")
    return float(rate) if isinstance(rate, int | float) else 1.0


def trained_rates(trials: Sequence[tuple[str, TrialRecord]]) -> dict[str, tuple[float, ...]]:
    """The learning rate at each step of trials as they were trained, by "round-1 trial 7: 0.01"."""
    return {
        f"{study} trial {record.number}: {base_rate(record):.3g}": rates_along(record.schedule, base_rate(record))
        for study, record in trials
        if record.schedule is not None
    }


def schedules_frame(learning_rates: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Long form: schedule, step (counted from 0), learning_rate."""
    parts = [
        pd.DataFrame({"schedule": name, "step": range(len(rates)), "learning_rate": list(rates)})
        for name, rates in learning_rates.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["schedule", "step", "learning_rate"])


def schedules_plot(learning_rates: Mapping[str, Sequence[float]], *, title: str = "Learning rate schedules") -> Figure:
    """One line a schedule, by name, told apart by colour and dash."""
    figure = theme.new_figure(7.0, 3.6, title)
    if not learning_rates:
        return theme.empty(figure, "No schedules to draw.")
    axes = figure.add_subplot()
    theme.style(axes, x="step", y="learning rate")
    for place, (name, rates) in enumerate(learning_rates.items()):
        color, dash = theme.SERIES[place % len(theme.SERIES)], theme.DASHES[place % len(theme.DASHES)]
        axes.plot(range(len(rates)), rates, color=color, linestyle=dash, linewidth=1.8, label=name)
    axes.set_ylim(bottom=0.0)
    axes.set_xlim(0.0, max(len(rates) for rates in learning_rates.values()))
    theme.legend(axes, above=True, columns=3)
    return figure
