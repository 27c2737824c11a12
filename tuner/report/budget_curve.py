"""What a longer run would buy: the newest budget curve with its finding (A2)."""

from dataclasses import dataclass

from tuner.analysis.questions.budget_curve import budget_curve, budget_curve_finding
from tuner.plots.budget_curve import BUDGET_CURVE
from tuner.records.conclusions import CurveStudies
from tuner.report.findings import Card, card_of
from tuner.report.images import Image, image_of
from tuner.report.material import Material, Placed
from tuner.report.section import Section


@dataclass(frozen=True, slots=True)
class BudgetCurvePage:
    """The finding about the newest curve, and its plot."""

    card: Card
    plot: Image
    caption: str


def budget_curves(material: Material) -> list[Section]:
    """Nothing before a length was trained to its end."""
    if material.ledger.conclusion(material.campaign, CurveStudies) is None:
        return []
    curve = budget_curve(material.ledger, material.campaign)
    if curve.table.empty:
        return []
    image = image_of(BUDGET_CURVE.draw(curve)[0], f"{BUDGET_CURVE.title}. {BUDGET_CURVE.caption}")
    placed = Placed("budget-curve-finding", curve.point, budget_curve_finding(curve), "budget-curve-plot")
    page = BudgetCurvePage(card_of(placed), image, BUDGET_CURVE.caption)
    return [Section("budget_curve", "budget-curve", page, "What longer runs buy")]
