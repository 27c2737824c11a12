"""From the gains of the good trials to one word about the step budget (A14, A15, D9-D11, D14, D34)."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.good_trials import GOOD_IMPROVEMENT, GOOD_SHARE
from tuner.analysis.levels import MATERIAL, Gains
from tuner.budget.step_budget import MINIMUM_EVALUATIONS

EARLY = 0.10  # [S] best steps always before this fraction of the budget: far too long (A14)
LATE = 0.75  # [S] best steps consistently after this fraction: maybe too short (A15)
CONSISTENT = 0.80  # [P] share of the good trials that "always" and "consistently" mean (A15)
MINIMUM_GOOD = 3  # [P] fewer good trials decide nothing
CONFIDENCE = 0.99  # [P] one-sided, of a gain being real or absent
MEANINGFUL = 0.5  # [P] noises of one evaluation: a smaller mean gain is none
NEGLIGIBLE_EARLY = 2.0  # [P] noises: a mean gain after EARLY surely below this is absent
NEGLIGIBLE_LATE = 1.0  # [P] noises: the same for the gain after LATE

THRESHOLDS = {
    "early": EARLY,
    "late": LATE,
    "consistent": CONSISTENT,
    "minimum_good_trials": MINIMUM_GOOD,
    "minimum_evaluations": MINIMUM_EVALUATIONS,
    "good_share": GOOD_SHARE,
    "good_improvement": GOOD_IMPROVEMENT,
    "confidence": CONFIDENCE,
    "material": MATERIAL,
    "meaningful_in_noises": MEANINGFUL,
    "negligible_early_in_noises": NEGLIGIBLE_EARLY,
    "negligible_late_in_noises": NEGLIGIBLE_LATE,
}


@dataclass(frozen=True, slots=True)
class PooledGain:
    """A gain over all good trials: whether it is surely there, surely absent, or neither.

    positive, sure, sure_absent: shares of the trials that gained at all, surely gained, surely did not.
    """

    real: bool
    absent: bool
    positive: float
    sure: float
    sure_absent: float


def pooled_gain(gains: Gains, negligible: float) -> PooledGain:
    """Judged by the spread over the trials, or by that of the noise where it is larger."""
    gain = gains.gain[np.isfinite(gains.gain)]
    if len(gain) < MINIMUM_GOOD:
        return PooledGain(real=False, absent=False, positive=0.0, sure=0.0, sure_absent=0.0)
    critical = float(stats.norm.ppf(CONFIDENCE))
    alone = critical * gains.spread
    margin = critical * max(float(gain.std(ddof=1)), gains.spread) / math.sqrt(len(gain))
    real = bool(gain.mean() > max(margin, MEANINGFUL))
    return PooledGain(
        real=real,
        absent=not real and bool(gain.mean() + margin < negligible),
        positive=float((gain > 0).mean()),
        sure=float((gain > max(alone, MEANINGFUL)).mean()),
        sure_absent=float((gain + alone < 2 * negligible).mean()),
    )


def too_little_evidence(num_good: int, num_evaluations: int) -> str | None:
    """Why nothing can be said, or None."""
    if num_good < MINIMUM_GOOD:
        return f"Only {num_good} good completed trials; {MINIMUM_GOOD} are needed"
    if num_evaluations < MINIMUM_EVALUATIONS:
        return f"{num_evaluations} evaluations per trial cannot resolve the first {EARLY:.0%} of the budget (D14)"
    return None


def judged(table: pd.DataFrame, after_early: PooledGain, in_late: PooledGain) -> tuple[str, str]:
    """The verdict and its reason; `table` as of `best_steps_frame`."""
    last = f"the last {1 - LATE:.0%} of the budget"
    if in_late.real and in_late.positive >= CONSISTENT:
        return "maybe_too_short", f"The good trials still gained in {last}"
    if _split(in_late, len(table)):
        return "mixed", f"Some good trials gained in {last}, others did not (D11)"
    if after_early.absent and (table["earliest_fraction"] <= EARLY).mean() >= CONSISTENT:
        if table["in_warmup"].mean() > 1.0 - CONSISTENT:
            return "inconclusive", "Best steps lie inside the warmup, which says little about the budget (D34)"
        return "too_long", f"The good trials gained nothing after the first {EARLY:.0%} of the budget"
    if after_early.real and in_late.absent:
        return (
            "ok",
            f"The good trials gained after the first {EARLY:.0%} of the budget and not in the last {1 - LATE:.0%}",
        )
    return "inconclusive", "The gains are too small against the noise to say where the good trials stopped improving"


def _split(in_late: PooledGain, num_trials: int) -> bool:
    """Whether trials surely differ: more than one of each kind, and more than "consistently" leaves over."""
    return min(in_late.sure, in_late.sure_absent) >= max(1.0 - CONSISTENT - 1e-9, 2 / num_trials)
