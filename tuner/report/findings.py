"""Every finding as a card: verdict, strength, caveats, action, and the evidence to doubt it with."""

from dataclasses import dataclass, replace

from tuner.analysis.finding import NOTHING_TO_DO, Finding
from tuner.analysis.good_trials import good_defined
from tuner.analysis.trial_curves import has_curves
from tuner.report.material import Material, Placed, StudyMaterial
from tuner.report.section import Section
from tuner.report.tables import Table, table_of
from tuner.report.wording import in_words, readable


@dataclass(frozen=True, slots=True)
class Card:
    """A finding as it is shown. `tone`: act, fine, told or open, which colours it."""

    anchor: str
    question: str
    subject: str
    verdict: str
    tone: str
    evidence_words: str
    summary: str
    caveats: tuple[str, ...]
    action: str
    thresholds: tuple[tuple[str, str], ...]
    evidence: Table
    plot_anchor: str


@dataclass(frozen=True, slots=True)
class StudyCards:
    """The findings of one study, with the length of training they were drawn from (A30)."""

    study: str
    goal: str
    max_train_steps: int
    good: str
    cards: tuple[Card, ...]


def findings(material: Material) -> list[Section]:
    """All findings about rounds, the newest round first: what needs action, then in the playbook's order."""
    groups = tuple(_cards_of(study) for study in material.newest_first if study.findings)
    return [Section("findings", "findings", groups, "Findings")]


def _cards_of(study: StudyMaterial) -> StudyCards:
    cards = [card_of(placed) for placed in study.placed]
    # What is about the study as a whole need not name it again below the study's heading.
    shown = [replace(card, subject="" if card.subject == study.study.name else card.subject) for card in cards]
    urgent_first = tuple(sorted(shown, key=lambda card: card.tone != "act"))
    good = good_defined(study.frames) if has_curves(study.frames) else ""
    return StudyCards(study.study.name, study.study.goal, study.study.budget.max_train_steps, good, urgent_first)


def asked(finding: Finding) -> str:
    """The question that a finding answers, as a person asks it."""
    return finding.asked.sentence


def card_of(placed: Placed) -> Card:
    """A finding's card, wherever it stands in the page."""
    finding = placed.finding
    return Card(
        anchor=placed.anchor,
        question=asked(finding),
        subject=placed.subject,
        verdict=in_words(finding.verdict),
        tone=finding.tone,
        evidence_words=finding.evidence_words,
        summary=finding.summary,
        caveats=finding.caveats,
        action="" if finding.action == NOTHING_TO_DO else finding.action,
        thresholds=tuple((in_words(name), readable(value)) for name, value in finding.thresholds.items()),
        evidence=table_of(finding.evidence),
        plot_anchor=placed.plot_anchor,
    )
