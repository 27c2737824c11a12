"""Do validation inputs of a stage occur among those that an earlier stage trained on? (C5)

Then the later stage is judged by examples whose inputs its weights have seen, and training from scratch is not: a
comparison of both favours the earlier stage.
"""

from dataclasses import asdict

import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.records.conclusions import StageLeaks
from tuner.storage.store import Ledger

STRONG = 100  # [P] validation inputs that were compared for a strong answer

QUESTION = Question(
    name="leaks",
    sentence="Did an earlier stage train on validation inputs?",
    order=35,
    verdicts=(
        Verdict(
            "leaked",
            "act",
            "Leave these inputs out of the training data of the earlier stage, train it again, or validate on others.",
        ),
        Verdict("none", "fine"),
        Verdict(
            "undecided", "open", "Make sure that no validation example is among the training data of the earlier stage."
        ),
    ),
    thresholds={"strong": STRONG},
    title="Did {subject} train on validation inputs?",
    rules=("C5", "D50"),
)


def leak_findings(ledger: Ledger, campaign: str) -> list[Finding]:
    """One finding for each stage before a campaign, as it was found out at the first launch; none for a first stage."""
    known = ledger.conclusion(campaign, StageLeaks)
    found = []
    for one in known.stages if known is not None else ():
        verdict = "leaked" if one.found else "undecided" if one.why or not one.compared else "none"
        summary = f"{one.words[0].upper()}{one.words[1:]}."
        table = pd.DataFrame([{name: value for name, value in asdict(one).items() if name != "why"}])
        strength: Strength = "strong" if one.compared >= STRONG and one.among == one.of_all else "moderate"
        caveat = (
            "Inputs are found where they are equal to the bit: not on another scale, nor as shifted windows of a text"
        )
        found.append(
            QUESTION.answer(
                one.campaign, verdict, summary, table, strength=strength, caveats=() if one.why else (caveat,)
            )
        )
    return found
