"""Final value against budget, and where longer runs are predicted to lead (A2)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.questions.budget_curve import LEVEL, BudgetCurve, predictions
from tuner.plots import theme

BEYOND = 2.0  # times the longest length


def budget_curve_frame(curve: BudgetCurve) -> pd.DataFrame:
    """One row a trained length and seed (what: "trained"), and the prediction on a grid (what: "predicted").

    Columns: what, length, seed, value, low, high (NaN where trained).
    """
    trained = curve.table[["length", "seed", "value"]].assign(what="trained", low=np.nan, high=np.nan)
    try:
        grid = np.geomspace(trained["length"].min(), BEYOND * trained["length"].max(), 60)
        predicted = [
            {"what": "predicted", "length": each.length, "value": each.value, "low": each.low, "high": each.high}
            for each in predictions(curve.table, grid)
        ]
    except (ValueError, IndexError):  # too few lengths: the points alone
        predicted = []
    return pd.concat([trained, pd.DataFrame(predicted)]) if predicted else trained


def budget_curve_plot(table: pd.DataFrame, metric: str, *, title: str = "Final value against budget") -> Figure:
    """`table`: as `budget_curve_frame` makes it. The band is the interval around the change from the longest run."""
    figure = theme.new_figure(6.4, 3.6, title)
    trained, predicted = (table[table["what"] == what] for what in ("trained", "predicted"))
    if trained.empty:
        return theme.empty(figure, "No length was trained to its end yet.")
    axes = figure.add_subplot()
    theme.style(axes, x="max_train_steps", y=f"best {metric}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda steps, place: f"{steps:,.0f}")
    if len(predicted):
        axes.fill_between(predicted["length"], predicted["low"], predicted["high"], color=theme.SKY, alpha=0.3, lw=0)
        axes.plot(predicted["length"], predicted["value"], "--", color=theme.BLUE, label=f"fit, {LEVEL:.0%} interval")
        axes.axvline(trained["length"].max(), color=theme.GRAY, linestyle=":", linewidth=1)
    for place, (seed, mine) in enumerate(trained.groupby("seed")):
        color, marker = theme.look(place + 1)
        axes.plot(
            mine["length"], mine["value"], "-", color=color, marker=marker, markersize=5, label=f"seed {seed:.0f}"
        )
    theme.legend(axes)
    return figure
