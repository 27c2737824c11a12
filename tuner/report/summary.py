"""The top of the page: what this is, the answer, and what to do next."""

from dataclasses import dataclass

import pandas as pd

from tuner.records import State
from tuner.report.findings import tone_of
from tuner.report.material import Material, StudyMaterial
from tuner.report.section import Section
from tuner.report.winner import Winner, winner_of
from tuner.report.wording import STRENGTH_DOTS, counted, in_words, moment, readable_moment

# What has a result comes first in the bar of states.
_STATES = (State.COMPLETE, State.INFEASIBLE, State.FAILED, State.CANCELLED, State.RUNNING, State.WAITING)


@dataclass(frozen=True, slots=True)
class Share:
    """Trials in one state, and their part of all in percent."""

    state: str
    count: int
    percent: float


@dataclass(frozen=True, slots=True)
class Masthead:
    """What the records are, and where they come from: names and values in `facts`."""

    campaign: str
    goals: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A finding in a line, with the anchor of its card and the tone that colours it."""

    anchor: str
    study: str
    subject: str
    verdict: str
    action: str
    tone: str
    strength: str
    dots: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The winner, what needs action, and every verdict; the newest study first."""

    winner: Winner | None
    actions: tuple[Line, ...]
    verdicts: tuple[tuple[str, tuple[Line, ...]], ...]

    @property
    def num_undecided(self) -> int:
        return sum(line.tone == "open" for _, lines in self.verdicts for line in lines)


def masthead(material: Material) -> list[Section]:
    """Campaign, objective, trials by state, steps, where the records are, which code."""
    trials = [study.frames.trials for study in material.studies]
    states = pd.concat([table["state"] for table in trials]) if trials else pd.Series(dtype=str)
    counts = {state: int((states == state.value).sum()) for state in _STATES}
    total = max(1, len(states))
    shares = tuple(Share(state.value, count, 100 * count / total) for state, count in counts.items() if count)
    goals = tuple(f"{study.study.name}: {study.study.goal}" for study in material.studies)
    content = Masthead(material.campaign, goals, tuple(_facts(material, trials)), shares)
    return [Section("masthead", "top", content)]


def _facts(material: Material, trials: list[pd.DataFrame]) -> list[tuple[str, str]]:
    objectives = dict.fromkeys(f"{s.study.objective.direction} {s.study.objective.metric}" for s in material.studies)
    steps = sum(int(table["steps"].sum()) for table in trials)
    planned = sum(len(study.frames.trials) * study.study.budget.max_train_steps for study in material.studies)
    return [
        ("Objective", "; ".join(objectives) or "none yet"),
        ("Trials", f"{counted(sum(map(len, trials)), 'trial')} in {counted(len(trials), 'study')}"),
        ("Steps", f"{steps:,} of {planned:,} planned"),
        ("Started", readable_moment(material.studies[0].row.created) if material.studies else "not yet"),
        ("Page written", moment(material.written)),
        ("Records", material.ledger.safe_url),
        ("Code", code_of(material)),
    ]


def code_of(material: Material) -> str:
    """The revision of the last launch (B45)."""
    launch = material.last_launch
    commit = str((launch.revision if launch else {}).get("commit") or "")
    if not commit or launch is None:
        return "no revision recorded"
    changed = launch.revision.get("uncommitted")
    return f"commit {commit[:12]}{', with uncommitted changes' if changed else ''}"


def summary(material: Material) -> list[Section]:
    """The answer first."""
    lines = {study.study.name: _lines(study) for study in material.newest_first if study.findings}
    actions = tuple(line for group in lines.values() for line in group if line.tone == "act")
    return [Section("summary", "summary", Summary(winner_of(material), actions, tuple(lines.items())), "Summary")]


def _lines(study: StudyMaterial) -> tuple[Line, ...]:
    return tuple(
        Line(
            anchor=study.finding_anchor(index),
            study=study.study.name,
            subject=finding.subject if finding.subject != study.study.name else in_words(finding.question),
            verdict=in_words(finding.verdict),
            action=finding.action,
            tone=tone_of(finding),
            strength=finding.strength,
            dots=STRENGTH_DOTS[finding.strength],
        )
        for index, finding in enumerate(study.findings)
    )
