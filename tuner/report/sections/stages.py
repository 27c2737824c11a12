"""The stages of a training: which campaign starts from which, with the steps of each and of all (C1, C7)."""

from dataclasses import dataclass
from pathlib import Path

from tuner.analysis.stage_chain import RecordedStage, chain_of, started_from
from tuner.records.conclusions import Selected
from tuner.report.material import Material
from tuner.report.section import Part, Section
from tuner.report.wording import NOTHING
from tuner.security import plain_name
from tuner.storage.store import Ledger


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage on the page: its name, its report if that was written, and its cells."""

    name: str
    page: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagesPage:
    """The content of the section.

    rows: the stages that led to this one, itself last. sums: steps of all of them. later: campaigns that start from
    this one, each with its report, if that was written.
    """

    lead: str
    rows: tuple[StageRow, ...]
    sums: str
    starts: tuple[str, ...]
    later: tuple[StageRow, ...]


def stages(material: Material) -> list[Part]:
    """Where the weights come from, and who starts from them; nothing of a campaign that stands alone."""
    ledger, campaign = material.ledger, material.campaign
    chain, later = chain_of(ledger, campaign), started_from(ledger, campaign)
    mine = chain[-1]
    if mine.start is None and not later:
        return []
    page = StagesPage(
        lead=_lead(mine),
        rows=tuple(_row(ledger, one, campaign) for one in chain),
        sums=f"{sum(one.trained_steps for one in chain):,}",
        starts=tuple(_start(one) for one in mine.start.candidates) if mine.start else (),
        later=tuple(StageRow(name, _page(ledger, name), ()) for name in later),
    )
    return [Part("stages", page, "Stages")]


def _lead(stage: RecordedStage) -> str:
    if stage.start is None:
        return "Other campaigns start from the weights that this one selected."
    steps = "" if stage.max_train_steps is None else f"{stage.limit}{stage.max_train_steps:,}"
    own = f"; a trial of its last round trains {steps} more" if steps else ""
    fresh = f", without {stage.start.fresh}" if stage.start.fresh else ""
    return (
        f"This stage started from weights with {stage.inherited_steps:,} inherited steps{own}. Carried: "
        f"{stage.start.parameters}{fresh}; all else is as model() makes it. Optimizer and schedule began again (C7)."
    )


def _start(one: Selected) -> str:
    why = "it was adopted" if one.adopted else "a file" if one.path else "the best by its own metric"
    return f"{one.words}, {one.steps:,} steps in all; {why}; sha256 {one.digest[:12]}"


def _row(ledger: Ledger, one: RecordedStage, here: str) -> StageRow:
    trial = NOTHING if one.max_train_steps is None else f"{one.limit}{one.max_train_steps:,}"
    whole = NOTHING if one.max_train_steps is None else f"{one.limit}{one.steps_in_all:,}"
    cells = (one.starts_from or NOTHING, f"{one.trained_steps:,}", trial, f"{one.inherited_steps:,}", whole)
    return StageRow(one.campaign, "" if one.campaign == here else _page(ledger, one.campaign), cells)


def _page(ledger: Ledger, campaign: str) -> str:
    """The report of a campaign, where it lies beside this one."""
    name = f"{plain_name(campaign)}.html"
    return name if ((ledger.folder or Path("runs")) / name).is_file() else ""


STAGES = Section(name="stages", place=45, make=stages, template="stages")
