"""Is training compute-bound (A1-A5)? Decided from the sweep's outcome and from curves, never from one number.

Not compute-bound: the training set was fitted and validation is flat or worse afterwards. Compute-bound: the training
set was not fitted, and training and validation still improve at the end. Improvement is judged where the learning rate
is constant: a loss that falls because the rate falls shows nothing about more steps (D47).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.fit_steps import fit_interval
from tuner.analysis.good_trials import good_trials
from tuner.analysis.levels import MIDDLE, gains_after, noise_model
from tuner.analysis.noise import Array, noise_of, rounding_noise
from tuner.analysis.pooled_gains import CONFIDENCE, MEANINGFUL, NEGLIGIBLE_LATE
from tuner.analysis.questions.overfitting import FEW, RISE, overfitting_frame
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.trial_curves import Curves, common_curves, split_metrics, unreported
from tuner.budget.step_budget import MINIMUM_EVALUATIONS
from tuner.design.objective import FitCriterion, metric_from
from tuner.records.sweep_outcomes import Fitted, Invalid, SweepOutcome

LAST = 0.75  # [P] the last part begins at this fraction of the steps at a constant rate
LATEST_FIT = 0.85  # [P] after a later fit there is too little left to see what came "afterwards"
CONSTANT_SHARE = 0.5  # [P] of the budget: a shorter constant part shows nothing about the end of the run
FLAT_CONFIDENCE = 0.90  # [P] one-sided, of a gain being absent
NEGLIGIBLE = NEGLIGIBLE_LATE  # in units of the evaluation noise: validation is flat if its mean gain is surely less
LEAST_GAIN = MEANINGFUL * NEGLIGIBLE  # in the same units: a smaller mean gain counts as none
MAJORITY = 0.6  # [P] share of the trials that must improve
CLIPPED = 5.0  # [P] in the same units: a larger gain of one trial counts as this much
ENOUGH = 3  # [P] trials for a strong verdict

QUESTION = Question(
    name="regime",
    sentence="Is training compute-bound?",
    order=190,
    verdicts=(Verdict("compute_bound"), Verdict("not_compute_bound"), Verdict("undecided", "open")),
    thresholds={
        "last_part_from": LAST,
        "latest_fit": LATEST_FIT,
        "few_best_trials": FEW,
        "constant_share": CONSTANT_SHARE,
        "minimum_evaluations": MINIMUM_EVALUATIONS,
        "confidence": CONFIDENCE,
        "flat_confidence": FLAT_CONFIDENCE,
        "meaningful_in_noises": LEAST_GAIN,
        "negligible_in_noises": NEGLIGIBLE,
        "majority": MAJORITY,
        "overfitting_in_noises": RISE,
    },
    needs=("curves",),
    relies_on=("follows_schedule",),
    ask=lambda frames: regime_finding(frames),
    plot="curves",
    elsewhere=lambda frames, finding: _in_own_code(finding),
    rules=("A1", "A2", "A3", "A4", "A5", "A9", "A14", "A15", "A18", "A24", "D14", "D47"),
    pruned="only curves that were good from early on are here",
)
DECLARED = Question(
    name="declared_regime",
    sentence="Does the evidence agree with what was declared?",
    order=195,
    scope="campaign",
    verdicts=(Verdict("contradiction", "act"),),
    thresholds=QUESTION.thresholds,
    title="{subject}",
    rules=("A1",),
)
Rate = Literal["constant", "falling", "unknown"]


@dataclass(frozen=True, slots=True)
class _Gains:
    """The gain of the last part on one split, one number a trial, in units of the evaluation noise (`gains_after`).

    `spread`: the standard deviation that noise alone gives each gain.
    """

    gain: Array
    scale: Array
    spread: Array

    @property
    def mean(self) -> float:
        return float(np.clip(self.gain, -CLIPPED, CLIPPED).mean())

    @property
    def surely(self) -> NDArray[np.bool_]:
        """Which trials improved by more than their own noise."""
        return np.asarray(self.gain > np.maximum(_critical(CONFIDENCE) * self.spread, LEAST_GAIN))

    @property
    def improving(self) -> bool:
        most = float((self.gain > 0).mean()) >= MAJORITY
        return most and self.mean > max(self._margin(CONFIDENCE), LEAST_GAIN)

    @property
    def flat_or_worse(self) -> bool:
        few = float(self.surely.mean()) <= 1.0 - MAJORITY
        return few and not self.improving and self.mean + self._margin(FLAT_CONFIDENCE) < NEGLIGIBLE

    def _margin(self, confidence: float) -> float:
        return _critical(confidence) * math.sqrt(float((self.spread**2).mean()) / len(self.gain))


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a verdict rests on. `last_step`: the end of the judged part; `rate`: what the learning rate does in it."""

    table: pd.DataFrame
    training: _Gains
    validation: _Gains
    fitted: bool
    last_step: int
    rate: Rate


