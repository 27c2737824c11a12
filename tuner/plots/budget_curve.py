"""Final value against budget, with the predicted value of longer runs (A2)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.questions.budget_curve import BudgetCurve, predictions
from tuner.analysis.replicates import LEVEL
from tuner.plots import theme
from tuner.plots.plot import BudgetCurvePlot, Drawn

BEYOND = 2.0  # the prediction ends at this multiple of the longest run


def budget_curve_frame(curve: BudgetCurve) -> pd.DataFrame:
    """One row for each trained length and seed ("trained"), and the prediction on a grid of lengths ("predicted").

    Columns: what, length (steps), seed, value, low, high (NaN in trained rows).
    """
    trained = curve.table[["length", "seed", "value"]].assign(what="trained", low=np.nan, high=np.nan)
    try:
        grid = np.geomspace(trained["length"].min(), BEYOND * trained["length"].max(), 60)
        predicted = [
            {"what": "predicted", "length": each.length, "value": each.value, "low": each.low, "high": each.high}
            for each in predictions(curve.table, grid)
        ]
    except (ValueError, IndexError):  # too few lengths for a prediction
        predicted = []
    return pd.concat([trained, pd.DataFrame(predicted)]) if predicted else trained


def budget_curve_plot(table: pd.DataFrame, metric: str, *, title: str = "Final value against budget") -> Figure:
    """`table`: the frame that `budget_curve_frame` returns. The band: interval of the gain over the longest run."""
    figure = theme.new_figure(6.4, 3.6, title)
    trained, predicted = (table[table["what"] == what] for what in ("trained", "predicted"))
    if trained.empty:
        return theme.empty(figure, BUDGET_CURVE.absent)
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


def _draw(curve: BudgetCurve) -> Drawn:
    table = budget_curve_frame(curve)
    return budget_curve_plot(table, curve.objective.metric, title=f"Gain from longer training: {curve.point}"), table


BUDGET_CURVE = BudgetCurvePlot(
    name="budget-curve",
    title="Final value against budget",
    caption="Best value of runs of several lengths that share one checkpoint before the decay; each run has its own "
    "decay. The dashed line predicts longer runs, with its interval.",
    absent="No run of the budget curve has finished yet.",
    place=110,
    draw=_draw,
)
