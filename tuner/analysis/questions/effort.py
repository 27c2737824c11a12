"""Equal effort: did each scientific value get as many trials as the others (B15, B16, D41)?"""

import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.questions.isolation import MINIMUM_EACH, isolation_frame, scientific_names
from tuner.analysis.study_frames import StudyFrames

UNEQUAL = 1.5  # [P] times as many completed trials make a comparison unfair
STRONG = 10  # [P] completed trials of each value for a strong answer
SMALL = 3  # [P] trials: every quasi-random design has differences of this size

QUESTION = Question(
    name="effort",
    sentence="Did each value get as many trials?",
    order=230,
    verdicts=(
        Verdict("equal", "fine"),
        Verdict(
            "unequal",
            "act",
            "Complete more trials of the values that have few, before their bests are compared (B15).",
        ),
        Verdict("inconclusive", "open", f"Complete at least {MINIMUM_EACH} trials of every value (B15, B16)."),
    ),
    thresholds={"unequal": UNEQUAL, "small_difference": SMALL, "minimum_each": MINIMUM_EACH, "strong": STRONG},
    needs=("search",),
    ask=lambda frames: effort_findings(frames),
    plot="isolation",
    rules=("B15", "B16", "D41"),
    uneven="values that looked worse at first got fewer trials",
    pruned="values with many pruned trials completed fewer",
)


def effort_findings(frames: StudyFrames) -> list[Finding]:
    """For each scientific hyperparameter: equal, unequal or inconclusive; nothing where nothing is scientific."""
    return [_finding(frames, name) for name in scientific_names(frames)]


def _finding(frames: StudyFrames, name: str) -> Finding:
    table = isolation_frame(frames, name)[["hyperparameter", "value", "trials", "complete"]]
    least, most = int(table["complete"].min()), int(table["complete"].max())
    unequal = most - least > SMALL and most > UNEQUAL * max(least, 1)
    verdict = "unequal" if unequal else "inconclusive" if least < MINIMUM_EACH else "equal"
    strength: Strength = "strong" if most >= STRONG else "moderate"
    because = {
        "unequal": _luck(least, most),
        "equal": "No value had a relevant advantage.",
        "inconclusive": f"A value needs {MINIMUM_EACH} trials before it can be compared, however equal the counts.",
    }
    return QUESTION.answer(name, verdict, f"{_counts(table)}. {because[verdict]}", table, strength=strength)


def _counts(table: pd.DataFrame) -> str:
    return "Completed trials: " + ", ".join(f"{row['value']} {row['complete']}" for row in table.to_dict("records"))


def _luck(least: int, most: int) -> str:
    """Between equal configurations the best of n beats the best of m with chance n / (n + m) (F6)."""
    chance = most / (most + least)
    return f"With no real difference the best of {most} beats the best of {least} with chance {chance:.0%}."