def regime_finding(frames: StudyFrames, outcome: SweepOutcome | None = None) -> Finding:
    """compute_bound, not_compute_bound or undecided, from the curves of the best trials and the sweep's outcome.

    Evidence: two rows a trial, best trial first. Columns: trial, metric, gain (of the last part over the part before,
    in units of the evaluation noise), noise (that unit), from_step and to_step (the last part), fitted_at (<NA> where
    the trial did not fit the training set), rise (of smoothed validation from its best to its end, in the same units),
    overfitting (A5).
    """
    not_promised = QUESTION.not_promised(frames)
    if not_promised is not None:
        return not_promised
    evidence = _evidence(frames, outcome)
    if isinstance(evidence, str):
        return _finding(frames, ("undecided", "none", evidence + "."), pd.DataFrame(), ())
    judged = _verdict(evidence)
    return _finding(frames, judged, evidence.table, tuple(_caveats(frames, evidence, judged[0])))


def contradiction_finding(declared: str, found: Finding) -> Finding | None:
    """A finding where the declared regime contradicts the evidence (A1); None where it does not."""
    if "undecided" in (declared, found.verdict) or declared == found.verdict:
        return None
    return DECLARED.answer(
        found.subject,
        "contradiction",
        f"The regime is declared as {declared}, but the evidence shows {found.verdict}: {found.summary}",
        found.evidence,
        strength=found.strength,
        action=f"Declare regime={found.verdict!r} or none, unless an experiment shows otherwise. {found.action}",
        caveats=found.caveats,
    )


def _evidence(frames: StudyFrames, outcome: SweepOutcome | None) -> _Evidence | str:
    """The evidence, or why there is none."""
    trials = _measured(frames, good_trials(frames)).head(FEW)
    if trials.empty:
        return (
            "No completed trial has finite training and validation curves of the selecting metric with at least "
            f"{MINIMUM_EVALUATIONS} evaluations (fewer cannot tell gains from noise, D14){unreported(frames)}"
        )
    fitted_at = _fitted_at(frames, trials["trial"])
    seen = np.isfinite(fitted_at)
    if seen.any():
        # Once the set can be fitted, only these trials show what came afterwards.
        trials, fitted_at = trials[seen], fitted_at[seen]
    last_step, rate = _judged_part(frames, trials)
    splits = _splits(fitted_at / last_step)
    gains = [_gains(_curves(frames, metric, trials), last_step, splits) for metric in _metrics(frames)]
    table = _table(frames, trials, gains)
    table["from_step"], table["to_step"] = np.repeat(splits * last_step, 2).round().astype(int), last_step
    table["fitted_at"] = pd.array([None if math.isnan(at) else int(at) for at in np.repeat(fitted_at, 2)], "Int64")
    fitted = bool(seen.any()) or isinstance(outcome, Fitted | Invalid)
    table = _with_overfitting(frames, table)
    return _Evidence(table, gains[0], gains[1], fitted, last_step, rate)


