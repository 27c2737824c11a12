"""How much each hyperparameter matters, by Optuna's PED-ANOVA; the evaluator is named, because others answer otherwise.

On the same trials fANOVA said 0.79 and 0.21 where PED-ANOVA said 0.60 and 0.40. Importances say what separates the
good trials from all others in the space that was searched, and nothing about another space.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from tuner.analysis.checklist import only_promoted
from tuner.analysis.finding import Finding
from tuner.analysis.questions.importance import MINIMUM_TRIALS, QUESTION
from tuner.analysis.questions.insensitivity import insensitivity_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.design.hyperparameters import Value
from tuner.design.points import Point
from tuner.rounds.proposals import Known, quiet, study_of

EVALUATOR = "PED-ANOVA"
MOST_TRIALS = 2000  # [P] evenly over the ranking, which keeps the share of the good: more take seconds to rebuild


def importances_frame(frames: StudyFrames) -> pd.DataFrame:
    """Columns hyperparameter and importance (a share of 1), greatest first; no rows where too few trials are known.

    Hyperparameters that exist only in one branch are left out: the evaluator compares what all trials have.
    """
    columns = ["hyperparameter", "importance"]
    common = [h.name for h in frames.study.space if h.condition is None]
    complete = frames.complete
    if len(complete) < MINIMUM_TRIALS or not common or complete["best_value"].nunique() < 2:
        return pd.DataFrame(columns=columns)
    known = [
        Known(Point.of({name: _value(row[name]) for name in frames.hyperparameters if pd.notna(row[name])}),
              float(row["best_value"]))
        for row in _thinned(complete).to_dict("records")
    ]  # fmt: skip
    with quiet():
        study = study_of(frames.study.space, frames.study.objective.direction, known)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=common)
    table = pd.DataFrame(list(found.items()), columns=columns)
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def _thinned(complete: pd.DataFrame) -> pd.DataFrame:
    if len(complete) <= MOST_TRIALS:
        return complete
    places = np.linspace(0, len(complete) - 1, MOST_TRIALS).round().astype(int)
    return complete.sort_values("best_value", kind="stable").iloc[places]


def importances(frames: StudyFrames) -> list[Finding]:
    """The finding, of a study that searched several hyperparameters; a promoted round compares chosen points."""
    if only_promoted(frames) or len(frames.hyperparameters) < 2:
        return []
    found = importances_finding(frames)
    if found.verdict != "known" or insensitivity_finding(frames).verdict != "insensitive":
        return [found]
    noise = "The results do not depend on anything that was searched, so these are shares of noise."
    return [replace(found, verdict="inconclusive", strength="none", caveats=(noise, *found.caveats))]


def importances_finding(frames: StudyFrames) -> Finding:
    """known, or inconclusive with too few trials."""
    table = importances_frame(frames)
    verdict = "inconclusive" if table.empty else "known"
    told = ", ".join(f"{row.hyperparameter} {row.importance:.2f}" for row in table.itertuples())
    summary = (
        f"By {EVALUATOR}, over the {len(frames.complete)} completed trials: {told}."
        if told
        else f"Fewer than {MINIMUM_TRIALS} completed trials, or all alike."
    )
    caveats = ("Another evaluator gives other shares, and another space other importances.",) if told else ()
    return QUESTION.answer(
        frames.study.name, verdict, summary, table.assign(evaluator=EVALUATOR), strength="weak", caveats=caveats
    )


def _value(value: Any) -> Value:
    """As a point holds it: no number of numpy's."""
    return value.item() if hasattr(value, "item") else value  # type: ignore[no-any-return]
