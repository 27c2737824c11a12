"""How long the trials of a round train: declared, or from the sweep, the production length or the round before."""

from contextlib import suppress
from dataclasses import dataclass

from tuner.analysis.best_steps import proposed_budget
from tuner.analysis.round_frames import round_frames
from tuner.analysis.stale import CONCLUSION
from tuner.analysis.sweep_outcome import Fitted
from tuner.analysis.sweep_records import SweepRecords, failed_rates, refuse_failed_rates, sweep_records
from tuner.budget.step_budget import rounded_up
from tuner.errors import DeclarationError, InputError
from tuner.rounds.launch import Desk, required_round, started_study
from tuner.rounds.lengths import check_growth, compute_bound_lengths
from tuner.rounds.plan import round_name
from tuner.storage.studies import StudyRow


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of steps and where it came from, in words. source: the study it was chosen from, if any."""

    steps: int
    origin: str
    source: str | None = None


def budget_of_round(desk: Desk, number: int, regime: str) -> Budget:
    """The budget of round `number`. `regime` decides how rounds grow (A1). Raises DeclarationError without one."""
    declared = desk.campaign.round(number)
    if declared.max_train_steps is not None:
        if regime == "compute_bound":
            return _compute_bound_budget(desk, number)
        return Budget(declared.max_train_steps, "declared in the study file")
    started = started_study(desk, round_name(number))
    if started is not None and desk.ledger.conclusion(desk.name, CONCLUSION, started.study_id) is not None:
        return _as_started(started)
    if started is not None:  # by tuner 0.1, and killed before it wrote down where the budget came from
        with suppress(InputError):
            chosen = _chosen_budget(desk, number, regime)
            return chosen if chosen.steps == started.study.budget.max_train_steps else _as_started(started)
        return _as_started(started)
    return _chosen_budget(desk, number, regime)


def _as_started(started: StudyRow) -> Budget:
    return Budget(started.study.budget.max_train_steps, "as it was started")


def _chosen_budget(desk: Desk, number: int, regime: str) -> Budget:
    if regime == "compute_bound":
        return _compute_bound_budget(desk, number)
    return _first_budget(desk) if number == 1 else _refined_budget(desk, number)


def check_against_round_before(desk: Desk, number: int, steps: int) -> None:
    """Raise DeclarationError where a round is no longer than the one before it, as that was trained (A31)."""
    before = started_study(desk, round_name(number - 1)) if number > 1 else None
    if before is not None:
        check_growth(number, steps, before.study.budget.max_train_steps)


def _compute_bound_budget(desk: Desk, number: int) -> Budget:
    """Growing geometrically from 10 % of the production length in round 1 to all of it in the last round (A30, A45)."""
    steps = compute_bound_lengths(desk.campaign)[number - 1]
    check_against_round_before(desk, number, steps)
    production = desk.campaign.production_steps
    if desk.campaign.round(number).max_train_steps is not None or production is None:
        return Budget(steps, "declared in the study file")
    return Budget(steps, f"{steps / production:.0%} of the production length of {production:,} steps (A30)")


def _first_budget(desk: Desk) -> Budget:
    sweep = sweep_records_of(desk)
    if sweep is None:
        raise DeclarationError(
            "round 1 has no step budget: run `tuner sweep` first, declare max_train_steps on the round, or give "
            "--max-train-steps"
        )
    refuse_failed_rates(failed_rates(desk.ledger, desk.name, sweep.name), desk.study_file or desk.name)
    outcome = sweep.outcome
    if not isinstance(outcome, Fitted):
        raise DeclarationError(
            f"the sweep gave no number of steps: `tuner sweep {desk.study_file or desk.name}` prints the lines of the "
            "study file that help. Or declare production_steps for a compute-bound workload, or give max_train_steps"
        )
    steps = rounded_up(sweep.margin * outcome.steps)
    origin = f"{sweep.margin:g} times the {outcome.steps:,} steps to fit that the sweep found (A18)"
    return Budget(steps, origin, sweep.frames.study.name)


def likely_budget(desk: Desk) -> tuple[int, str]:
    """The steps of a trial of round 1 and where they come from; assumed, as a dry run does, before there was a sweep.

    Raises DeclarationError for a sweep that found none, and where nothing says how long to train.
    """
    sweep = desk.campaign.sweep
    if sweep is None or sweep_records_of(desk) is not None or desk.campaign.round(1).max_train_steps is not None:
        budget = budget_of_round(desk, 1, "undecided")
        return budget.steps, budget.origin
    return rounded_up(sweep.margin * 2 * sweep.start_steps), "assumed until the sweep has found the steps to fit"


def sweep_records_of(desk: Desk) -> SweepRecords | None:
    """The sweep of a campaign that has come to an end; None before it was ever launched, too."""
    return sweep_records(desk.ledger, desk.name) if desk.name in desk.ledger.campaigns() else None


def _refined_budget(desk: Desk, number: int) -> Budget:
    """From where the best checkpoints of the round before lay: up, down, or the same (A9, A14-A17)."""
    required_round(desk, number - 1)
    steps, why = proposed_budget(round_frames(desk.ledger, desk.name, number - 1))
    return Budget(steps, why)
