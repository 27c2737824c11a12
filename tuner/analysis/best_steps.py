"""Best steps: was the step budget right (A13-A15)?

The raw best step is shown, but on a noisy plateau it lies anywhere (D10, F5). So the verdict rests on levels: what
the good trials gained after the first 10 % of the budget, and in its last 25 %, against the noise of an evaluation
and the differences between trials.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tuner.analysis.budget_verdict import (
    EARLY,
    LATE,
    NEGLIGIBLE_EARLY,
    NEGLIGIBLE_LATE,
    THRESHOLDS,
    judged,
    pooled_gain,
    too_little_evidence,
)
from tuner.analysis.finding import Finding, Strength
from tuner.analysis.good_trials import curve_matrix, good_trials
from tuner.analysis.levels import Array, earliest_within_noise, gains_after
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.step_budget import MINIMUM_EVALUATIONS, rounded_up

SHORTER_BUDGET = 2.5  # [P] times the latest good best step is the budget proposed for too_long (A14, D15)
LONGER_BUDGET = 2  # [S] times the budget is the decisive experiment for maybe_too_short (A1, D9)
STRONG = 5  # [P] good trials for a strong verdict
MINIMUM_CURVE = 3  # evaluations below which a curve has no noise to speak of


def best_steps_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a good completed trial, best first.

    Columns: trial, best_value, best_step, fraction (of max_train_steps, D13), earliest_step (the first one within
    noise of the best level, D10), earliest_fraction, censored (best at the last evaluation, D12), in_warmup (D34),
    gain_after_early and gain_in_late (in noises of one evaluation; NaN with fewer than 20 evaluations).
    """
    good = good_trials(frames)
    budget = frames.study.budget.max_train_steps
    steps, curves = curve_matrix(frames, good["trial"])
    resolved = len(good) > 0 and steps.size >= MINIMUM_CURVE
    enough = len(good) > 0 and steps.size >= MINIMUM_EVALUATIONS
    table = good[["trial", "best_value", "best_step"]].reset_index(drop=True)
    table["best_step"] = table["best_step"].astype("int64")
    table["fraction"] = table["best_step"] / budget
    table["earliest_step"] = steps[earliest_within_noise(curves)].astype("int64") if resolved else table["best_step"]
    table["earliest_fraction"] = table["earliest_step"] / budget
    table["censored"] = (table["best_step"] == _last_steps(steps, curves)) if resolved else False
    table["in_warmup"] = table["best_step"].to_numpy() <= warmup_steps_of(frames, good)
    table["gain_after_early"] = gains_after(curves, steps / budget, EARLY).gain if enough else math.nan
    table["gain_in_late"] = gains_after(curves, steps / budget, LATE).gain if enough else math.nan
    return table


def best_steps_finding(frames: StudyFrames) -> Finding:
    """too_long, maybe_too_short, ok, mixed or inconclusive, with what to do about it."""
    table = best_steps_frame(frames)
    verdict, reason = _verdict(frames, table)
    strength = _strength(frames, table, verdict)
    return Finding(
        question="best_steps",
        subject=frames.study.name,
        verdict=verdict,
        strength=strength,
        summary=f"{reason}. {_numbers(table)}",
        evidence=table,
        thresholds=THRESHOLDS | {"shorter_budget": SHORTER_BUDGET, "longer_budget": LONGER_BUDGET},
        action=_action(frames, table, verdict, weak=strength == "weak"),
        needs_action=verdict in ("too_long", "maybe_too_short", "mixed"),
        caveats=tuple(_caveats(frames, table, verdict)),
    )


def proposed_budget(frames: StudyFrames) -> tuple[int, str]:
    """The max_train_steps of the next round by the best steps of this one, and why (A14-A17)."""
    finding = best_steps_finding(frames)
    budget = frames.study.budget.max_train_steps
    why = f"best steps of {frames.study.name} are {finding.verdict}"
    if finding.verdict == "too_long":
        steps = shorter_budget(finding.evidence, budget)
        return steps, f"{why}: {SHORTER_BUDGET:g} times the latest of the good best steps (A14)"
    if finding.verdict in ("maybe_too_short", "mixed"):
        return LONGER_BUDGET * budget, f"{why}: {LONGER_BUDGET} times the {budget} steps decide it (A15)"
    return budget, f"{why}: the same {budget} steps"


