"""What a longer run would buy: the newest budget curve with its finding (A2)."""

from dataclasses import dataclass

from tuner.analysis.questions.budget_curve import KIND, budget_curve, budget_curve_finding
from tuner.plots.budget_curve import budget_curve_frame, budget_curve_plot
from tuner.report.findings import Card, card_of
from tuner.report.images import Image, image_of
from tuner.report.material import Material, Placed
from tuner.report.section import Section

_CAPTION = (
    "Best value of runs of several lengths that share their trunk, each with a decay of its own; dashed what a longer "
    "one would reach, with its interval."
)


@dataclass(frozen=True, slots=True)
class BudgetCurvePage:
    """The finding about the newest curve, and its plot."""

    card: Card
    plot: Image
    caption: str


def budget_curves(material: Material) -> list[Section]:
    """Nothing before a length was trained to its end."""
    if material.ledger.conclusion(material.campaign, KIND) is None:
        return []
    curve = budget_curve(material.ledger, material.campaign)
    if curve.table.empty:
        return []
    figure = budget_curve_plot(budget_curve_frame(curve), curve.objective.metric, title=f"Of {curve.point}")
    placed = Placed("budget-curve-finding", curve.point, budget_curve_finding(curve), "budget-curve-plot")
    page = BudgetCurvePage(card_of(placed), image_of(figure, f"Final value against budget. {_CAPTION}"), _CAPTION)
    return [Section("budget_curve", "budget-curve", page, "What longer runs buy")]
