"""Who decided for how many steps the trials of a study are trained, as data; and its one sentence."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

Decider = Literal[
    "declared", "command_line", "sweep", "production", "too_long", "too_short", "best_steps", "study", "curve",
    "stability", "started", "assumed", "control", "equal_total", "elsewhere", "words", "unknown",
]  # fmt: skip

_SENTENCES: Mapping[Decider, str] = MappingProxyType(
    {
        "declared": "declared in the study file",
        "command_line": "given on the command line",
        "sweep": "{factor:g} times the {steps:,} steps to fit that the sweep found (A18)",
        "production": "{factor:.0%} of the production length of {steps:,} steps (A30)",
        "too_long": "best steps of {study} are {verdict}: {factor:g} times the latest of the good best steps (A14)",
        "too_short": "best steps of {study} are {verdict}: {factor:g} times the {steps:,} steps decide it (A15)",
        "best_steps": "best steps of {study} are {verdict}: the same {steps:,} steps",
        "study": "as {study}",
        "curve": "a length of the curve",
        "stability": "as long as the stability study needs (B36)",
        "started": "as it was started",
        "assumed": "assumed until the sweep has found the steps to fit",
        "control": "as {study}, with which it is compared at equal steps of its own (C5)",
        "equal_total": "as {study} in all: the steps that it trains and the {steps:,} that it inherits (C5)",
        "elsewhere": "of the trials as they were trained elsewhere: {words}",
        "words": "{words}",
        "unknown": "not recorded when the study was started",
    }
)


@dataclass(frozen=True, slots=True)
class BudgetOrigin:
    """Why a study has its step budget: who decided (`by`), and the values that the decision rests on.

    by: "sweep" (`factor` times the `steps` to fit), "production" (the share `factor` of `steps`), "too_long",
    "too_short" and "best_steps" (`verdict` on the best steps of `study`), "study" (the budget of `study`), "control"
    (the steps of `study`), "equal_total" (those and the `steps` that its trials inherit), "elsewhere" (`words`: where
    the trials were trained), "words" (`words`: the sentence that an older version stored), or a decider that needs no
    value.
    """

    by: Decider
    study: str = ""
    verdict: str = ""
    factor: float = 0.0
    steps: int = 0
    words: str = ""

    @property
    def sentence(self) -> str:
        """Where the budget comes from, as it is shown everywhere."""
        return _SENTENCES[self.by].format(**asdict(self))


DECLARED = BudgetOrigin("declared")
ON_THE_COMMAND_LINE = BudgetOrigin("command_line")
AS_STARTED = BudgetOrigin("started")
NOT_RECORDED = BudgetOrigin("unknown")


def budget_of_study(name: str) -> BudgetOrigin:
    """The origin of a budget that is the budget of another study."""
    return BudgetOrigin("study", study=name)
