"""The budgets of the rounds beside each other, each with where it came from, as far as the records say."""

from tuner.records.budget_origin import NOT_RECORDED, BudgetOrigin
from tuner.records.conclusions import BudgetRecord
from tuner.report.material import Material, StudyMaterial
from tuner.report.tables import Column, Table


def rounds_table(material: Material) -> Table:
    """One row a round; the share is of the longest one so far: the production length, where that was trained (A29)."""
    longest = max((study.study.budget.max_train_steps for study in material.rounds), default=1)
    columns = (
        Column("round"), Column("max_train_steps", True), Column("share of the longest", True), Column("trials", True),
        Column("where it came from"),
    )  # fmt: skip
    rows = tuple(
        (
            study.study.name,
            f"{study.study.budget.max_train_steps:,}",
            f"{study.study.budget.max_train_steps / longest:.0%}",
            f"{len(study.frames.trials):,}",
            _origin(material, study).sentence,
        )
        for study in material.rounds
    )
    return Table(columns, rows)


def _origin(material: Material, study: StudyMaterial) -> BudgetOrigin:
    if study.study.source:
        return BudgetOrigin("elsewhere", words=study.study.source)
    recorded = material.ledger.conclusion(material.campaign, BudgetRecord, study.row.study_id)
    return recorded.origin if recorded is not None else NOT_RECORDED
