"""Questions of the playbook and their answers.

A `Question` is a record: the sentence, the verdicts, and the next action of each verdict. `QUESTIONS` collects
the records of `tuner.analysis.questions`, of plugins and of study files. A `Finding` is one answer, with everything
needed to doubt it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from tuner.analysis.study_frames import StudyFrames, table_in_html
from tuner.registry import Registry
from tuner.shown import in_html, shown

_SHOWN_ROWS = 20  # of the evidence, in a notebook
NOTHING_TO_DO = "Nothing to do."
_OWN_ENGINE = "Compare with what the engine that trained these trials reports."
Strength = Literal["strong", "moderate", "weak", "none"]
Tone = Literal["act", "fine", "told", "open"]
# search: the round searched its points; curves: a trial was evaluated often enough.
Need = Literal["search", "curves"]
# In words, not as marks out of three: the strength of the evidence, not how good the result is.
STRENGTH_WORDS: Mapping[str, str] = {
    "strong": "strong evidence",
    "moderate": "moderate evidence",
    "weak": "weak evidence",
    "none": "not enough data",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the answers to a question.

    tone: "act" where somebody should react (`tuner check` exits with 3), "fine" where a reader may go on, "told" for
        what is neither good nor bad, "open" where the records are not enough: such a finding has no strength.
    action: the next step, where the evidence names no better one.
    """

    name: str
    tone: Tone = "told"
    action: str = NOTHING_TO_DO