def shorter_budget(table: pd.DataFrame, budget: int) -> int:
    """Of a budget that was too long, with margin; never below the latest of the good best steps (A9, D15).

    The best step here is the first within noise: where the raw one lies on a plateau is chance.
    """
    return min(budget, rounded_up(SHORTER_BUDGET * float(table["earliest_step"].max())))


def _verdict(frames: StudyFrames, table: pd.DataFrame) -> tuple[str, str]:
    steps, curves = curve_matrix(frames, table["trial"])
    missing = too_little_evidence(len(table), steps.size)
    if missing is not None:
        return "inconclusive", missing
    fractions = steps / frames.study.budget.max_train_steps
    after_early = pooled_gain(gains_after(curves, fractions, EARLY), NEGLIGIBLE_EARLY)
    in_late = pooled_gain(gains_after(curves, fractions, LATE), NEGLIGIBLE_LATE)
    return judged(table, after_early, in_late)


def _numbers(table: pd.DataFrame) -> str:
    if table.empty:
        return "No completed trial has a finite value."
    earliest, best = table["earliest_fraction"], table["fraction"]
    return (
        f"{len(table)} good trials: best step at {best.min():.0%} to {best.max():.0%} of the budget "
        f"(median {best.median():.0%}), first within noise of the best at {earliest.min():.0%} to "
        f"{earliest.max():.0%} (median {earliest.median():.0%}); best at the last evaluation in "
        f"{int(table['censored'].sum())}."
    )


def _strength(frames: StudyFrames, table: pd.DataFrame, verdict: str) -> Strength:
    if verdict == "inconclusive":
        return "none"
    if verdict == "maybe_too_short" and frames.ends_at_zero(table["trial"]) is not False:
        return "weak"
    return "strong" if len(table) >= STRONG else "moderate"


def _caveats(frames: StudyFrames, table: pd.DataFrame, verdict: str) -> Iterator[str]:
    ends_at_zero = frames.ends_at_zero(table["trial"])
    if verdict in ("maybe_too_short", "mixed") and ends_at_zero is not False:
        yield (
            "A learning rate that decays to (almost) zero makes late best steps expected (D9)"
            f"{'' if ends_at_zero else ', and the schedule of these trials is not known'}: train one trial longer to "
            "find out."
        )
    if verdict == "too_long" and (table["fraction"] > EARLY).any():
        yield "Later raw best steps are noise on a plateau; the first step within noise drives this verdict (D10)."
    if table["in_warmup"].any():
        yield (
            f"{int(table['in_warmup'].sum())} best steps lie inside the warmup: look for a too high learning rate or "
            "a tiny validation set (D34)."
        )


def _action(frames: StudyFrames, table: pd.DataFrame, verdict: str, *, weak: bool) -> str:
    budget = frames.study.budget.max_train_steps
    if verdict == "too_long":
        return f"Train {shorter_budget(table, budget)} steps instead of {budget}, and tune the decay again (A14, D15)."
    if verdict in ("maybe_too_short", "mixed"):
        asked = "Where a better value is worth the steps, train" if weak else "Train"
        return (
            f"{asked} trial {table['trial'].iloc[0]} again for {LONGER_BUDGET * budget} steps with its schedule "
            "lengthened; take the longer budget only if its best value improves by more than trial noise (A1, A15)."
        )
    if verdict == "ok":
        return f"Keep {budget} steps."
    return f"Complete more trials, each evaluated at least {MINIMUM_EVALUATIONS} times, then ask again."


def _last_steps(steps: Array, curves: Array) -> Array:
    """The last step of each curve with a finite value."""
    known = np.isfinite(curves)[:, ::-1]
    return np.asarray(steps[curves.shape[1] - 1 - known.argmax(axis=1)])


def warmup_steps_of(frames: StudyFrames, trials: pd.DataFrame) -> Array:
    """The warmup that each trial was trained with, in steps; 0 where its schedule is not known."""
    schedules = (frames.schedules.get(trial) for trial in trials["trial"])
    return np.array([schedule.warmup_steps if schedule else 0 for schedule in schedules], dtype=np.float64)
