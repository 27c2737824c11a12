"""Loss and gradient norm of each update at rates above the best one, and with warmups (B36-B38)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuner.analysis.loss_rises import LossCurve, block_means
from tuner.analysis.stability_records import PERCENTILE, StabilityRecords, clip_norm_for
from tuner.plots import theme
from tuner.plots.plot import Drawn, StabilityPlot

HEADROOM = 0.3  # of the range of the losses at the best rate: what lies above leaves the picture
CAP = 2.0  # where losses at the best rate leave it, too
BINS = 40


def stability_plot(records: StabilityRecords, *, title: str = "Training stability") -> Figure:
    """Four panels: loss by rate, gradient norm by rate, histogram of norms, loss by warmup."""
    figure = theme.new_figure(9.0, 6.4, title)
    curves = records.curves
    if curves.empty or not np.isfinite(curves["loss"]).any():
        return theme.empty(figure, STABILITY.absent)
    rates, warmups = (curves[curves["part"] == part] for part in ("rate", "warmup"))
    top = _top(rates)
    panels = figure.subplots(2, 2)
    _losses(panels[0, 0], _series(rates, "multiple"), "x the best rate", top, "Loss by learning rate")
    _norms(panels[0, 1], rates)
    _histogram(panels[1, 0], records)
    _losses(panels[1, 1], _series(warmups, "warmup_steps"), "steps of warmup", top, "Loss by warmup")
    if warmups.empty:
        panels[1, 1].text(
            0.5, 0.5, "no warmup was trained", transform=panels[1, 1].transAxes, ha="center", color=theme.GRAY,
            fontsize=theme.NORMAL,
        )  # fmt: skip
    return figure


def _top(rates: pd.DataFrame) -> float:
    """The upper limit of a loss axis, from the losses at the best rate: a divergence would leave only itself.

    Where the best rate itself diverges, what lies more than CAP times as far above the first losses as the lowest loss
    lies below them is left out, too.
    """
    best = rates[(rates["multiple"] - 1.0).abs() < 1e-9]
    table = best if np.isfinite(best["loss"]).any() else rates
    finite = table.loc[np.isfinite(table["loss"])]
    losses = finite["loss"].to_numpy(dtype=np.float64)
    first = float(np.median(losses[finite["step"] == finite["step"].min()]))
    high = float(losses[losses <= first + CAP * (first - losses.min())].max())
    return high + HEADROOM * (high - float(losses.min()) or 1.0)


def _series(curves: pd.DataFrame, by: str) -> Iterator[tuple[str, list[pd.DataFrame]]]:
    for value, mine in curves.groupby(by):
        yield f"{value:g}", [part for _, part in mine.groupby("seed")]


def _losses(axes: Axes, series: Iterator[tuple[str, list[pd.DataFrame]]], unit: str, top: float, title: str) -> None:
    """One colour a rate or warmup, a line of means for each seed; what lies above the axis is drawn at its edge."""
    theme.style(axes, x="step", y="training loss", title=title)
    for place, (name, parts) in enumerate(series):
        color, _ = theme.look(place)
        for number, part in enumerate(parts):
            loss = part["loss"].to_numpy(dtype=np.float64)
            known = np.where(np.isfinite(loss), loss, np.inf)
            steps = part["step"].to_numpy(dtype=np.float64)
            axes.plot(steps, np.minimum(known, top), color=color, linewidth=0.5, alpha=0.15, label="_each")
            ends, means = block_means(LossCurve(steps, known))
            label = f"{name} {unit}" if number == 0 else "_seed"
            axes.plot(ends, np.minimum(means, top), color=color, linewidth=1.3, label=label)
    axes.set_ylim(top=top)
    if axes.get_lines():
        theme.legend(axes)


def _norms(axes: Axes, rates: pd.DataFrame) -> None:
    theme.style(axes, x="step", y="gradient norm", title="Gradient norm, before clipping")
    drawn = False
    for place, (name, parts) in enumerate(_series(rates, "multiple")):
        color, _ = theme.look(place)
        for number, part in enumerate(parts):
            norms = part["norm"].to_numpy(dtype=np.float64)
            usable = np.isfinite(norms) & (norms > 0)
            if usable.any():
                steps = part["step"].to_numpy(dtype=np.float64)
                label = f"{name} x the best rate" if number == 0 else "_seed"
                axes.plot(steps[usable], norms[usable], color=color, linewidth=0.5, alpha=0.15, label="_each")
                ends, means = block_means(LossCurve(steps[usable], norms[usable]))
                axes.plot(ends, means, color=color, linewidth=1.3, label=label)
                drawn = True
    if drawn:
        axes.set_yscale("log")
        theme.legend(axes)
    else:
        _not_recorded(axes)


def _histogram(axes: Axes, records: StabilityRecords) -> None:
    """Recent norms at the best rate, with their 90th percentile."""
    theme.style(axes, x="gradient norm", y="updates", title="Recent norms at the best rate")
    norms = records.recent_norms
    norms = norms[norms > 0]
    limit = clip_norm_for(norms)
    if limit is None:
        _not_recorded(axes)
        return
    axes.hist(norms, bins=list(np.geomspace(norms.min(), norms.max() * (1 + 1e-9) + 1e-300, BINS)), color=theme.SKY)
    axes.set_xscale("log")
    percentile = f"{100 * PERCENTILE:.0f}th percentile {limit:.3g}"
    axes.axvline(limit, color=theme.VERMILLION, linestyle="--", linewidth=1.2, label=percentile)
    theme.legend(axes)


def _not_recorded(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, "norms were not recorded", transform=axes.transAxes, ha="center", color=theme.GRAY,
        fontsize=theme.NORMAL,
    )  # fmt: skip


def _draw(records: StabilityRecords) -> Drawn:
    return stability_plot(records, title=f"Training stability: {records.source}"), records.curves


STABILITY = StabilityPlot(
    name="stability",
    title="Training stability",
    caption="The best configuration at its learning rate and above it: training loss and gradient norm of each update "
    "(pale), and their means, one line a seed. Where the loss goes up for a stretch, training is unstable. The "
    "histogram shows the recent norms at the best rate with their 90th percentile, a first value for clip_norm. The "
    "last panel shows the warmups, each to a rate far above the unstable one.",
    absent="No trial of a stability study has finished yet.",
    place=115,
    draw=_draw,
)