NO_CURVES = Verdict("no_curves", "open")  # of every question that needs curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question of the playbook.

    name: as findings, `--fail-on` and JSON name it. sentence: as a report asks it.
    order: its place on a page. scope: whether a round is asked, or the campaign as a whole.
    verdicts: the answers it can have. thresholds: the named numbers that they depend on.
    needs: "search": left out for a round that only trains chosen points; "curves": answered by "no_curves" where
        no trial has a curve.
    relies_on: names of `Promises` without which the answer is open: the engine may not give them.
    ask: answers from the records of one study; None where the evidence is made of more than that.
    title: the heading of a finding, from `question` and `subject`; titles: the headings of some subjects.
    plot: the name of the plot of a study that shows the evidence. rules: the playbook's rules it rests on.
    uneven, pruned: what points that were not chosen evenly, and pruned trials, take from an answer; "" for nothing.
    weakened: an answer of which they take something is not strong, unless it asks for an action.
    elsewhere: the next step for the owner of an imported study, who has other code and no checkpoints; None where the
        finding's action is possible there, too.
    """

    name: str
    sentence: str
    order: int
    verdicts: tuple[Verdict, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    scope: Literal["round", "campaign"] = "round"
    needs: tuple[Need, ...] = ()
    relies_on: tuple[str, ...] = ()
    ask: Callable[[StudyFrames], "Finding | Sequence[Finding]"] | None = None
    title: str = "{question} of {subject}"
    titles: Mapping[str, str] = field(default_factory=dict)
    plot: str = ""
    rules: tuple[str, ...] = ()
    uneven: str = ""
    pruned: str = ""
    weakened: bool = False
    elsewhere: Callable[[StudyFrames, "Finding"], str] | None = None

    @property
    def answers(self) -> tuple[Verdict, ...]:
        """The verdicts, with the one that every question about curves has."""
        return (*self.verdicts, NO_CURVES) if "curves" in self.needs else self.verdicts

    def findings(self, frames: StudyFrames) -> list["Finding"]:
        """The answers from a study; none where `ask` is None."""
        if self.ask is None:
            return []
        found = self.not_promised(frames) or self.ask(frames)
        return [found] if isinstance(found, Finding) else list(found)

    def not_promised(self, frames: StudyFrames) -> "Finding | None":
        """The open answer where the training does not promise what the question relies on; else None."""
        missing = frames.promises.missing_of(self.relies_on)
        if not missing:
            return None
        verdict = next(one.name for one in self.verdicts if one.tone == "open")
        summary = f"The records cannot answer this, because of how these trials were trained: {'; '.join(missing)}."
        return self.answer(frames.study.name, verdict, summary, pd.DataFrame(), action=_OWN_ENGINE)

    def answer(  # noqa: PLR0913 - the fields of a finding
        self,
        subject: str,
        verdict: str,
        summary: str,
        evidence: pd.DataFrame,
        *,
        strength: Strength = "moderate",
        action: str = "",
        caveats: Iterable[str] = (),
    ) -> "Finding":
        """A finding about `subject`. An open verdict has no strength; without `action` the verdict's stands.

        Raises ValueError for a verdict that the question does not have.
        """
        known = next((one for one in self.answers if one.name == verdict), None)
        if known is None:
            names = ", ".join(one.name for one in self.answers)
            raise ValueError(f"{self.name} has no verdict {verdict!r}; it has {names}")
        return Finding(
            question=self.name,
            subject=subject,
            verdict=verdict,
            strength="none" if known.tone == "open" else strength,
            summary=summary,
            evidence=evidence,
            thresholds=self.thresholds,
            action=action or known.action,
            needs_action=known.tone == "act",
            caveats=tuple(caveats),
        )


QUESTIONS: Registry[Question] = Registry(
    "question", Question, package="tuner.analysis.questions", order=lambda question: (question.order, question.name)
)


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """An answer that never overclaims: with its strength, its evidence, the thresholds used and the next action.

    question: the name of its `Question`: "best_steps", "boundary", "infeasible", "sweep", "regime", ...
    subject: what it is about: a hyperparameter's name, or the study.
    verdict: one word; "inconclusive" or "undecided" where the records are not enough.
    needs_action: whether somebody (or exit code 3) should react.
    thresholds: the named numbers the verdict depends on.
    """

    question: str
    subject: str
    verdict: str
    strength: Strength
    summary: str
    evidence: pd.DataFrame
    thresholds: Mapping[str, float]
    action: str
    needs_action: bool = False
    caveats: tuple[str, ...] = field(default=())

    @property
    def asked(self) -> Question:
        """The record of its question."""
        return QUESTIONS.get(self.question)

    @property
    def about(self) -> str:
        """The subject: a hyperparameter by its name; for a whole study with the question."""
        asked = self.asked
        title = asked.titles.get(self.subject, asked.title)
        return title.format(question=self.question.replace("_", " "), subject=self.subject)

    @property
    def tone(self) -> Tone:
        """As of the verdict; "act" only where an action is needed, "open" wherever there is no strength."""
        if self.needs_action:
            return "act"
        if self.strength == "none":
            return "open"
        return "fine" if any(one.name == self.verdict and one.tone == "fine" for one in self.asked.verdicts) else "told"

    @property
    def evidence_words(self) -> str:
        """The strength in words."""
        return STRENGTH_WORDS[self.strength]

    @property
    def heading(self) -> str:
        """`about` as it stands before the verdict."""
        return self.about if self.about.endswith("?") else f"{self.about}:"

    def __repr__(self) -> str:
        """As `tuner check` prints it, without the evidence."""
        mark, notes = "⚠ " * self.needs_action, [f"  note: {caveat}" for caveat in self.caveats]
        head = f"{mark}{self.heading} {self.verdict} ({self.evidence_words})"
        return "\n".join(map(shown, [head, f"  {self.summary}", *notes, f"  → {self.action}"]))

    def _repr_html_(self) -> str:
        """How a notebook shows it: verdict, strength, summary, caveats, action, and the evidence folded away."""
        notes = "".join(f"<li>{in_html(caveat)}</li>" for caveat in self.caveats)
        evidence = table_in_html(self.evidence.head(_SHOWN_ROWS))
        return (
            f"<div><b>{in_html(self.question.replace('_', ' '))}</b> of {in_html(self.subject)}: "
            f"<b>{'⚠ ' if self.needs_action else ''}{in_html(self.verdict)}</b> ({self.evidence_words})"
            f"<p>{in_html(self.summary)}</p>{f'<ul>{notes}</ul>' if notes else ''}<p>→ {in_html(self.action)}</p>"
            f"<details><summary>evidence, {len(self.evidence)} rows</summary>{evidence}</details></div>"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for `-f json`; numbers that JSON cannot hold become null."""
        return {
            "question": self.question,
            "subject": self.subject,
            "verdict": self.verdict,
            "strength": self.strength,
            "summary": self.summary,
            "evidence": [_plain(row) for row in self.evidence.to_dict(orient="records")],
            "thresholds": dict(self.thresholds),
            "action": self.action,
            "needs_action": self.needs_action,
            "caveats": list(self.caveats),
        }


def needing_action(findings: Iterable[Finding]) -> list[Finding]:
    """Those somebody should react to, in order."""
    return [finding for finding in findings if finding.needs_action]


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _plain_value(value) for name, value in row.items()}


def _plain_value(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
