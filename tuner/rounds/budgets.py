"""How long the trials of a round train: declared, or from the sweep, the production length or the round before."""

import math
from dataclasses import dataclass

from tuner.analysis.best_steps import proposed_budget
from tuner.analysis.round_frames import round_frames
from tuner.analysis.sweep_outcome import Fitted
from tuner.analysis.sweep_records import sweep_records
from tuner.budget.step_budget import rounded_up
from tuner.errors import DeclarationError
from tuner.rounds.launch import Desk, required_round, started_study
from tuner.rounds.plan import round_name

FIRST_SHARE = 0.10  # of the production length, for round 1 of a compute-bound workload [S] (A30)


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of steps and where it came from, in words."""

    steps: int
    origin: str


def budget_of_round(desk: Desk, number: int, regime: str) -> Budget:
    """The budget of round `number`. `regime` decides how rounds grow (A1). Raises DeclarationError without one."""
    declared = desk.campaign.round(number)
    if declared.max_train_steps is not None:
        if regime == "compute_bound":
            _check_growth(desk, number, declared.max_train_steps)
        return Budget(declared.max_train_steps, "declared in the study file")
    started = started_study(desk, round_name(number))
    if started is not None:
        return Budget(started.study.budget.max_train_steps, "as it was started")
    if regime == "compute_bound":
        return _compute_bound_budget(desk, number)
    return _first_budget(desk) if number == 1 else _refined_budget(desk, number)


def _compute_bound_budget(desk: Desk, number: int) -> Budget:
    """Growing geometrically from 10 % of the production length in round 1 to all of it in the last round (A30, A45)."""
    production = desk.campaign.production_steps
    if production is None:
        raise DeclarationError(
            "the workload is compute-bound, so longer is better and only you know how long you can afford (A2); "
            "declare production_steps, the length of the final run"
        )
    last = len(desk.campaign.rounds)
    share = 1.0 if last == number else FIRST_SHARE ** ((last - number) / (last - 1))
    steps = max(1, math.ceil(share * production))
    _check_growth(desk, number, steps)
    return Budget(steps, f"{share:.0%} of the production length of {production:,} steps (A30)")


def _check_growth(desk: Desk, number: int, steps: int) -> None:
    """The rounds of a compute-bound workload grow strictly (A31)."""
    if number == 1:
        return
    started = started_study(desk, round_name(number - 1))
    before = started.study.budget.max_train_steps if started else desk.campaign.rounds[number - 2].max_train_steps
    if before is not None and steps <= before:
        raise DeclarationError(
            f"round {number} would train {steps:,} steps, no more than round {number - 1} with {before:,}; the rounds "
            "of a compute-bound workload must grow (A31): raise production_steps or shorten the round before"
        )


def _first_budget(desk: Desk) -> Budget:
    sweep = sweep_records(desk.ledger, desk.name)
    if sweep is None:
        raise DeclarationError(
            "round 1 has no step budget: run `tuner sweep` first, declare max_train_steps on the round, or give "
            "--max-train-steps"
        )
    outcome = sweep.outcome
    if not isinstance(outcome, Fitted):
        raise DeclarationError(
            "the sweep gave no number of steps; mend it (`tuner sweep` says how), declare production_steps for a "
            "compute-bound workload, or give max_train_steps"
        )
    steps = rounded_up(sweep.margin * outcome.steps)
    return Budget(steps, f"{sweep.margin:g} times the {outcome.steps} steps to fit that the sweep found (A18)")


def _refined_budget(desk: Desk, number: int) -> Budget:
    """From where the best checkpoints of the round before lay: up, down, or the same (A9, A14-A17)."""
    required_round(desk, number - 1)
    steps, why = proposed_budget(round_frames(desk.ledger, desk.name, number - 1))
    return Budget(steps, why)
