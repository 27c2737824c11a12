"""Trials of different lengths at an equal number of steps: what the extra steps gained (A29, A35).

The first steps of a long trial are not a short trial, because the learning rate has not decayed there (D21). So both
values are shown: after an equal number of steps, and at the end.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.replicates import LEVEL, gained_or_lost, transfer_pairs
from tuner.analysis.study_frames import StudyFrames, stopping_words

MINIMUM_PAIRS = 2  # fresh pairs below which a gain has no standard deviation

QUESTION = Question(
    name="longer_training",
    sentence="Did training longer help?",
    order=300,
    verdicts=(Verdict("gained", "fine"), Verdict("no_gain"), Verdict("inconclusive", "open")),
    thresholds={"level": LEVEL, "minimum_pairs": MINIMUM_PAIRS},
    plot="transfer",
    rules=("A29", "A35", "D21"),
)
_UNSHOWN = (
    "Keep to {short} steps unless fresh seeds at both lengths show a gain: tuner budget-curve STUDY_FILE --seeds 3."
)
UNTIL_COMPLETE = "Let the trials of this round complete, then ask again."
_ACTIONS = {"gained": "Keep the {long} steps.", "no_gain": _UNSHOWN, "inconclusive": _UNSHOWN}


def equal_steps_frame(rounds: Sequence[StudyFrames]) -> pd.DataFrame:
    """One row a complete trial of any round: study, trial, max_train_steps, then its best value up to each length.

    The columns `within_N` hold the best value over the first N steps, for the lengths of all rounds, ascending; NaN
    where the trial is shorter or was not evaluated by then.
    """
    lengths = sorted({frames.study.budget.max_train_steps for frames in rounds})
    parts = [_up_to_each(frames, lengths) for frames in rounds if len(frames.complete)]
    columns = ["study", "trial", "max_train_steps", *(f"within_{length}" for length in lengths)]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def longer_training_finding(before: StudyFrames, after: StudyFrames) -> Finding:
    """Did the promoted points gain by training longer, beyond the noise of training again?"""
    pairs = transfer_pairs(before, after)
    pairs = pairs[pairs["complete"] & (pairs["rate"] == 1.0)].reset_index(drop=True)
    short, long = before.study.budget.max_train_steps, after.study.budget.max_train_steps
    table = equal_steps_frame([before, after])
    mine = table[table["study"] == after.study.name].set_index("trial")
    pairs["within_equal_steps"] = pairs["trial"].map(mine.get(f"within_{min(short, long)}", pd.Series(dtype=float)))
    sign = before.study.objective.sign
    pairs["gain"] = sign * (pairs["value_before"] - pairs["value"])
    verdict, summary = _verdict(pairs, short, long)
    few = int((pairs["seeds"] == "fresh").sum()) < MINIMUM_PAIRS
    if few and after.stopped_early().any():
        summary = f"{stopping_words(after)}. {summary}"
    action = (
        UNTIL_COMPLETE if few and after.unfinished else _ACTIONS[verdict].format(short=f"{short:,}", long=f"{long:,}")
    )
    return QUESTION.answer(
        after.study.name,
        verdict,
        summary,
        pairs,
        strength="weak",
        action=action,
        caveats=(
            *_not_decayed(after, min(short, long), max(short, long)),
            "The earlier round's values were selected for being good, so the gain is understated (winner's curse).",
        ),
    )


def _verdict(pairs: pd.DataFrame, short: int, long: int) -> tuple[str, str]:
    fresh = pairs[pairs["seeds"] == "fresh"]
    if len(fresh) < MINIMUM_PAIRS:
        return "inconclusive", (
            f"{len(fresh)} of the promoted configurations were trained for {long:,} steps with fresh seeds; telling a "
            f"gain from noise takes {MINIMUM_PAIRS} or more."
        )
    gains = fresh["gain"].to_numpy(dtype=np.float64)
    error = float(gains.std(ddof=1)) / np.sqrt(len(gains))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2.0, len(gains) - 1)) * error
    summary = (
        f"{long:,} steps in place of {short:,} {gained_or_lost(float(gains.mean()))} ± {reach:.2g} over "
        f"{len(gains)} trainings with fresh seeds"
    )
    if gains.mean() > reach:
        return "gained", f"{summary}."
    if gains.mean() < -reach:
        return "no_gain", f"{summary}: the longer trials are worse."
    return "inconclusive", f"{summary}, which may be noise."


def _up_to_each(frames: StudyFrames, lengths: Sequence[int]) -> pd.DataFrame:
    sign = frames.study.objective.sign
    curves = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
    curves = curves[np.isfinite(curves["value"].to_numpy())]
    table = frames.complete[["trial"]].reset_index(drop=True)
    table["study"] = frames.study.name
    table["max_train_steps"] = frames.study.budget.max_train_steps
    for length in lengths:
        best = sign * (sign * curves.loc[curves["step"] <= length, "value"]).groupby(curves["trial"]).min()
        within = length <= frames.study.budget.max_train_steps
        table[f"within_{length}"] = table["trial"].map(best) if within else np.nan
    return table


def _not_decayed(frames: StudyFrames, short: int, long: int) -> tuple[str, ...]:
    """What to know of a value in the midst of a long trial, where the rates of the trials are known."""
    if not frames.promises.follows_schedule:
        return ()
    return (
        f"After {short:,} steps a trial of {long:,} has not decayed its rate yet; the value there is not the result of "
        "a short trial (D21).",
    )
