"""Steps to fit the training set against the learning rate of a sweep (A24-A26).

Only fitted rates, the winner and its seeds set the scale. Rates that did not fit or diverged are drawn at the top
edge: they have no number of steps, and a mark on the scale would suggest one (D8).
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tuner.analysis.sweep_records import SweepRecords
from tuner.plots import theme
from tuner.plots.plot import Drawn, SweepPlot
from tuner.records.sweep_outcomes import PREDICTION, Fitted, Invalid, SweepOutcome

EDGE = 0.955  # height of the marks without a number, as a fraction of the axes
ROOM = 1.35  # factor left free below the smallest number of steps
HEADROOM = 2.2  # factor left free above the largest one, for the marks at the top edge


def sweep_plot(fits: pd.DataFrame, outcome: SweepOutcome, *, title: str = "Steps to fit the training set") -> Figure:
    """`fits`: the frame that `analysis.fit_steps.fit_steps_frame` returns. `outcome`: what follows from those fits."""
    figure = theme.new_figure(7.2, 4.4, title)
    if not fits["state"].isin(["complete", "infeasible"]).any():
        return theme.empty(figure, SWEEP.absent)
    axes = figure.add_subplot()
    theme.style(axes, x="learning rate (constant)", y="steps to fit")
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = _limits(fits, outcome)
    _set_scale(axes, fits, low, high)  # before anything is drawn, so that no mark changes the scale
    if isinstance(outcome, Fitted):
        _draw_seeds(axes, outcome, low, high)
    _draw_fitted(axes, fits, outcome, low)
    _draw_winner(axes, outcome, low)
    _draw_without_number(axes, fits)
    if isinstance(outcome, Invalid):
        _draw_open_end(axes, outcome)
    theme.legend(axes, above=True, columns=3)
    return figure


def _limits(fits: pd.DataFrame, outcome: SweepOutcome) -> tuple[float, float]:
    """The ends of the y axis: steps of the fitted rates, of the winner and of its seeds."""
    steps = [float(step) for step in fits["first_fit"].dropna()]
    if isinstance(outcome, Fitted):
        bounds = (outcome.high, outcome.seed_low, outcome.seed_high, *outcome.seed_steps)
        steps += [float(bound) for bound in bounds if bound is not None]
    if not steps:
        return 1.0, 10.0
    return max(0.5, min(steps) / ROOM), max(steps) * HEADROOM


def _draw_fitted(axes: Axes, fits: pd.DataFrame, outcome: SweepOutcome, low: float) -> None:
    """Draw each fitted rate as a mark with the interval of its steps to fit."""
    winner = outcome.learning_rate if isinstance(outcome, Fitted) else math.nan
    shown = fits[fits["first_fit"].notna() & (fits["learning_rate"] != winner)]
    if shown.empty:
        return
    rates, steps = shown["learning_rate"].astype(float), shown["first_fit"].astype(float)
    axes.vlines(rates, shown["last_unfit"].astype(float).clip(lower=low), steps, color=theme.BLUE, linewidth=2.2)
    axes.plot(rates, steps, "o", color=theme.BLUE, markersize=6, label="fitted (last unfit to first fit)")


def _draw_winner(axes: Axes, outcome: SweepOutcome, low: float) -> None:
    if not isinstance(outcome, Fitted):
        return
    rate = outcome.learning_rate
    axes.vlines([rate], max(outcome.low, low), outcome.high, color=theme.BLACK, linewidth=2.2, zorder=4)
    axes.plot(
        [rate], [outcome.high], "*", color=theme.ORANGE, markeredgecolor=theme.BLACK, markersize=15, zorder=5,
        linestyle="none", label=f"fastest: {rate:.3g}",
    )  # fmt: skip


def _draw_seeds(axes: Axes, outcome: Fitted, low: float, high: float) -> None:
    """Draw the prediction interval of a further seed as a band at the fastest rate, and its seeds as dashes."""
    rate = outcome.learning_rate
    if outcome.seed_low is not None:
        until = outcome.seed_high if outcome.seed_high is not None else high
        axes.fill_betweenx(
            [max(outcome.seed_low, low), until], rate / 1.22, rate * 1.22, facecolor=theme.SKY, alpha=0.35,
            edgecolor=theme.BLUE, linewidth=0.8, zorder=1, label=f"{PREDICTION:.0%} of seeds",
        )  # fmt: skip
    if outcome.seed_steps:
        axes.plot(
            [rate] * len(outcome.seed_steps), outcome.seed_steps, "_", color=theme.BLACK, markersize=13,
            markeredgewidth=1.2, zorder=3, label="fresh seeds",
        )  # fmt: skip


def _draw_without_number(axes: Axes, fits: pd.DataFrame) -> None:
    """Draw rates that did not fit (with their final value) and rates that diverged at the top edge."""
    at_edge = axes.get_xaxis_transform()
    unfitted = fits[fits["first_fit"].isna() & (fits["state"] == "complete")]
    diverged = fits[fits["state"] == "infeasible"]
    for part, marker, color, label in (
        (unfitted, "^", theme.BLUE, "not fitted (value reached)"), (diverged, "x", theme.RED, "diverged"),
    ):  # fmt: skip
        if len(part):
            axes.plot(
                part["learning_rate"].astype(float), [EDGE] * len(part), marker, color=color, markerfacecolor="none",
                markersize=7, markeredgewidth=1.6, linestyle="none", transform=at_edge, label=label,
            )  # fmt: skip
    for row in unfitted.to_dict("records"):
        reached = f"{row['final_value']:.3g}" if math.isfinite(row["final_value"]) else "not finite"
        axes.annotate(
            reached, (row["learning_rate"], EDGE), xycoords=at_edge, xytext=(0, -8), textcoords="offset points",
            ha="center", va="top", rotation=90, fontsize=theme.SMALL, color=theme.GRAY,
        )  # fmt: skip


def _draw_open_end(axes: Axes, outcome: Invalid) -> None:
    """Mark the side on which the grid ends too early."""
    upper = outcome.direction == "upper"
    axes.axvline(outcome.learning_rate, color=theme.VERMILLION, linestyle="--", linewidth=1.2, zorder=1)
    axes.annotate(
        f"the grid ends here:\n{'higher' if upper else 'lower'} rates may be faster", (outcome.learning_rate, 0.55),
        xycoords=axes.get_xaxis_transform(), xytext=(-6 if upper else 6, 0), textcoords="offset points",
        ha="right" if upper else "left", fontsize=theme.SMALL, color=theme.VERMILLION,
    )  # fmt: skip


def _set_scale(axes: Axes, fits: pd.DataFrame, low: float, high: float) -> None:
    rates = fits["learning_rate"].astype(float)
    axes.set_xlim(rates.min() / 1.6, rates.max() * 1.6)
    axes.set_ylim(low, high)
    axes.minorticks_off()
    if fits["first_fit"].isna().all():
        axes.set_yticks([])
        axes.text(
            0.5, 0.45, "No learning rate fitted the training set: no number of steps.", transform=axes.transAxes,
            ha="center", fontsize=theme.NORMAL, color=theme.GRAY,
        )  # fmt: skip
        return
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda steps, _: f"{steps:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw(records: SweepRecords) -> Drawn:
    return sweep_plot(records.fits, records.outcome), records.fits


SWEEP = SweepPlot(
    name="sweep",
    title="Steps to fit against learning rate",
    caption="Each learning rate, constant and without regularization, trained for the same number of steps. The line "
    "of a mark is the interval in which the trial first fitted the training set for good. Marks at the top edge have "
    "no number of steps. A fastest rate at an end of the grid would make the answer invalid (A25).",
    absent="No trial of a sweep has finished yet.",
    place=90,
    draw=_draw,
)
