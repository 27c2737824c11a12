"""The axis of a hyperparameter or a metric: scale, limits of the search, and readable ticks."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tuner.design.hyperparameters import Range
from tuner.plots import theme
from tuner.shown import shown

DECADES_LABELLED = 50.0  # log axes that span a smaller factor have labels at 1, 2 and 5
MARGIN = 0.06  # share of the searched range that is left free on both sides
FAR = 1e6  # values above this multiple of the median do not set the scale
WIDE_SPAN = 30.0  # positive values that span more than this factor get a log axis
MOST_NAMES = 12  # names along an axis; of more names only some are written
NAME_LENGTH = 20  # characters of a slanted name
NAME_INCHES = 0.07  # of a character


def searched_scale(axes: Axes, which: Literal["x", "y"], domain: Range) -> None:
    """Give an axis the sampling scale of a hyperparameter; dashed lines are the limits of the search."""
    axis, line = (axes.xaxis, axes.axvline) if which == "x" else (axes.yaxis, axes.axhline)
    if domain.log:
        axes.set(**{f"{which}scale": "log"})
        if domain.high / domain.low < DECADES_LABELLED:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        room = (domain.high / domain.low) ** MARGIN
        limits = (domain.low / room, domain.high * room)
    else:
        axis.set_major_locator(MaxNLocator(nbins=5, integer=domain.integer))
        width = MARGIN * (domain.high - domain.low)
        limits = (domain.low - width, domain.high + width)
    axes.set(**{f"{which}lim": limits})
    for bound in (domain.low, domain.high):
        line(bound, color=theme.GRAY, linestyle="--", linewidth=0.9, zorder=1)


def name_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Write names at 0, 1, 2, ... along the x axis: slanted and shortened where they would overlap, some of many."""
    every = math.ceil(len(names) / MOST_NAMES)
    some = [shown(name) for name in names[::every]]
    slanted = NAME_INCHES * sum(len(name) + 2 for name in some) > theme.inches(axes)[0]
    texts = [theme.short(name, NAME_LENGTH) for name in some] if slanted else some
    axes.set_xticks(range(0, len(names), every), texts)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    theme.plain(axes.get_xticklabels())
    axes.set_xlim(-0.6, len(names) - 0.4)


def value_scale(axes: Axes, values: np.ndarray) -> None:
    """Use a log axis for positive values of a wide span; values far above nearly all others leave the axes."""
    finite = values[np.isfinite(values)]
    kept = finite[np.abs(finite) <= FAR * np.median(np.abs(finite))] if finite.size else finite
    if kept.size and kept.min() > 0 and kept.max() / kept.min() > WIDE_SPAN:
        axes.set_yscale("log")
    if 0 < kept.size < finite.size:
        room = 0.05 * float(np.ptp(kept)) or 1.0
        low, high = float(kept.min()), float(kept.max())
        axes.set_ylim(low / 1.2 if axes.get_yscale() == "log" else low - room, high + room)
