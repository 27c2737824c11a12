"""Best steps: was the step budget right (A13-A15)?

The raw best step is shown, but on a noisy plateau it lies anywhere (D10, F5). So the verdict rests on levels: the gains
of the good trials after the first 10 % of the budget, and in its last 25 %, against the noise of an evaluation and the
differences between trials.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tuner.analysis.elsewhere import number
from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.good_trials import (
    good_in_words,
    good_trials,
    noise_in_words,
    noise_model_of,
    noise_of_curves,
    own_steps_caveats,
    unresolved,
)
from tuner.analysis.learning_rates import DIED, rate_died, warmup_steps_of
from tuner.analysis.levels import LATE, WIDE, NoiseModel, earliest_within_noise, gains_after, running_mean, slow_noise
from tuner.analysis.noise import NORMAL_QUARTILES
from tuner.analysis.pooled_gains import (
    EARLY,
    NEGLIGIBLE_EARLY,
    NEGLIGIBLE_LATE,
    THRESHOLDS,
    PooledGain,
    judged,
    pooled_gain,
    too_little_evidence,
)
from tuner.analysis.study_frames import WITHOUT_STOPPING, StudyFrames, stopping_words
from tuner.analysis.trial_curves import MINIMUM_CURVE, Curves, common_curves
from tuner.budget.step_budget import MINIMUM_EVALUATIONS, rounded_up
from tuner.records.budget_origin import BudgetOrigin

SHORTER_BUDGET = 2.5  # [P] times the latest good best step is the budget proposed for too_long (A14, D15)
LONGER_BUDGET = 2  # [S] times the budget is the decisive experiment for maybe_too_short (A1, D9)
STRONG = 5  # [P] good trials for a strong verdict
DESCENT = (
    3.0  # [P] times the evaluation noise: so far above the best level the first evaluation shows that a trial learned
)
ALIKE = 2.0  # [P] times the differences that noise alone makes: trials whose levels differ no more are alike

QUESTION = Question(
    name="best_steps",
    sentence="Was the step budget right?",
    order=180,
    verdicts=(
        Verdict("ok", "fine"),
        Verdict("too_long", "act"),
        Verdict("maybe_too_short", "act"),
        Verdict("mixed", "act"),
        Verdict("inconclusive", "open"),
    ),
    thresholds=THRESHOLDS | {"shorter_budget": SHORTER_BUDGET, "longer_budget": LONGER_BUDGET, "rate_died": DIED},
    needs=("curves",),
    ask=lambda frames: best_steps_finding(frames),
    plot="best-steps",
    rules=("A1", "A9", "A13", "A14", "A15", "D9", "D10", "D11", "D12", "D13", "D14", "D15", "D34"),
    pruned="only curves that were good from early on are here",
    elsewhere=lambda frames, finding: _in_own_code(frames, finding),
)


def best_steps_frame(frames: StudyFrames) -> pd.DataFrame:
    """One row a good completed trial, best first.

    Columns: trial, best_value, best_step, fraction (of max_train_steps, D13), earliest_step (the first one within
    noise of the best level, D10), earliest_fraction, censored (best at the last evaluation, D12), in_warmup (D34),
    gain_after_early and gain_in_late (in units of the evaluation noise; NaN with fewer than 20 evaluations).
    """
    return _steps_of(frames).table


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """table: as `best_steps_frame` has it. curves: of the good trials, with their noise, and what they gained."""

    table: pd.DataFrame
    curves: Curves
    noise: NoiseModel
    after_early: PooledGain
    in_late: PooledGain


def _steps_of(frames: StudyFrames) -> _Steps:
    good = good_trials(frames)
    budget = frames.study.budget.max_train_steps
    curves = common_curves(frames, good["trial"])
    steps, values = curves.steps, curves.values
    resolved = len(good) > 0 and steps.size >= MINIMUM_CURVE and bool(np.isfinite(values).any(axis=1).all())
    enough = resolved and steps.size >= MINIMUM_EVALUATIONS
    table = good[["trial", "best_value", "best_step"]].reset_index(drop=True)
    table["best_step"] = table["best_step"].astype("int64")
    table["fraction"] = table["best_step"] / budget
    model = noise_model_of(frames, curves)
    at = earliest_within_noise(values, model.slow * curves.noise) if resolved else None
    earliest = table["best_step"].to_numpy() if at is None else curves.at[at]
    table["earliest_step"] = np.minimum(np.ceil(earliest), table["best_step"]).astype("int64")
    table["earliest_fraction"] = table["earliest_step"] / budget
    table["censored"] = (table["best_step"] == curves.last) if resolved else False
    warmup = warmup_steps_of(frames, good) if frames.promises.follows_schedule else 0
    table["in_warmup"] = table["best_step"].to_numpy() <= warmup
    pooled = []
    for name, split, negligible in (
        ("gain_after_early", EARLY, NEGLIGIBLE_EARLY),
        ("gain_in_late", LATE, NEGLIGIBLE_LATE),
    ):
        if enough:
            gains = gains_after(values, curves.at / budget, split, model)
            gains = gains.in_common_units() if curves.own_steps else gains
            gains = replace(gains, gain=np.where(curves.resolved, gains.gain, np.nan))
            pooled.append(pooled_gain(gains, negligible))
        table[name] = gains.gain if enough else math.nan
    return _Steps(table, curves, model, *(pooled if enough else (PooledGain(), PooledGain())))


def best_steps_finding(frames: StudyFrames) -> Finding:
    """too_long, maybe_too_short, ok, mixed or inconclusive, with what to do about it."""
    found = _steps_of(frames)
    table = found.table
    verdict, reason = _verdict(frames, found)
    strength, doubts = _strength(frames, table, verdict)
    return QUESTION.answer(
        frames.study.name,
        verdict,
        f"{reason}. {_numbers(frames, found)}",
        table if frames.promises.follows_schedule else table.drop(columns="in_warmup"),
        strength=strength,
        action=_action(frames, found, verdict, weak=strength == "weak"),
        caveats=(*doubts, *_caveats(table, verdict), *own_steps_caveats(found.curves)),
    )


def proposed_budget(frames: StudyFrames) -> tuple[int, BudgetOrigin]:
    """The max_train_steps of the next round by the best steps of this one, and why (A14-A17)."""
    finding = best_steps_finding(frames)
    budget = frames.study.budget.max_train_steps
    known = BudgetOrigin("best_steps", frames.study.name, finding.verdict, 1.0, budget)
    if finding.verdict == "too_long":
        return shorter_budget(finding.evidence, budget), replace(known, by="too_long", factor=SHORTER_BUDGET)
    if finding.verdict in ("maybe_too_short", "mixed"):
        return LONGER_BUDGET * budget, replace(known, by="too_short", factor=LONGER_BUDGET)
    return budget, known


def shorter_budget(table: pd.DataFrame, budget: int) -> int:
    """The budget instead of one that was too long, with margin; never below the latest good best step (A9, D15).

    The best step here is the first within noise: on a plateau the raw best step is chance.
    """
    return min(budget, rounded_up(SHORTER_BUDGET * float(table["earliest_step"].max())))


def _verdict(frames: StudyFrames, found: _Steps) -> tuple[str, str]:
    known = found.curves.resolved
    if frames.stops_early:
        return "inconclusive", stopping_words(frames)
    missing = unresolved(found.curves) or too_little_evidence(int(known.sum()), found.curves.steps.size)
    if missing is not None:
        return "inconclusive", missing
    verdict, reason = judged(found.table[known], found.after_early, found.in_late)
    if verdict == "too_long" and _never_learned(frames, found.curves):
        return "inconclusive", (
            "No good trial improved after its first evaluation, and all trials are alike: either everything was "
            "learned before that, or nothing at all, which no budget changes"
        )
    return verdict, reason


def _never_learned(frames: StudyFrames, good: Curves) -> bool:
    """Whether the curves look like a metric that stays at chance: no descent, no difference between trials."""
    levels = np.fmin.reduce(running_mean(good.values, WIDE), axis=1)
    descended = good.values[:, 0] - levels > DESCENT * good.noise
    if np.mean(descended) >= 0.5:
        return False
    every = common_curves(frames, frames.complete["trial"])
    late = every.values[:, every.values.shape[1] // 10 :]
    counts = np.isfinite(late).sum(axis=1)
    means = np.where(np.isfinite(late), late, 0.0).sum(axis=1) / np.maximum(counts, 1)
    low, high = np.quantile(means, [0.25, 0.75])
    alone = slow_noise(every.values, every.noise) * np.nanmedian(every.noise) / math.sqrt(max(np.median(counts), 1.0))
    return bool((high - low) / NORMAL_QUARTILES <= ALIKE * alone)


def _numbers(frames: StudyFrames, found: _Steps) -> str:
    table = found.table
    if table.empty:
        return "No completed trial has a finite value."
    earliest, best = table["earliest_fraction"], table["fraction"]
    return (
        f"{good_in_words(frames, len(table))}: best step at {best.min():.0%} to {best.max():.0%} of the budget (median "
        f"{best.median():.0%}), in {int(table['censored'].sum())} at the last evaluation. Performance was already "
        f"indistinguishable from the best after {earliest.min():.0%} to {earliest.max():.0%} of training (median "
        f"{earliest.median():.0%}).{noise_in_words(noise_of_curves(frames, found.curves, found.noise))}"
    )


def _strength(frames: StudyFrames, table: pd.DataFrame, verdict: str) -> tuple[Strength, tuple[str, ...]]:
    """How strong a verdict is in view of the learning rate, and the doubts behind that."""
    if verdict == "inconclusive":
        return "none", ()
    whole: Strength = "strong" if len(table) >= STRONG else "moderate"
    if verdict in ("maybe_too_short", "mixed"):
        falls = frames.ends_at_zero(table["trial"])
        unknown = "" if falls else ", and the schedule of these trials is not known"
        doubts = [] if falls is False else [f"{_LATE_EXPECTED}{unknown}: train one trial longer to find out."]
        doubts += [LATE_AVERAGES] if frames.averages_late(table["trial"]) else []
        return "weak" if verdict == "maybe_too_short" and doubts else whole, tuple(doubts)
    start = EARLY if verdict == "too_long" else LATE
    if rate_died(frames, table["trial"], start):
        return "weak", (
            f"The learning rate is (almost) zero after {start:.0%} of the budget, where hardly anything can improve: "
            "flat curves do not show there that more steps at a higher rate would gain nothing (D9).",
        )
    return whole, ()


_LATE_EXPECTED = "A learning rate that decays to (almost) zero makes late best steps expected (D9)"
LATE_AVERAGES = (
    "Averages of the weights are evaluated, which show where the weights have been: late best steps are expected of "
    "them, as under a decay to zero (D9); only a longer run decides."
)


def _caveats(table: pd.DataFrame, verdict: str) -> Iterator[str]:
    if verdict == "too_long" and (table["fraction"] > EARLY).any():
        yield "Later raw best steps are noise on a plateau; the first step within noise drives this verdict (D10)."
    early = int(table["in_warmup"].sum())
    if early:
        lies = "best step lies" if early == 1 else "best steps lie"
        yield f"{early} {lies} inside the warmup: look for a too high learning rate or a tiny validation set (D34)."


def _action(frames: StudyFrames, found: _Steps, verdict: str, *, weak: bool) -> str:
    study, budget, table = frames.study, frames.study.budget.max_train_steps, found.table
    if verdict == "too_long":
        return (
            f"Train {study.in_words(shorter_budget(table, budget))} instead of {budget:,}, and tune the decay again "
            "(A14, D15)."
        )
    if verdict in ("maybe_too_short", "mixed"):
        retrain = "If a better result is worth the compute, retrain" if weak else "Retrain"
        return (
            f"{retrain} trial {table['trial'].iloc[0]} for {study.in_words(LONGER_BUDGET * budget)} with a "
            "longer schedule; take the longer budget only if its best value improves by more than the noise between "
            "trials (A1, A15)."
        )
    if verdict == "ok":
        keep = f"Keep {study.length_in_words}."
        return f"{keep} To be sure, retrain trial {table['trial'].iloc[0]} with a later decay." if weak else keep
    return WITHOUT_STOPPING if frames.stops_early else _missing(found, budget)


def _missing(found: _Steps, budget: int) -> str:
    """What to do where nothing could be concluded: something that was not done yet."""
    evaluations = found.curves.evaluations
    few = len(evaluations) == 0 or int(np.median(evaluations)) < MINIMUM_EVALUATIONS
    if few or unresolved(found.curves):
        return f"Evaluate each trial at least {MINIMUM_EVALUATIONS} times, at equal distances, then ask again (D14)."
    if len(found.table) < STRONG:
        return "Complete more trials, then ask again."
    return (
        f"Keep {budget:,} steps for now. More validation data or more trials make the gains clearer; retraining trial "
        f"{found.table['trial'].iloc[0]} for {LONGER_BUDGET * budget:,} steps decides it."
    )


def _in_own_code(frames: StudyFrames, finding: Finding) -> str:
    """Which trial, how many steps, and with which values: there is no checkpoint from which to continue."""
    if finding.verdict not in ("maybe_too_short", "mixed") or finding.evidence.empty:
        return finding.action
    trial, steps = int(finding.evidence["trial"].iloc[0]), 2 * frames.study.budget.max_train_steps
    row = frames.trials[frames.trials["trial"] == trial]
    there = [name for name in frames.hyperparameters if bool(frames.exists_in(row, name).iloc[0])]
    values = ", ".join(f"{name} = {_value(row[name].iloc[0])}" for name in there)
    return (
        f"In your own code, train the configuration of trial {trial} again for {steps:,} steps instead of "
        f"{frames.study.budget.max_train_steps:,}, with its schedule lengthened ({values}); take the longer budget "
        "only if its best value improves by more than trials vary (A1, A15)."
    )


def _value(value: object) -> str:
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float):
        return str(int(plain)) if plain.is_integer() and abs(plain) < 1e15 else number(plain)
    return str(plain)
