"""The gains of the good trials pooled, and the verdict about the step budget (A14, A15, D9-D11, D14, D34)."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.good_trials import GOOD_IMPROVEMENT, GOOD_SHARE
from tuner.analysis.levels import LATE, MATERIAL, Gains
from tuner.analysis.noise import Array
from tuner.budget.step_budget import MINIMUM_EVALUATIONS

EARLY = 0.10  # [S] best steps always before this fraction of the budget: far too long (A14)
CONSISTENT = 0.80  # [P] share of the good trials that "always" and "consistently" mean (A15)
MOST = 0.6  # [P] the same where noise alone explains the differences between trials
DIFFERENT = 0.001  # [P] chance of such differences between the gains of trials by noise alone
MINIMUM_GOOD = 3  # [P] good trials below which nothing is concluded
CONFIDENCE = 0.99  # [P] one-sided, of a gain being real or absent
MEANINGFUL = 0.5  # [P] of the negligible gain: a smaller mean gain counts as none
NEGLIGIBLE_EARLY = 2.0  # [P] times the evaluation noise: a mean gain after EARLY is absent if it is surely less
NEGLIGIBLE_LATE = 1.0  # [P] the same for the gain after LATE

THRESHOLDS = {
    "early": EARLY,
    "late": LATE,
    "consistent": CONSISTENT,
    "most": MOST,
    "different_by_chance": DIFFERENT,
    "minimum_good_trials": MINIMUM_GOOD,
    "minimum_evaluations": MINIMUM_EVALUATIONS,
    "good_share": GOOD_SHARE,
    "good_improvement": GOOD_IMPROVEMENT,
    "confidence": CONFIDENCE,
    "material": MATERIAL,
    "meaningful_of_negligible": MEANINGFUL,
    "negligible_early_in_noises": NEGLIGIBLE_EARLY,
    "negligible_late_in_noises": NEGLIGIBLE_LATE,
}


@dataclass(frozen=True, slots=True)
class PooledGain:
    """A gain over all good trials: whether it is surely there, surely absent, or neither.

    worse: whether it is surely a loss. positive, sure, sure_absent: shares of the trials that gained at all, surely
    gained, surely did not. alike: whether noise alone explains how trials differ. mean and margin (one-sided) in
    units of the evaluation noise; NaN where too few trials are known.
    """

    real: bool = False
    absent: bool = False
    worse: bool = False
    positive: float = 0.0
    sure: float = 0.0
    sure_absent: float = 0.0
    alike: bool = True
    mean: float = math.nan
    margin: float = math.nan


def pooled_gain(gains: Gains, negligible: float) -> PooledGain:
    """Judged by the standard deviation over the trials, or by that of the noise where it is larger."""
    known = np.isfinite(gains.gain)
    gain, spread = gains.gain[known], gains.spread[known]
    if len(gain) < MINIMUM_GOOD:
        return PooledGain()
    critical, meaningful = float(stats.norm.ppf(CONFIDENCE)), MEANINGFUL * negligible
    alone = critical * spread
    typical = math.sqrt(float((spread**2).mean()))
    margin = critical * max(float(gain.std(ddof=1)), typical) / math.sqrt(len(gain))
    sure = float((gain > np.maximum(alone, meaningful)).mean())
    # Trials that each surely gained count as a gain, even if not equally large; so do trials that each surely did not.
    real = bool(gain.mean() > max(margin, meaningful)) or sure >= CONSISTENT
    return PooledGain(
        real=real,
        absent=not real and (bool(gain.mean() + margin < negligible) or _most(gain + alone < negligible)),
        worse=not real and (bool(gain.mean() + margin < -negligible) or _most(gain + alone < -negligible)),
        positive=float((gain > 0).mean()),
        sure=sure,
        sure_absent=float((gain + alone < 2 * negligible).mean()),
        alike=_alike(gain, spread),
        mean=float(gain.mean()),
        margin=margin,
    )


def _most(surely: NDArray[np.bool_]) -> bool:
    return float(surely.mean()) >= CONSISTENT


def _alike(gain: Array, spread: Array) -> bool:
    """Whether the trials gained alike, but for the spread that noise gives each of them."""
    weights = 1.0 / np.maximum(spread, 1e-9) ** 2
    mean = float((gain * weights).sum() / weights.sum())
    return bool(stats.chi2.sf(float((weights * (gain - mean) ** 2).sum()), len(gain) - 1) >= DIFFERENT)


def too_little_evidence(num_good: int, num_evaluations: int) -> str | None:
    """Why nothing can be concluded, or None."""
    if num_good < MINIMUM_GOOD:
        return f"Only {num_good} good completed trials; {MINIMUM_GOOD} are needed"
    if num_evaluations < MINIMUM_EVALUATIONS:
        return f"{num_evaluations} evaluations per trial cannot resolve the first {EARLY:.0%} of the budget (D14)"
    return None


def judged(table: pd.DataFrame, after_early: PooledGain, in_late: PooledGain) -> tuple[str, str]:
    """The verdict and its reason; `table` as of `best_steps_frame`."""
    most = MOST if in_late.alike else CONSISTENT
    if in_late.real and in_late.positive >= most:
        return "maybe_too_short", f"The good trials still improved in {_LAST}"
    if _split(in_late, len(table)):
        return "mixed", f"Some good trials improved in {_LAST}, others did not (D11)"
    if after_early.absent and (table["earliest_fraction"] <= EARLY).mean() >= CONSISTENT:
        if table["in_warmup"].mean() > 1.0 - CONSISTENT:
            return "inconclusive", "Best steps lie inside the warmup, which shows little about the budget (D34)"
        return "too_long", f"The good trials did not improve any more after the first {EARLY:.0%} of the budget"
    if after_early.real and in_late.absent:
        return "ok", f"The good trials improved after the first {EARLY:.0%} of the budget, but not in {_LAST}"
    return "inconclusive", _open(after_early, in_late)


_LAST = f"the last {1 - LATE:.0%} of the budget"


def _open(after_early: PooledGain, in_late: PooledGain) -> str:
    """What the gains leave open, with what was measured."""
    if in_late.real:
        return f"Only {in_late.positive:.0%} of the good trials improved in {_LAST}: too few to conclude for all"
    if in_late.absent:
        return (
            f"The good trials did not improve any more in {_LAST}, but whether they did after the first {EARLY:.0%} "
            f"({in_words(after_early)}) is not clear"
        )
    return f"Whether the good trials improved in {_LAST} ({in_words(in_late)}) is not clear"


def in_words(gain: PooledGain) -> str:
    """A mean gain with its margin."""
    least, most = gain.mean - gain.margin, gain.mean + gain.margin
    return f"a change of {least:+.1f} to {most:+.1f} times the evaluation noise, better is above zero"


def _split(in_late: PooledGain, num_trials: int) -> bool:
    """Whether trials surely differ: more than one of each kind, and more than "consistently" leaves over."""
    return not in_late.alike and min(in_late.sure, in_late.sure_absent) >= max(1.0 - CONSISTENT - 1e-9, 2 / num_trials)
