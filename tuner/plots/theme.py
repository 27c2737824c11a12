"""The look of all plots: colours for the colour-blind (Okabe-Ito); markers and dashes differ for black and white."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import ArrayLike

from tuner.shown import shown

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GRAY, PALE, RED = "#767676", "#E8E8E8", "#CC0000"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SMALL, NORMAL, LARGE = 8, 9, 11
DPI = 110
PER_INCH, PER_INCH_LARGE = 12.0, 8.5  # characters of a label and of a title


class Picture(Figure):
    """A Figure that a notebook shows without pyplot and its global state.

    reason: the sentence in place of data; "" where the figure shows data.
    """

    reason: str = ""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def new_figure(width: float, height: float, title: str) -> Picture:
    """An empty figure, sizes in inches. The title is shown as plain text, never as math or markup."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    title = short(title, int(PER_INCH_LARGE * width))
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", x=0.01, ha="left", parse_math=False)
    return figure


def style(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Set labels (plain text, cut to the length of the axes), two spines, and a pale grid behind the data."""
    width, height = inches(axes)
    axes.set_xlabel(short(x, int(PER_INCH * width)), fontsize=NORMAL, parse_math=False)
    axes.set_ylabel(short(y, int(PER_INCH * height)), fontsize=NORMAL, parse_math=False)
    axes.set_title(shown(title), fontsize=NORMAL, loc="left", parse_math=False)
    axes.tick_params(labelsize=SMALL, color=GRAY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)
    axes.grid(True, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def look(place: int) -> tuple[str, str]:
    """Colour and marker of a series by its position; the first 49 pairs differ."""
    return SERIES[place % len(SERIES)], MARKERS[(place + place // len(SERIES)) % len(MARKERS)]


def inches(axes: Axes) -> tuple[float, float]:
    """Width and height of the axes in inches, before the layout makes room for labels."""
    return axes.bbox.width / DPI, axes.bbox.height / DPI


def short(text: str, most: int) -> str:
    """`text` with at most `most` characters. Longer text loses its middle, because names differ at their ends.

    Line breaks and invisible characters are escaped.
    """
    text = shown(text)
    half = max(1, (most - 1) // 2)
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def plain(texts: Sequence[Text]) -> None:
    """Show names as plain text: a dollar sign starts no formula, and invisible characters are escaped."""
    for text in texts:
        text.set_text(shown(text.get_text()))
        text.set_parse_math(False)


def legend(
    axes: Axes, *, above: bool = False, beside: bool = False, columns: int = 1, handles: Sequence[Line2D] | None = None
) -> None:
    """Draw the legend inside the axes, in rows above them, or in a column at their right."""
    if above:
        made = axes.legend(fontsize=SMALL, frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    elif beside:
        made = axes.legend(
            fontsize=SMALL, frameon=False, ncols=columns, loc="upper left", bbox_to_anchor=(1.01, 1.0), handles=handles
        )
    else:
        made = axes.legend(fontsize=SMALL, framealpha=0.9, edgecolor=PALE, ncols=columns)
    plain(made.get_texts())


def legend_below(figure: Figure) -> None:
    """Draw one legend under all panels, with each mark that any panel shows."""
    marks: dict[str, Line2D] = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            label = str(line.get_label())
            if not label.startswith("_") and len(np.asarray(line.get_xdata())):
                marks.setdefault(label, line)
    if marks:
        made = figure.legend(
            list(marks.values()), list(marks), loc="outside lower left", ncols=4, fontsize=SMALL, frameon=False
        )
        plain(made.get_texts())


def pruned_marks(axes: Axes, x: ArrayLike, y: ArrayLike, *, label: str = "pruned") -> None:
    """Draw pruned trials as hollow squares, the same in every plot."""
    axes.plot(
        x, y, "s", color=PURPLE, markersize=4.5, markerfacecolor="none", markeredgewidth=1.1, linestyle="none",
        label=label, zorder=2,
    )  # fmt: skip


def empty_because(figure: Figure) -> str:
    """The sentence in place of data; "" where the figure shows data."""
    return figure.reason if isinstance(figure, Picture) else ""


def empty(figure: Figure, reason: str) -> Figure:
    """Show a sentence in place of data, and return the figure."""
    if isinstance(figure, Picture):
        figure.reason = reason
    figure.text(0.5, 0.45, shown(reason), ha="center", va="center", fontsize=NORMAL, color=GRAY, parse_math=False)
    return figure