def _metrics(frames: StudyFrames) -> tuple[str, str]:
    """The selecting metric on the training and on the validation split."""
    return split_metrics(frames.study.objective)


def _curves(frames: StudyFrames, metric: str, trials: pd.DataFrame) -> Curves:
    """The curves (minimized) of a metric that has the objective's direction."""
    return common_curves(frames, trials["trial"], metric)


def _measured(frames: StudyFrames, trials: pd.DataFrame) -> pd.DataFrame:
    """The trials whose curves are finite on both splits, with enough evaluations (D14)."""
    usable = np.full(len(trials), True)
    for metric in _metrics(frames):
        curves = _curves(frames, metric, trials)
        usable &= curves.whole & curves.resolved & (curves.steps.size >= MINIMUM_EVALUATIONS)
    return trials[usable].reset_index(drop=True)


def _fitted_at(frames: StudyFrames, trials: pd.Series) -> Array:
    """The first step of each trial's sustained fit, NaN where there is none (A24)."""

    def first_fit(trial: int, criterion: FitCriterion) -> float:
        interval = fit_interval(frames.curve(trial, criterion.metric), criterion)
        return float(interval[1]) if interval else math.nan

    criterion = frames.study.fitted_when
    return np.array([math.nan if criterion is None else first_fit(int(trial), criterion) for trial in trials])


def _judged_part(frames: StudyFrames, trials: pd.DataFrame) -> tuple[int, Rate]:
    """Where the judged part ends, and what the learning rate does in it.

    All trials' part at a constant rate as they were trained, if it is long enough; else the whole budget.
    """
    budget = frames.study.budget.max_train_steps
    schedules = frames.known_schedules(trials["trial"])
    if len(schedules) < len(trials):
        return budget, "falling" if frames.study.schedule.kind.falls else "unknown"
    ends = [budget if schedule.decay_start is None else schedule.decay_start for schedule in schedules]
    return (min(ends), "constant") if min(ends) >= CONSTANT_SHARE * budget else (budget, "falling")


def _splits(fitted: Array) -> Array:
    """Where the last part of each trial begins: at LAST, or after a later fit if enough is left to judge."""
    after = fitted + MIDDLE / 2  # running means beyond do not reach back before the fit
    return np.where((fitted <= LATEST_FIT) & (after > LAST), after, LAST)


def _gains(curves: Curves, last_step: int, splits: Array) -> _Gains:
    part = curves.steps <= last_step
    fractions = curves.at[part] / last_step
    values = curves.values[:, part]
    own = curves.noise if curves.own_steps else np.maximum(noise_of(values), rounding_noise(curves.values))
    noise = noise_model(values, fractions, own)
    judged = [gains_after(values[[row]], fractions, split, noise.of(row)) for row, split in enumerate(splits)]
    columns = [[g.gain[0] for g in judged], [g.scale[0] for g in judged], [g.spread[0] for g in judged]]
    return _Gains(*(np.array(column) for column in columns))


def _table(frames: StudyFrames, trials: pd.DataFrame, gains: list[_Gains]) -> pd.DataFrame:
    """Two rows a trial: training, validation."""
    return pd.DataFrame(
        {
            "trial": np.repeat(trials["trial"].to_numpy(), 2),
            "metric": list(_metrics(frames)) * len(trials),
            "gain": np.ravel([one.gain for one in gains], order="F"),
            "noise": np.ravel([one.scale for one in gains], order="F"),
        }
    )


def _with_overfitting(frames: StudyFrames, table: pd.DataFrame) -> pd.DataFrame:
    """Add rise and overfitting from the finding about overfitting, so that two answers cannot differ (A5)."""
    known = overfitting_frame(frames).set_index("trial")
    overfits = set(known.index[known["overfitting"].astype(bool)])
    is_validation = table["metric"].map(lambda text: metric_from(text).split == "validation").astype(bool)
    table["rise"] = table["trial"].map(known["rise"]).where(is_validation).astype(float)
    table["overfitting"] = is_validation & table["trial"].isin(overfits)
    return table


