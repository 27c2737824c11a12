"""The variance from step to step late in training, against the distances between the best trials (B26)."""

from dataclasses import replace

import pandas as pd

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.good_trials import (
    evaluation_noise,
    good_in_words,
    good_trials,
    late_evaluation_noise,
    noise_in_words,
    own_steps_caveats,
)
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import common_curves
from tuner.budget.step_budget import MINIMUM_EVALUATIONS

TOP = 10  # [P] best good trials whose distances are compared
MINIMUM_TOP = 3  # [P] good trials below which distances show nothing
MINIMUM_LATE = 10  # [P] evaluations of a trial below which its standard deviation is not known
NOISY = 0.5  # [P] the evaluation noise over the typical distance of the top trials from the best

_FEW_TRIALS = f"Complete at least {MINIMUM_TOP} good trials, then ask again."
QUESTION = Question(
    name="late_variance",
    sentence="Can the best trials be told apart?",
    order=150,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict(
            "noisy",
            "told",
            "Treat the top trials as tied: train them again with fresh seeds before one is chosen (B32). A larger "
            "batch, more validation data, a decaying learning rate or averaged weights reduce the variance (B26).",
        ),
        Verdict(
            "inconclusive", "open", f"Evaluate each trial at least {MINIMUM_EVALUATIONS} times, then ask again (D14)."
        ),
    ),
    thresholds={"top": TOP, "noisy": NOISY, "minimum_trials": MINIMUM_TOP, "minimum_evaluations": MINIMUM_LATE},
    needs=("curves",),
    ask=lambda frames: late_variance_finding(frames),
    plot="curves",
    rules=("B26", "B32", "D14"),
    pruned="they take no part here",
)


def late_variance_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a top trial, best first: trial, best_value, late_noise, gap (to the best trial's value).

    late_noise: the evaluation noise of the trial in the last part of the run; NaN with fewer than 10 evaluations.
    """
    trials = good_trials(frames).head(TOP)
    curves = common_curves(frames, trials["trial"])
    table = trials[["trial", "best_value"]].reset_index(drop=True)
    table["late_noise"] = pd.Series(late_evaluation_noise(frames, curves), dtype=float).where(
        curves.evaluations >= MINIMUM_LATE
    )
    table["gap"] = (table["best_value"] - table["best_value"].iloc[0]).abs() if len(table) else []
    return table


def late_variance_finding(frames: StudyFrames) -> Finding:
    """noisy, ok or inconclusive."""
    table = late_variance_frame(frames)
    measured = bool(table["late_noise"].notna().sum() * 2 > len(table))
    known = len(table) >= MINIMUM_TOP and measured
    noise = evaluation_noise(frames) if known else float("nan")
    gap = float(table["gap"].iloc[1:].median()) if known else float("nan")
    verdict = "inconclusive" if not known else "noisy" if noise > NOISY * gap else "ok"
    summary = f"{good_in_words(frames)}: "
    if known:
        summary += f"the next {len(table) - 1} lie {gap:.2g} from the best (median).{noise_in_words(noise) or _CALM}"
    else:
        few = measured or table.empty
        summary += "too few to compare." if few else f"most have fewer than {MINIMUM_LATE} evaluations."
    curves = common_curves(frames, table["trial"])
    found = QUESTION.answer(
        frames.study.name, verdict, summary, table, caveats=own_steps_caveats(curves) if known else ()
    )
    few = verdict == "inconclusive" and (measured or table.empty)
    return replace(found, action=_FEW_TRIALS) if few else found


_CALM = " The evaluations show no noise at all."
