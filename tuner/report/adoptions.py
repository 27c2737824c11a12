"""The log of adoptions: how the baseline came to be what it is, and the evidence behind each answer (B32-B34)."""

from dataclasses import dataclass

from tuner.analysis.questions.adoption import adoption_log, concluded_findings
from tuner.report.findings import Card, card_of
from tuner.report.material import Material, Placed
from tuner.report.section import Section
from tuner.report.tables import Table, table_of


@dataclass(frozen=True, slots=True)
class Adoptions:
    """`log`: a row an answer, oldest first. `cards`: the same answers with their evidence."""

    log: Table
    cards: tuple[Card, ...]


def adoptions(material: Material) -> list[Section]:
    """The log and its cards; nothing before the first adoption study was concluded."""
    log = adoption_log(material.ledger, material.campaign)
    if log.empty:
        return []
    found = concluded_findings(material.ledger, material.campaign)
    cards = tuple(card_of(Placed(f"adoption-{n}", one.subject, one)) for n, one in enumerate(found, 1))
    adopted = [place for place, verdict in enumerate(log["verdict"]) if verdict == "adopt"]
    shown = log[["candidate", "baseline", "verdict", "gain", "low", "high", "level", "replicates", "metric"]]
    return [Section("adoptions", "adoptions", Adoptions(table_of(shown, marked=adopted), cards), "Adoptions")]
