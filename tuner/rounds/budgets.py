"""How long the trials of a round train: declared, or from the sweep, the production length or the round before."""

from dataclasses import dataclass, replace

from tuner.analysis.questions.best_steps import proposed_budget
from tuner.analysis.round_frames import round_frames
from tuner.analysis.sweep_records import SweepRecords, failed_rates, refuse_failed_rates, sweep_records
from tuner.budget.step_budget import rounded_up
from tuner.errors import DeclarationError
from tuner.records.budget_origin import AS_STARTED, DECLARED, BudgetOrigin
from tuner.records.sweep_outcomes import Fitted
from tuner.rounds.controls import inherited_steps
from tuner.rounds.launch import Session, required_round, started_study
from tuner.rounds.plan import round_name
from tuner.rounds.round_lengths import check_growth, compute_bound_lengths


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of steps and where it comes from. source: the study from whose results it was chosen, if any."""

    steps: int
    origin: BudgetOrigin
    source: str | None = None


def budget_of_round(session: Session, number: int, regime: str) -> Budget:
    """The budget of round `number`. `regime` decides how rounds grow (A1). Raises DeclarationError without one."""
    declared = session.campaign.round(number)
    if declared.max_train_steps is not None:
        if regime == "compute_bound" and declared.start is None:
            return _compute_bound_budget(session, number)
        return Budget(declared.max_train_steps, DECLARED)
    started = started_study(session, round_name(number))
    if started is not None:
        return Budget(started.study.budget.max_train_steps, AS_STARTED)
    if declared.start is not None:
        return _budget_of_control(session, number, equal_total=declared.total is not None)
    if regime == "compute_bound":
        return _compute_bound_budget(session, number)
    return _first_budget(session) if number == 1 else _refined_budget(session, number)


def _budget_of_control(session: Session, number: int, *, equal_total: bool) -> Budget:
    """As long as the last round before it that starts from the weights, with what that inherits or without (C5)."""
    before = session.campaign.round_before(number) or 1
    steps = required_round(session, before).study.budget.max_train_steps
    name = round_name(before)
    if not equal_total:
        return Budget(steps, BudgetOrigin("control", study=name), name)
    more = inherited_steps(session).steps
    return Budget(steps + more, BudgetOrigin("equal_total", study=name, steps=more), name)


def with_warmup(session: Session, number: int, steps: int, regime: str) -> Session:
    """The session with the warmup in steps, where it is declared as a share of round 1; `steps`: of round `number`.

    Raises DeclarationError where round 1 has no number of steps yet.
    """
    if session.campaign.warmup is None:
        return session
    if number > 1:
        started = started_study(session, round_name(1))
        steps = started.study.budget.max_train_steps if started else budget_of_round(session, 1, regime).steps
    return replace(session, campaign=session.campaign.with_warmup(steps))


def check_against_round_before(session: Session, number: int, steps: int) -> None:
    """Raise DeclarationError where a round is no longer than the one before it, as that was trained (A31)."""
    earlier = session.campaign.round_before(number)
    before = None if earlier is None else started_study(session, round_name(earlier))
    if before is not None:
        check_growth(number, steps, before.study.budget.max_train_steps, earlier or 0)


def _compute_bound_budget(session: Session, number: int) -> Budget:
    """Growing geometrically from 10 % of the production length in round 1 to all of it in the last round (A30, A45)."""
    steps = compute_bound_lengths(session.campaign)[number - 1]
    check_against_round_before(session, number, steps)
    production = session.campaign.production_steps
    if session.campaign.round(number).max_train_steps is not None or production is None:
        return Budget(steps, DECLARED)
    return Budget(steps, BudgetOrigin("production", factor=steps / production, steps=production))


def _first_budget(session: Session) -> Budget:
    sweep = sweep_records_of(session)
    if sweep is None:
        raise DeclarationError(
            "round 1 has no step budget: run `tuner sweep` first, declare max_train_steps on the round, or give "
            "--max-train-steps"
        )
    refuse_failed_rates(failed_rates(session.ledger, session.name, sweep.name), session.called)
    outcome = sweep.outcome
    if not isinstance(outcome, Fitted):
        raise DeclarationError(
            f"the sweep gave no number of steps: `tuner sweep {session.called}` prints the lines "
            "of the study file that help. Or declare production_steps for a compute-bound workload, or give "
            "max_train_steps"
        )
    steps = rounded_up(sweep.margin * outcome.steps)
    origin = BudgetOrigin("sweep", factor=sweep.margin, steps=outcome.steps)
    return Budget(steps, origin, sweep.frames.study.name)


def likely_budget(session: Session) -> Budget:
    """The budget of round 1; assumed, as a dry run does, before there was a sweep.

    Raises DeclarationError for a sweep that found none, and where nothing says how long to train.
    """
    sweep = session.campaign.sweep
    if sweep is None or sweep_records_of(session) is not None or session.campaign.round(1).max_train_steps is not None:
        return budget_of_round(session, 1, "undecided")
    return Budget(rounded_up(sweep.margin * 2 * sweep.start_steps), BudgetOrigin("assumed"))


def sweep_records_of(session: Session) -> SweepRecords | None:
    """The sweep of a campaign that has come to an end; None before it was ever launched, too."""
    return sweep_records(session.ledger, session.name) if session.name in session.ledger.campaigns() else None


def _refined_budget(session: Session, number: int) -> Budget:
    """From where the best checkpoints of the round before lay: up, down, or the same (A9, A14-A17)."""
    before = session.campaign.round_before(number) or 1
    required_round(session, before)
    steps, why = proposed_budget(round_frames(session.ledger, session.name, before))
    return Budget(steps, why)
