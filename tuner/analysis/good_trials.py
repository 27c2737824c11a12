"""The good trials, about which a verdict has to hold "always" or "consistently" (D11), and their noise."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from tuner.analysis.levels import NoiseModel, noise_model
from tuner.analysis.noise import Array
from tuner.analysis.study_frames import StudyFrames, ranked_trials
from tuner.analysis.trial_curves import Curves, common_curves
from tuner.budget.step_budget import MINIMUM_EVALUATIONS

GOOD_SHARE = 1 / 3  # [P] of the completed trials, by best value, are candidates for good
GOOD_AT_LEAST = 7  # [P] candidates, if so many completed: with 5, short curves stay inconclusive too often
GOOD_IMPROVEMENT = 0.5  # [P] a good trial made at least this share of the best trial's improvement
MANY_TRIALS = 30  # [P] best trials from which the slow noise is estimated
_TOLERANCE = 4.0  # [P] times the evaluation noise: values that differ by less are never told apart


def good_trials(frames: StudyFrames) -> pd.DataFrame:
    """Rows of the good trials, best first.

    The best third of the completed trials (at least 7), without hopeless ones: those that made less than half of
    the improvement that the best trial made over the worst first evaluation.
    """
    ranked = ranked_trials(frames)
    candidates = ranked.head(max(GOOD_AT_LEAST, math.ceil(GOOD_SHARE * len(ranked))))
    curves = common_curves(frames, candidates["trial"])
    if candidates.empty or curves.steps.size < 3 or not np.isfinite(curves.values[:, 0]).any():
        return candidates
    sign = frames.study.objective.sign
    values = sign * candidates["best_value"]
    improvement = float(np.nanmax(curves.values[:, 0])) - values.iloc[0]
    reach = max((1.0 - GOOD_IMPROVEMENT) * improvement, _TOLERANCE * _median(curves.evaluation_noise))
    within: pd.DataFrame = candidates[values <= values.iloc[0] + reach]
    return within


def evaluation_noise(frames: StudyFrames) -> float:
    """The standard deviation of one evaluation of the objective around its curve: the median of the good trials.

    Late in the run, where verdicts judge it; NaN where no good trial has three evaluations in a row.
    """
    return noise_of_curves(frames, common_curves(frames, good_trials(frames)["trial"]))


def noise_model_of(frames: StudyFrames, curves: Curves, metric: str | None = None) -> NoiseModel:
    """The noise of some trials' curves of a metric; how slow it is, is estimated from many trials."""
    own = noise_model(curves.values, _fractions(curves), curves.noise)
    many = common_curves(frames, ranked_trials(frames).head(MANY_TRIALS)["trial"], metric)
    many = many.rows(many.whole & many.resolved)
    if len(many.values) <= len(curves.values):
        return own
    return replace(own, slow=noise_model(many.values, _fractions(many), many.noise).slow)


def _fractions(curves: Curves) -> Array:
    return np.arange(1, curves.steps.size + 1) / max(curves.steps.size, 1)


def noise_of_curves(frames: StudyFrames, curves: Curves, model: NoiseModel | None = None) -> float:
    """The same of the curves of the good trials; `model`: their noise, where it is known already."""
    return _median(late_evaluation_noise(frames, curves, model))


def late_evaluation_noise(frames: StudyFrames, curves: Curves, model: NoiseModel | None = None) -> Array:
    """The evaluation noise of each trial late in the run; a column of `curves` may be the mean of several."""
    if not curves.steps.size:
        return curves.evaluation_noise
    model = noise_model_of(frames, curves) if model is None else model
    mean_of = np.divide(curves.evaluation_noise, curves.noise, out=np.ones(len(curves.noise)), where=curves.noise > 0)
    return np.asarray(model.late() * mean_of)


def good_in_words(frames: StudyFrames, count: int | None = None) -> str:
    """How many trials are good, of how many, always in the same words; `count`, where it is known."""
    number = len(good_trials(frames)) if count is None else count
    return f"{number} good trial{'s' if number != 1 else ''} of {len(frames.complete)} completed"


def good_defined(frames: StudyFrames) -> str:
    """What "good" means on a whole page, in one sentence with the count; "" where no trial has completed."""
    if frames.complete.empty:
        return ""
    improved = f"made at least {GOOD_IMPROVEMENT:.0%} of the best trial's improvement"
    if len(frames.complete) <= GOOD_AT_LEAST:
        return f"{good_in_words(frames)}: a trial is good if it {improved}."
    return (
        f"{good_in_words(frames)}: a trial is good if it is among the best third (at least {GOOD_AT_LEAST} trials) and "
        f"{improved}."
    )


def noise_in_words(noise: float) -> str:
    """The evaluation noise as a sentence, or nothing where it is not known."""
    return f" The evaluation noise is {noise:.2g} (standard deviation of one evaluation)." if noise > 0 else ""


def unresolved(curves: Curves) -> str | None:
    """Why curves that were evaluated at different steps cannot be judged; None where most of them can."""
    few = int((~curves.resolved).sum())
    if not curves.own_steps or 2 * few <= len(curves.values):
        return None
    least, most = int(curves.evaluations.min()), int(curves.evaluations.max())
    return (
        f"Each trial was evaluated at its own steps, {least} to {most} times: {few} of {len(curves.values)} good "
        f"trials fewer than {MINIMUM_EVALUATIONS} times, which cannot resolve the first part of the budget (D14)"
    )


def own_steps_caveats(*compared: Curves) -> tuple[str, ...]:
    """The caveat that curves were brought to common shares of the budget, where they were."""
    curves = next((one for one in compared if one.own_steps and len(one.values)), None)
    if curves is None:
        return ()
    few = int((~curves.resolved).sum())
    left = f"; {few} with fewer than {MINIMUM_EVALUATIONS} evaluations are left out" if few else ""
    return (
        f"Each trial was evaluated at its own steps ({int(curves.evaluations.min())} to "
        f"{int(curves.evaluations.max())} times): they are compared over {len(curves.steps)} equal parts of the "
        f"budget, and the noise is that of the mean of one part{left}.",
    )


def _median(numbers: np.ndarray) -> float:
    known = numbers[np.isfinite(numbers)]
    return float(np.median(known)) if len(known) else math.nan
