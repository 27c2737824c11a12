"""The section on the regime: how rounds are planned, and whether the curves agree."""

from dataclasses import dataclass

from tuner.report.findings import Card, card_of
from tuner.report.material import Material
from tuner.report.section import Section
from tuner.report.wording import in_words


@dataclass(frozen=True, slots=True)
class RegimePage:
    """`planned`: the regime by which rounds are planned, "" where the records do not say."""

    planned: str
    how: str
    cards: tuple[Card, ...]


def regime(material: Material) -> list[Section]:
    """The regime with its evidence, a contradiction first; nothing where nothing could be asked."""
    found = material.regime
    if found is None:
        return []
    cards = tuple(card_of(placed) for placed in material.placed if placed.anchor.startswith("regime-"))
    return [Section("regime", "regime", RegimePage(in_words(found.verdict), found.how, cards), "Regime")]
