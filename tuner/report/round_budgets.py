"""The budgets of the rounds beside each other, each with where it came from, as far as the records say."""

import re

from tuner.analysis.sweep_outcome import Fitted
from tuner.budget.step_budget import rounded_up
from tuner.report.material import Material, StudyMaterial
from tuner.report.tables import Column, Table
from tuner.report.wording import in_words

CONCLUSION = "budget"  # the kind under which the Ledger keeps where a round's budget came from: {"origin": words}
_GIVEN = re.compile(r"--max-train-steps[= ](\d+)")


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
            _origin(material, place),
        )
        for place, study in enumerate(material.rounds)
    )
    return Table(columns, rows)


def _origin(material: Material, place: int) -> str:
    study = material.rounds[place]
    if study.study.source:
        return f"of the trials as they were trained elsewhere: {study.study.source}"
    recorded = material.ledger.conclusion(material.campaign, CONCLUSION, study.row.study_id)
    if recorded is not None and recorded.get("origin"):
        return str(recorded["origin"])
    steps = study.study.budget.max_train_steps
    if any(steps == int(given) for one in study.launches for given in _GIVEN.findall(one.command)):
        return "given on the command line"
    sweep = material.sweep
    if place == 0 and sweep is not None and isinstance(sweep.outcome, Fitted):
        if steps == rounded_up(sweep.margin * sweep.outcome.steps):
            return f"{sweep.margin:g} times the {sweep.outcome.steps:,} steps to fit that the sweep found (A18)"
        return "not what the sweep suggests: declared, or given"
    return _compared(material.rounds[place - 1], study) if place else "declared in the study file, or a share of it"


def _compared(before: StudyMaterial, study: StudyMaterial) -> str:
    """Facts beside each other; that one followed from the other is not recorded."""
    ratio = study.study.budget.max_train_steps / before.study.budget.max_train_steps
    said = next((in_words(f.verdict) for f in before.findings if f.question == "best_steps"), "")
    change = "as long as" if ratio == 1 else f"{ratio:.3g} times as long as"
    return f"{change} {before.study.name}" + (f", whose best steps say: {said}" if said else "")
