"""A question of the checklist with its answer, and everything needed to doubt it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from tuner.analysis.study_frames import table_in_html
from tuner.shown import in_html, shown

_SHOWN_ROWS = 20  # of the evidence, in a notebook
NOTHING_TO_DO = "Nothing to do."
_OF_A_STUDY = (
    "enough_points", "infeasible", "instability", "overfitting", "late_variance", "improvement", "training_loss",
    "best_steps", "regime", "warmup", "adoption", "importance", "periodicity", "insensitivity", "effort", "isolation",
    "transfer", "longer_training", "stale_budget", "failed_trials", "pruned",
)  # fmt: skip
# Subjects that name no hyperparameter: the question says what was asked of them.
_NAMED_BY_A_NOUN = {
    ("transfer", "winner"): "Is the winner still better than its rival?",
    ("transfer", "ranking"): "Do configurations rank as they did?",
    ("transfer", "best regions"): "Are the best ranges still the same?",
}
Strength = Literal["strong", "moderate", "weak", "none"]
Tone = Literal["act", "fine", "told", "open"]
# In words, not as marks out of three: it says how much the records show, not how good the result is.
STRENGTH_WORDS: Mapping[str, str] = {
    "strong": "strong evidence",
    "moderate": "moderate evidence",
    "weak": "weak evidence",
    "none": "not enough data",
}
# Verdicts by which a reader may go on without another thought; every other one tells something to know.
_NOTHING_FOLLOWS = ("ok", "enough", "equal", "none", "confirmed", "gained", "fitted", "adopt")


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """An answer that never overclaims: with its strength, its evidence, the thresholds used and the next action.

    question: "best_steps", "boundary", "infeasible", "sweep", "regime", ...
    subject: what it is about: a hyperparameter's name, or the study.
    verdict: one word; "inconclusive" or "undecided" where the records do not decide.
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
    def about(self) -> str:
        """A hyperparameter by its name; of a whole study the question says more."""
        if (self.question, self.subject) in _NAMED_BY_A_NOUN:
            return _NAMED_BY_A_NOUN[self.question, self.subject]
        if self.question == "isolation":
            return f"Which {self.subject} is best?"
        asked = self.question.replace("_", " ")
        return f"{asked} of {self.subject}" if self.question in _OF_A_STUDY else self.subject

    @property
    def tone(self) -> Tone:
        """act: somebody should react. open: not known. fine: nothing to do. told: known, and neither good nor bad."""
        if self.needs_action:
            return "act"
        if self.strength == "none":
            return "open"
        return "fine" if self.verdict in _NOTHING_FOLLOWS else "told"

    @property
    def evidence_words(self) -> str:
        """The strength as a person says it."""
        return STRENGTH_WORDS[self.strength]

    @property
    def heading(self) -> str:
        """`about` as it stands before the verdict."""
        return self.about if self.about.endswith("?") else f"{self.about}:"

    def __repr__(self) -> str:
        """As `tuner check` says it; the evidence is a frame of its own."""
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
