"""The top of the page: what this is, the answer, what to do next; and every finding behind it, as a card."""

from dataclasses import dataclass, replace

import pandas as pd

from tuner.analysis.good_trials import good_defined
from tuner.analysis.trial_curves import has_curves
from tuner.records import State
from tuner.report.cards import Card, asked, card_of
from tuner.report.material import Material, Placed, StudyMaterial
from tuner.report.section import Part, Section
from tuner.report.winner import BestConfiguration, winner_of
from tuner.report.wording import in_words, moment, readable_moment
from tuner.shown import counted

# The bar shows trials with a result first.
_STATES = (State.COMPLETE, State.INFEASIBLE, State.FAILED, State.CANCELLED, State.RUNNING, State.WAITING)


@dataclass(frozen=True, slots=True)
class Share:
    """Trials in one state, and their share of all trials in percent."""

    state: str
    count: int
    percent: float


@dataclass(frozen=True, slots=True)
class Masthead:
    """What the records are and where they come from. goals: the goal of each round, by the round's name."""

    campaign: str
    goals: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A finding in one line, with the anchor of its card. tone: sets the colour."""

    anchor: str
    study: str
    subject: str
    question: str
    verdict: str
    action: str
    tone: str
    evidence_words: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The best configuration, what needs action, and every verdict: newest round first, then the budget.

    followed: findings whose action a later round took, with what that round did.
    """

    winner: BestConfiguration | None
    actions: tuple[Line, ...]
    followed: tuple[tuple[Line, str], ...]
    verdicts: tuple[tuple[str, tuple[Line, ...]], ...]

    @property
    def num_undecided(self) -> int:
        return sum(line.tone == "open" for _, lines in self.verdicts for line in lines)


def masthead(material: Material) -> list[Part]:
    """Campaign, goals, trials by state, steps of the rounds; the sweep is counted separately."""
    counted_ones = material.rounds or material.stages
    states = (
        pd.concat([study.frames.trials["state"] for study in counted_ones]) if counted_ones else pd.Series(dtype=str)
    )
    counts = {state: int((states == state.value).sum()) for state in _STATES}
    total = max(1, len(states))
    shares = tuple(Share(state.value, count, 100 * count / total) for state, count in counts.items() if count)
    goals = tuple((study.study.name, study.study.goal) for study in material.rounds)
    content = Masthead(material.campaign, goals, tuple(_facts(material)), shares)
    return [Part("top", content)]


def _facts(material: Material) -> list[tuple[str, str]]:
    studies = material.studies
    objectives = dict.fromkeys(f"{s.study.objective.direction} {s.study.objective.metric}" for s in studies)
    sweep = ("Sweep", f"{_trials(material.stages)}, {_steps(material.stages):,} steps") if material.stages else None
    planned = sum(len(study.frames.trials) * study.study.budget.max_train_steps for study in material.rounds)
    rounds = [
        ("Rounds", f"{_trials(material.rounds)} in {counted(len(material.rounds), 'round')}"),
        ("Steps of the rounds", f"{_steps(material.rounds):,} of {planned:,} planned"),
    ]
    return [
        ("Objective", "; ".join(objectives) or "none yet"),
        *(rounds if material.rounds else []),
        *([sweep] if sweep else []),
        *_beginning(material),
        ("Page written", moment(material.written)),
        ("Records", material.ledger.safe_url),
        *([] if _elsewhere(material) else [("Code", code_of(material))]),
    ]


def _elsewhere(material: Material) -> bool:
    """Whether all studies were trained elsewhere."""
    return bool(material.studies) and all(study.study.source for study in material.studies)


def _beginning(material: Material) -> list[tuple[str, str]]:
    """When the campaign started; for a study from elsewhere its import, and the first trial's start where recorded."""
    if not material.studies:
        return [("Started", "not yet")]
    first = material.studies[0]
    if not first.study.source:
        return [("Started", readable_moment(first.row.created))]
    began = material.ledger.first_start(first.row.study_id)
    known = [("Started", readable_moment(began))] if began is not None else []
    return [*known, ("Imported", f"{readable_moment(first.row.created)}, from {first.study.source}")]


def _trials(studies: tuple[StudyMaterial, ...]) -> str:
    return counted(sum(len(study.frames.trials) for study in studies), "trial")


def _steps(studies: tuple[StudyMaterial, ...]) -> int:
    return sum(int(study.frames.trials["steps"].sum()) for study in studies)


def code_of(material: Material) -> str:
    """The revision of the last launch (B45)."""
    launch = material.last_launch
    commit = str((launch.revision if launch else {}).get("commit") or "")
    if not commit or launch is None:
        return "no revision recorded"
    changed = launch.revision.get("uncommitted")
    return f"commit {commit[:12]}{', with uncommitted changes' if changed else ''}"


def summary(material: Material) -> list[Part]:
    """The answer: the best configuration, the next actions, all verdicts."""
    groups = [(study.study.name, _lines(study.study.name, study.placed)) for study in material.newest_first]
    groups.append(("the budget", _lines("", material.placed)))
    told = tuple((name, lines) for name, lines in groups if lines)
    urgent = [line for _, lines in told for line in lines if line.tone == "act"]
    followed = _followed(material)
    actions = tuple(line for line in urgent if line.anchor not in followed)
    done = tuple((line, followed[line.anchor]) for line in urgent if line.anchor in followed)
    return [Part("summary", Summary(winner_of(material), actions, done, told), "Summary")]


def _followed(material: Material) -> dict[str, str]:
    """Findings whose action a later round took, by anchor: a longer round followed a budget that may be too short."""
    found: dict[str, str] = {}
    for place, study in enumerate(material.main_rounds):
        steps = study.study.budget.max_train_steps
        longer = [later for later in material.main_rounds[place + 1 :] if later.study.budget.max_train_steps > steps]
        done = next((later for later in longer if len(later.frames.complete)), None)
        late = [one.anchor for one in study.placed if one.finding.verdict == "maybe_too_short"]
        if done is not None:
            words = f"{done.study.name} trained {counted(done.study.budget.max_train_steps, 'step')}"
            found |= dict.fromkeys(late, words)
    return found


def _lines(study: str, group: tuple[Placed, ...]) -> tuple[Line, ...]:
    return tuple(_line(study, placed) for placed in group)


def _line(study: str, placed: Placed) -> Line:
    finding = placed.finding
    return Line(
        anchor=placed.anchor,
        study=study or "the budget",
        subject=placed.subject if placed.subject != study else in_words(finding.question),
        question=asked(finding),
        verdict=in_words(finding.verdict),
        action=finding.action,
        tone=finding.tone,
        evidence_words=finding.evidence_words,
    )


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


MASTHEAD = Section(name="masthead", place=10, make=masthead, template="masthead")
SUMMARY = Section(name="summary", place=20, make=summary, template="summary")
FINDINGS = Section(name="findings", place=50, make=findings, template="findings")
