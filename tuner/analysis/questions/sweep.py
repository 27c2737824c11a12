"""The sweep's outcome as a finding: how many steps fit the training set, or what to do about having no number.

The number of steps always comes with its interval and its range over seeds (D5, A26). For an invalid grid there is no
number (A25, D3); where nothing fitted there are reasons instead (A19, D8).
"""

import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict
from tuner.analysis.fit_steps import SUSTAINED
from tuner.analysis.sweep_outcome import GRID_EXTENSION, LEAST_WIDTH, PLATEAU, SURELY
from tuner.analysis.unfitted import Unfitted, unfitted_action, unfitted_caveats, unfitted_summary
from tuner.design.study import Study
from tuner.records.sweep_outcomes import PREDICTION, Fitted, Invalid, NotFitted, SweepOutcome

LONG_BEFORE = 0.5  # [P] of the steps to fit: validation that was best before got worse on the way to the fit
ENOUGH_SEEDS = 3  # [P] fresh seeds at the fastest rate that give its spread (A26)

QUESTION = Question(
    name="sweep",
    sentence="How many steps fit the training set?",
    order=520,
    scope="campaign",
    verdicts=(Verdict("fitted", "fine"), Verdict("not_fitted", "act"), Verdict("invalid", "act")),
    thresholds={
        "sustained_evaluations": SUSTAINED,
        "refined_interval_width": LEAST_WIDTH,
        "prediction": PREDICTION,
        "enough_seeds": ENOUGH_SEEDS,
        "plateau": PLATEAU,
        "surely_in_noises": SURELY,
        "grid_extension": GRID_EXTENSION,
    },
    title="{subject}",
    rules=("A19", "A25", "A26", "D3", "D5", "D8"),
)


def sweep_finding(outcome: SweepOutcome, fits: pd.DataFrame, study: Study | None = None) -> Finding:
    """fitted, not_fitted or invalid; `fits` are the trials (`fit_steps_frame`), the evidence.

    study: a stage of the sweep, which names the metrics; without it validation is not judged.
    """
    verdict, strength, summary, action = _said(outcome, fits, study)
    caveats = _caveats(outcome, fits, study)
    return QUESTION.answer("learning_rate", verdict, summary, fits, strength=strength, action=action, caveats=caveats)


def _said(outcome: SweepOutcome, fits: pd.DataFrame, study: Study | None) -> tuple[str, Strength, str, str]:
    if isinstance(outcome, Fitted):
        return "fitted", _strength(outcome), _fitted_summary(outcome), _fitted_action(outcome)
    if isinstance(outcome, Invalid):
        strength: Strength = "weak" if outcome.ambiguous else "strong"
        return "invalid", strength, _invalid_summary(outcome), _invalid_action(outcome)
    strength = "moderate" if outcome.reasons[0].weight == "likely" else "weak"
    unfitted = Unfitted(outcome, fits, study)
    return "not_fitted", strength, unfitted_summary(unfitted), unfitted_action(unfitted)


def _strength(outcome: Fitted) -> Strength:
    if outcome.unfitted_seeds or len(outcome.seed_steps) < 2:
        return "weak"
    narrow = outcome.width <= LEAST_WIDTH
    return "strong" if narrow and len(outcome.seed_steps) >= ENOUGH_SEEDS and not outcome.tied else "moderate"


def _fitted_summary(outcome: Fitted) -> str:
    fastest = (
        f"The fastest trial, at a constant learning rate of {outcome.learning_rate:g}, fitted the training set after "
        f"more than {outcome.low:,} and at most {outcome.high:,} steps."
    )
    return f"{fastest} {_seeds_summary(outcome)}"


def _seeds_summary(outcome: Fitted) -> str:
    seeds = outcome.seed_steps
    trained = len(seeds) + outcome.unfitted_seeds
    if not trained:
        return "No other seed was trained, so how much the steps vary between seeds is not known."
    if not seeds:
        return f"None of {trained} fresh seeds fitted."
    fitted = f"{len(seeds)} of {trained} fresh seeds fitted in {seeds[0]:,} to {seeds[-1]:,} steps"
    if outcome.seed_low is None:
        return f"{fitted}; the estimate is {outcome.steps:,}, how much it varies between seeds is not known."
    until = f"to {outcome.seed_high:,}" if outcome.seed_high is not None else "upwards, with no upper bound"
    return (
        f"{fitted}{_factor(seeds)}; the estimate is {outcome.steps:,}, and a further seed would lie in "
        f"{outcome.seed_low:,} {until} ({PREDICTION:.0%})."
    )


