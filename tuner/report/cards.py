"""A finding as a card: question, verdict, strength, caveats, next action, and the evidence."""

from dataclasses import dataclass

from tuner.analysis.finding import NOTHING_TO_DO, Finding
from tuner.report.material import Placed
from tuner.report.tables import Table, table_of
from tuner.report.wording import in_words, readable


@dataclass(frozen=True, slots=True)
class Card:
    """A finding as the page shows it. tone: act, fine, told or open; the tone sets the colour."""

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


def asked(finding: Finding) -> str:
    """The question that a finding answers, as a person asks it."""
    return finding.asked.sentence


def card_of(placed: Placed) -> Card:
    """The card of a finding."""
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
