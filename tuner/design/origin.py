"""Where a promoted or imported trial's point came from, as text that people read and programs parse.

A trial with the *same seed* as its parent begins with the same bits, so it can continue from its parent's shared
checkpoint. It also has its parent's luck, so the pair confirms nothing. A trial with *fresh seeds* does (B31, D41).
"""

import re
from dataclasses import dataclass
from typing import Literal

RUN_ORIGIN = "run "  # begins the origin of an imported trial whose run has a name that is no number
Seeds = Literal["same", "fresh"]
_WORDS: dict[str, Seeds] = {"same seed": "same", "fresh seeds": "fresh"}
_TEXT = re.compile(
    r"(?P<study>\S+) trial (?P<trial>\d+)(?:, (?P<seeds>same seed|fresh seeds))?(?:, (?P<rate>\S+) x its rate)?"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The parent of a trial (study and number), whose seeds the trial has, and its multiple of the base rate (D20)."""

    study: str
    trial: int
    seeds: Seeds
    rate: float = 1.0

    def __str__(self) -> str:
        words = next(words for words, seeds in _WORDS.items() if seeds == self.seeds)
        arm = "" if self.rate == 1.0 else f", {self.rate:g} x its rate"
        return f"{self.study} trial {self.trial}, {words}{arm}"

    @property
    def replicates(self) -> bool:
        """Whether the trial trains its parent's point, at the same rate."""
        return self.rate == 1.0


def promoted_from(origin: str) -> Origin | None:
    """The parent that a trial's `origin` names; None for a point that was not promoted.

    An origin without a word about seeds means fresh ones: older versions trained every promoted point with those.
    """
    found = _TEXT.fullmatch(origin)
    if found is None:
        return None
    seeds = _WORDS[found["seeds"] or "fresh seeds"]
    return Origin(found["study"], int(found["trial"]), seeds, float(found["rate"] or 1.0))