def _moved(gain: float) -> str:
    return f"{'improved' if gain >= 0.0 else 'got worse'} by {abs(gain):.1f} times the evaluation noise"


def _verdict(evidence: _Evidence) -> tuple[str, Strength, str]:
    training, validation, num = evidence.training, evidence.validation, len(evidence.training.gain)
    numbers = (
        f"In the last part before step {evidence.last_step:,} the {counted(num)} {_moved(training.mean)} in "
        f"training, and {_moved(validation.mean)} in validation"
    )
    few: Strength = "weak" if num == 1 else "moderate"
    if evidence.fitted:
        if validation.flat_or_worse:
            strength: Strength = "strong" if num >= ENOUGH else few
            return (
                "not_compute_bound",
                strength,
                f"The training set was fitted and validation did not improve after that. {numbers}.",
            )
        return "undecided", "none", f"The training set was fitted, and validation may still gain afterwards. {numbers}."
    if training.improving and validation.improving:
        sure = num >= ENOUGH and bool((training.surely & validation.surely).all())
        strength = "weak" if evidence.rate != "constant" else "strong" if sure else few
        return "compute_bound", strength, f"Training and validation still improve, and nothing was fitted. {numbers}."
    flat = "neither" if not (training.improving or validation.improving) else "only one of them"
    return "undecided", "none", f"The training set was not fitted, and {flat} surely improves. {numbers}."


def counted(num: int) -> str:
    return "best trial" if num == 1 else f"{num} best trials"


def _caveats(frames: StudyFrames, evidence: _Evidence, verdict: str) -> list[str]:
    found = []
    if evidence.rate != "constant" and verdict != "not_compute_bound":
        rate = (
            "The learning rate falls over most of the run, and a loss falls with the rate (D47)"
            if evidence.rate == "falling"
            else "The schedule of these trials is not known; where a learning rate falls, a loss falls with it (D47)"
        )
        found.append(f"{rate}: only a run of twice the steps, with its schedule re-derived, decides.")
    if frames.study.fitted_when is None:
        found.append("No fit criterion is declared, so whether the training set was fitted is not known (A18).")
    if evidence.table["overfitting"].any():
        trials = evidence.table.loc[evidence.table["overfitting"], "trial"]
        found.append(
            f"Overfitting in {', '.join(f'trial {trial}' for trial in trials)}: validation rises from its best while "
            "training does not (A5); regularization, or the best checkpoint instead of the last, may help."
        )
    if verdict == "compute_bound":
        found.append("Training longer or faster is not the only way to improve (A3).")
    return found


def _finding(
    frames: StudyFrames, judged: tuple[str, Strength, str], table: pd.DataFrame, caveats: tuple[str, ...]
) -> Finding:
    verdict, strength, summary = judged
    action = _action(frames, verdict, table)
    return QUESTION.answer(
        frames.study.name, verdict, summary, table, strength=strength, action=action, caveats=caveats
    )


def _action(frames: StudyFrames, verdict: str, table: pd.DataFrame) -> str:
    if verdict == "not_compute_bound":
        return "Plan the rounds from the steps to fit, and refine the budget from the best steps (A9, A14, A15)."
    which = f"trial {table['trial'].iloc[0]}" if len(table) else "a good trial"
    steps = frames.study.budget.max_train_steps
    decisive = (
        f"train {which} again for {2 * steps:,} steps with its schedule re-derived; training is compute-bound only if "
        "the best validation value improves by more than trial noise (A1)."
    )
    if verdict == "compute_bound":
        return f"Train as long as you can afford (production_steps of the Campaign, A2). To be sure, {decisive}"
    return f"Decide it: {decisive}"


def _critical(confidence: float) -> float:
    return float(stats.norm.ppf(confidence))


def _in_own_code(finding: Finding) -> str:
    """The next step for the owner of an imported study."""
    if finding.verdict != "compute_bound":
        return finding.action
    return "Train as long as you can afford: these trials still improved at their end (A2)."