def _factor(seeds: tuple[int, ...]) -> str:
    """How far the seeds that were trained lie apart."""
    factor = seeds[-1] / max(1, seeds[0])
    return f", a factor of {factor:.2g}" if factor >= 1.05 else ""


def _fitted_action(outcome: Fitted) -> str:
    return (
        f"Give the trials of round 1 the sweep's margin times {outcome.steps:,} steps (in doubt longer, A9): "
        "`tuner launch STUDY_FILE --round 1` does."
    )


def _invalid_summary(outcome: Invalid) -> str:
    end = "highest" if outcome.direction == "upper" else "lowest"
    which = "ties for the fastest" if outcome.ambiguous else "is the fastest"
    further = "higher" if outcome.direction == "upper" else "lower"
    return (
        f"The {end} learning rate of the grid, {outcome.learning_rate:g}, {which}: a {further} one may need far fewer "
        "steps, so no number is given (A25)."
    )


def _invalid_action(outcome: Invalid) -> str:
    return f"Run `tuner sweep STUDY_FILE --extend`: its grid is {_rates(outcome.extended_grid)}."


def _rates(grid: tuple[float, ...]) -> str:
    return ",".join(f"{rate:g}" for rate in grid)


def _caveats(outcome: SweepOutcome, fits: pd.DataFrame, study: Study | None) -> tuple[str, ...]:
    if isinstance(outcome, NotFitted):
        return unfitted_caveats(Unfitted(outcome, fits, study))
    found = list(_fitted_caveats(outcome, fits)) if isinstance(outcome, Fitted) else []
    if isinstance(outcome, Invalid) and outcome.ambiguous:
        found.append("Rates tie inside one evaluation interval; finer evaluations may also decide (D5).")
    if len(fits) and fits["state"].iloc[0] == "infeasible":
        found.append("The lowest learning rate is infeasible, which is the sign of a bug and not of a rate (D4).")
    return tuple(found)


def _validation_before_the_fit(outcome: Fitted, fits: pd.DataFrame) -> list[str]:
    """Where validation was best long before the fit, the steps to fit are more than a run needs (A5)."""
    if "overfits" not in fits:
        return []
    fastest = fits[(fits["learning_rate"] == outcome.learning_rate) & fits["overfits"].fillna(False)]
    early = fastest[fastest["validation_step"] <= LONG_BEFORE * outcome.steps]
    if early.empty:
        return []
    return [
        f"Validation was best after {int(early['validation_step'].iloc[0]):,} steps and got worse until the fit: "
        f"{outcome.steps:,} steps are more than a run needs. The best steps of round 1 show how many are enough; "
        "regularization can help (A5)."
    ]


def _fitted_caveats(outcome: Fitted, fits: pd.DataFrame) -> list[str]:
    found = []
    if outcome.edge_of_stability:
        found.append(
            "edge_of_stability: the next higher learning rate diverged, so instability bounds the answer and not the "
            "grid (D4); a warmup may allow higher rates (B36)."
        )
    if outcome.unfitted_seeds:
        found.append(
            f"{outcome.unfitted_seeds} fresh seeds did not fit in the steps they had; they count as slower than all "
            "others, and the estimate may be too short."
        )
    if outcome.width > LEAST_WIDTH:
        found.append(f"The evaluations leave an interval of {outcome.width:.0%} of its upper end (D5).")
    if outcome.tied:
        found.append(f"Inside one evaluation interval it ties with {_rates(outcome.tied)} (D5).")
    found += _validation_before_the_fit(outcome, fits)
    if fits["first_fit"].notna().sum() == 1:
        found.append("Only one learning rate fitted, so its neighbours cannot confirm it (A26).")
    return found
