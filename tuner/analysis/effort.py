"""Equal effort: was each scientific value given as many chances as the others (B15, B16, D41)?"""

import pandas as pd

from tuner.analysis.finding import Finding
from tuner.analysis.isolation import isolation_frame, scientific_names
from tuner.analysis.study_frames import StudyFrames

UNEQUAL = 1.5  # [P] times as many completed trials make a comparison unfair
SMALL = 3  # [P] a difference of no more trials is that of any quasi-random design


def effort_findings(frames: StudyFrames) -> list[Finding]:
    """For each scientific hyperparameter: equal or unequal; nothing where nothing is scientific."""
    return [_finding(frames, name) for name in scientific_names(frames)]


def _finding(frames: StudyFrames, name: str) -> Finding:
    table = isolation_frame(frames, name)[["hyperparameter", "value", "trials", "complete"]]
    least, most = int(table["complete"].min()), int(table["complete"].max())
    unequal = most - least > SMALL and most > UNEQUAL * max(least, 1)
    return Finding(
        question="effort",
        subject=name,
        verdict="unequal" if unequal else "equal",
        strength="strong",
        summary=f"{_counts(table)}. {_luck(least, most) if unequal else 'No value had an advantage worth the name.'}",
        evidence=table,
        thresholds={"unequal": UNEQUAL, "small_difference": SMALL},
        action="Complete more trials of the values that have few, before their bests are compared (B15)."
        if unequal
        else "Nothing to do.",
        needs_action=unequal,
    )


def _counts(table: pd.DataFrame) -> str:
    return "Completed trials: " + ", ".join(f"{row['value']} {row['complete']}" for row in table.to_dict("records"))


def _luck(least: int, most: int) -> str:
    """Of equal configurations the best of n beats the best of m with chance n / (n + m) (F6)."""
    chance = most / (most + least)
    return f"With no real difference the best of {most} beats the best of {least} with chance {chance:.0%}."
