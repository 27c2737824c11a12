"""What a plot is: one frozen record, in the file that draws it.

`tuner plot --help`, the report, the README and the tests read these records. The class of a record is its scope: it
fixes what `draw` takes. `draw` returns the figure and the frame whose numbers the figure shows; `tuner plot` writes
that frame as a CSV file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.questions.budget_curve import BudgetCurve
from tuner.analysis.stability_records import StabilityRecords
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_records import SweepRecords

Drawn = tuple[Figure, pd.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot without its drawing.

    name: the word after `tuner plot`. title: the heading. caption: how to read the plot. absent: the sentence in place
    of the plot where the records have nothing to draw. place: position in every list; smaller numbers come first.
    """

    name: str
    title: str
    caption: str
    absent: str
    place: int
    scope: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlot(Plot):
    """A plot of one study, or of one round with its widenings.

    on_page: the report shows the plot for each round. needs_search: the plot is about a search space, so the report
    leaves it out where a round trained configurations that were chosen from an earlier one.
    """

    draw: Callable[[StudyFrames], Drawn]
    on_page: bool = False
    needs_search: bool = False
    scope: ClassVar[str] = "study"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlot(Plot):
    """A plot of a round beside an earlier one: `draw(before, after)`."""

    draw: Callable[[StudyFrames, StudyFrames], Drawn]
    scope: ClassVar[str] = "round"


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPlot(Plot):
    """A plot of all rounds of a campaign, in the order of their start; of one study where one is named."""

    draw: Callable[[Sequence[StudyFrames]], Drawn]
    scope: ClassVar[str] = "campaign"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlot(Plot):
    """A plot of the last sweep that ended."""

    draw: Callable[[SweepRecords], Drawn]
    scope: ClassVar[str] = "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetCurvePlot(Plot):
    """A plot of the newest budget curve."""

    draw: Callable[[BudgetCurve], Drawn]
    scope: ClassVar[str] = "budget curve"


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityPlot(Plot):
    """A plot of the newest stability study."""

    draw: Callable[[StabilityRecords], Drawn]
    scope: ClassVar[str] = "stability study"
