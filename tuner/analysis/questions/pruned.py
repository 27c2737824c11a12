"""Pruned trials: a trial that a pruner ended is not a missing value. At its end it would have been at least this bad.

Its rank shows how bad: a trial that was worse than all but k of the completed trials when it was ended counts like the
completed trial of that rank. Slow starters that would have ended well are the exception that a pruner accepts.
"""

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.judged_trials import bests_at
from tuner.analysis.study_frames import StudyFrames, ranked_trials

MOST = 0.5  # [P] share of pruned trials from which the completed ones are a small, chosen part
EARLY = 0.25  # [P] of the budget: trials that are ended before it are judged by their start

QUESTION = Question(
    name="pruned",
    sentence="Were trials pruned?",
    order=20,
    verdicts=(
        Verdict("some_pruned"),
        Verdict(
            "mostly_pruned",
            "told",
            "Train 10 more trials without a pruner (in Optuna: study.pruner = optuna.pruners.NopPruner()) and with an "
            "even sampler: they show what pruning hides.",
        ),
    ),
    thresholds={"mostly": MOST, "early": EARLY},
    ask=lambda frames: pruned_findings(frames),
)


def pruned_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a pruned trial: trial, step (the last one it reached), fraction (of the budget), value (its best until
    then), better (how many completed trials were better at that step), of (how many were evaluated by then), at_least
    (the final value of the completed trial of that rank: it would be no better; NaN where none can be compared).
    """
    pruned, complete = frames.pruned, ranked_trials(frames)
    columns = ["trial", "step", "fraction", "value", "better", "of", "at_least"]
    if pruned.empty:
        return pd.DataFrame(columns=columns)
    sign = frames.study.objective.sign
    finals = sign * complete["best_value"].to_numpy(dtype=np.float64)
    steps = np.unique(pruned["steps"].to_numpy(dtype=np.int64))
    bests = bests_at(frames, complete["trial"].to_numpy(dtype=np.int64), steps)
    rows = []
    for row in pruned.to_dict("records"):
        step, value = int(row["steps"]), sign * float(row["best_value"])
        then = bests[:, int(np.searchsorted(steps, step))]
        known = np.isfinite(then)
        better = int((then[known] < value).sum()) if np.isfinite(value) else 0
        bound = float("nan")
        if known.any() and np.isfinite(value):
            bound = sign * float(np.sort(finals[known])[min(better, int(known.sum()) - 1)])
        fraction = step / frames.study.budget.max_train_steps
        rows.append((row["trial"], step, fraction, row["best_value"], better, int(known.sum()), bound))
    return pd.DataFrame(rows, columns=columns)


def pruned_findings(frames: StudyFrames) -> list[Finding]:
    """some_pruned or mostly_pruned, with what that means for the other answers; nothing where none was pruned."""
    table = pruned_frame(frames)
    if table.empty:
        return []
    share = len(table) / len(frames.trials)
    mostly = share > MOST
    steps, budget = table["step"], frames.study.budget.max_train_steps
    summary = (
        f"{len(table)} of {len(frames.trials)} trials were pruned, at step {steps.min():,} to {steps.max():,} of "
        f"{budget:,} (median {int(steps.median()):,}). Findings about curves and steps rest on the "
        f"{len(frames.complete)} trials that completed; for the ranges a pruned trial counts as at least as bad as the "
        "completed trial that had its rank when it was ended."
    )
    early = (
        ("Half of the pruned trials were ended in the first quarter of the budget: a configuration that starts slowly "
         "and ends well is missing among the completed ones.",)
        if float(table["fraction"].median()) < EARLY
        else ()
    )  # fmt: skip
    return [
        QUESTION.answer(
            frames.study.name,
            "mostly_pruned" if mostly else "some_pruned",
            summary,
            table,
            strength="strong",
            caveats=early,
        )
    ]
