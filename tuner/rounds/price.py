"""What the whole playbook costs before anything is trained."""

from collections.abc import Iterator
from dataclasses import replace

from tuner.budget.step_budget import StepBudget, rounded_up
from tuner.budget.transfer import lengthened, trunk_steps
from tuner.design.campaign import Sweep
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.rounds.launch import Desk, Plan, plan_study
from tuner.rounds.lengths import compute_bound_lengths
from tuner.rounds.plan import planned_trials, round_name, study_of_round
from tuner.rounds.prepare import declared_regime, known_regime, prepared_round
from tuner.rounds.promotion import most_promoted
from tuner.rounds.sweep import check_sweep, settled_outcome
from tuner.rounds.sweep_plan import sweep_plan


def priced_campaign(desk: Desk) -> Iterator[Plan | str]:
    """The plans of all stages, and remarks in words. What is not known yet is priced as a sweep at its first N."""
    compute_bound = declared_regime(desk.campaign) == "compute_bound"
    sweep = desk.campaign.sweep
    assumed: int | None = None  # steps of a round whose budget is not known yet
    if sweep is not None and not compute_bound and settled_outcome(desk, sweep) is None:
        yield from _priced_sweep(desk, sweep)
        assumed = rounded_up(sweep.margin * 2 * sweep.start_steps)
    before: tuple[Trial, ...] = ()
    for number in range(1, len(desk.campaign.rounds) + 1):
        prepared = _prepared(desk, number, assumed)
        priced = _promoting(desk, number, assumed, before) if prepared is None else plan_study(desk, *prepared)
        before = priced.trials
        assumed = None if compute_bound else priced.study.budget.max_train_steps
        yield priced


def _priced_sweep(desk: Desk, sweep: Sweep) -> Iterator[Plan | str]:
    plan = sweep_plan(desk.campaign, sweep)
    check_sweep(desk, plan)
    steps = 2 * sweep.start_steps
    study = plan.study("sweep", StepBudget.with_evaluations(steps, plan.evaluations), len(plan.rates) + sweep.seeds)
    trials = plan.trials(study, plan.rates)
    yield replace(plan_study(desk, study, trials), trials=trials + trials[: sweep.seeds])
    told = f"the sweep doubles its steps from {sweep.start_steps:,} until a rate fits, up to {sweep.max_steps:,}"
    if any(one.max_train_steps is None for one in desk.campaign.rounds):
        rounds = f"Rounds take {sweep.margin:g} times the steps to fit, at most these {steps:,}"
        yield f"{told}; here priced at {steps:,}. {rounds}"
    else:
        yield f"{told}; here priced at {steps:,}"


def _prepared(desk: Desk, number: int, assumed: int | None) -> tuple[Study, tuple[Trial, ...]] | None:
    """A round as it will be, or at `assumed` steps; None for a promoting one whose round before was not trained yet."""
    for steps in (None, assumed):
        try:
            prepared = prepared_round(desk, number, steps)
        except (StorageError, DeclarationError):
            if desk.campaign.round(number).space is not None and steps == assumed:
                raise
        else:
            return prepared.study, prepared.trials
    return None


def _promoting(desk: Desk, number: int, steps: int | None, before: tuple[Trial, ...]) -> Plan:
    """A promoting round with points of the round before in the place of its best ones, and what their trunks save."""
    declared = desk.campaign.round(number)
    budget = declared.max_train_steps or steps or desk.campaign.production_steps or 1
    if steps is None and known_regime(desk) == "compute_bound":
        budget = compute_bound_lengths(desk.campaign)[number - 1]
    first = study_of_round(desk.campaign, 1, budget)
    study = replace(first, name=round_name(number), num_trials=most_promoted(declared))
    plan = plan_study(desk, study, planned_trials(study))
    if known_regime(desk) != "compute_bound" or declared.transfer == "retune":
        return plan
    parents = before[: declared.promote]
    longer = [replace(one, schedule=lengthened(one.schedule, budget, declared.transfer)) for one in parents]
    saved = tuple(trunk_steps(one.schedule, more.schedule) for one, more in zip(parents, longer, strict=True))
    return replace(plan, trials=(*longer, *plan.trials[len(longer) :]), saved=saved)
