"""All findings about rounds, as cards: the newest round first, what needs action before the rest."""

from dataclasses import dataclass, replace

from tuner.analysis.good_trials import good_defined
from tuner.analysis.trial_curves import has_curves
from tuner.report.cards import Card, card_of
from tuner.report.material import Material, StudyMaterial
from tuner.report.section import Part, Section


@dataclass(frozen=True, slots=True)
class StudyCards:
    """The findings of one study. max_train_steps: the length of the trials that they rest on (A30)."""

    study: str
    goal: str
    max_train_steps: int
    good: str
    cards: tuple[Card, ...]


def findings(material: Material) -> list[Part]:
    """The findings of each round, the newest round first: what needs action, then in the playbook's order."""
    groups = tuple(_cards_of(study) for study in material.newest_first if study.findings)
    return [Part("findings", groups, "Findings")]


def _cards_of(study: StudyMaterial) -> StudyCards:
    cards = [card_of(placed) for placed in study.placed]
    # Below the study's heading, a finding about the whole study does not repeat its name.
    shown = [replace(card, subject="" if card.subject == study.study.name else card.subject) for card in cards]
    urgent_first = tuple(sorted(shown, key=lambda card: card.tone != "act"))
    good = good_defined(study.frames) if has_curves(study.frames) else ""
    return StudyCards(study.study.name, study.study.goal, study.study.budget.max_train_steps, good, urgent_first)


FINDINGS = Section(name="findings", place=50, make=findings, template="findings")
