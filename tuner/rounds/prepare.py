"""A round made ready: its budget, its study, its trials, and what there is to say about them before they run."""

from dataclasses import dataclass, replace

from tuner.analysis.roles import role_warnings
from tuner.design.campaign import Campaign
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.rounds.basis import basis_of, stale_budget
from tuner.rounds.budgets import Budget, budget_of_round, check_against_round_before
from tuner.rounds.expand import planned_expansion
from tuner.rounds.launch import Desk
from tuner.rounds.lengths import check_transfer, compute_bound_lengths
from tuner.rounds.plan import planned_trials, round_name, study_of_round
from tuner.rounds.promotion import promotion


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study and its trials, where its budget comes from, and warnings about roles and carried-over schedules."""

    study: Study
    trials: tuple[Trial, ...]
    budget: Budget
    warnings: tuple[str, ...] = ()


def prepared_round(desk: Desk, number: int, max_train_steps: int | None = None) -> Prepared:
    """Everything about round `number` but the training. Raises DeclarationError when its budget is not known."""
    regime = known_regime(desk)
    if regime == "compute_bound":
        check_rounds(desk.campaign)
    if max_train_steps is not None:
        if regime == "compute_bound":
            check_against_round_before(desk, number, max_train_steps)
        budget = Budget(max_train_steps, "given on the command line")
    else:
        budget = budget_of_round(desk, number, regime)
    if number > 1 and budget.source is None:  # whatever it was declared, its points or its schedule were chosen there
        budget = replace(budget, source=round_name(number - 1))
    stale = _stale_warnings(desk, number, budget)
    if desk.campaign.round(number).space is not None:
        study = study_of_round(desk.campaign, number, budget.steps)
        return Prepared(study, planned_trials(study), budget, (*stale, *role_warnings(study)))
    promoted = promotion(desk, number, budget.steps, carry_over=regime == "compute_bound")
    return Prepared(promoted.study, promoted.trials, budget, (*stale, *promoted.warnings))


def _stale_warnings(desk: Desk, number: int, budget: Budget) -> tuple[str, ...]:
    """What changed since the budget was chosen, and what to do about it (A7, A16, A17)."""
    if desk.name not in desk.ledger.campaigns():
        return ()
    now = basis_of(desk.campaign, desk.backend, number)
    found = stale_budget(desk.ledger, desk.name, budget.source, now, round_name(number))
    return (f"stale budget. {found.summary} {found.action}",) if found else ()


def check_rounds(campaign: Campaign) -> None:
    """All that can be wrong with the rounds of a compute-bound campaign, before the first is trained."""
    compute_bound_lengths(campaign)
    check_transfer(campaign)


def prepared_expansion(desk: Desk, number: int) -> Prepared:
    """The newest widened study of a round, as it was written. Raises StorageError where there is none."""
    study, trials = planned_expansion(desk.ledger, desk.name, number)
    return Prepared(study, trials, Budget(study.budget.max_train_steps, f"as {round_name(number)}"))


def known_regime(desk: Desk) -> str:
    """The regime: as declared, as concluded before, or as the declaration implies."""
    declared = declared_regime(desk.campaign)
    if declared is not None:
        return declared
    concluded = desk.ledger.conclusion(desk.name, "regime") if desk.name in desk.ledger.campaigns() else None
    return str(concluded["verdict"]) if concluded else "undecided"


def declared_regime(campaign: Campaign) -> str | None:
    """What the user says. A production length without a sweep says compute-bound: there is nothing to find out."""
    if campaign.regime is not None:
        return campaign.regime
    return "compute_bound" if campaign.production_steps is not None and campaign.sweep is None else None
