"""What the whole playbook costs before anything is trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tuner.analysis.questions.best_steps import LONGER_BUDGET
from tuner.analysis.sweep_outcome import GRID_EXTENSION
from tuner.budget.step_budget import rounded_up
from tuner.budget.transfer import lengthened, trunk_steps
from tuner.design.campaign import Sweep
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.rounds.controls import inherited_steps
from tuner.rounds.launch import Plan, Session, plan_study
from tuner.rounds.plan import planned_trials, round_name, study_of_round
from tuner.rounds.prepared_round import declared_regime, known_regime, prepared_round
from tuner.rounds.promotion import most_promoted
from tuner.rounds.round_lengths import compute_bound_lengths, control_steps
from tuner.rounds.sweep import MAX_EXTENSIONS, SEED_ROOM, SweepPlan, check_sweep, settled_outcome, sweep_plan

REFINED = 3  # [P] rates that tie inside one evaluation interval and are trained again with finer evaluations


@dataclass(frozen=True, slots=True)
class Extremes:
    """What part of a campaign trains if all goes well and if nothing does, and when each is so."""

    what: str
    likely: tuple[Plan, ...]
    likely_if: str
    worst: tuple[Plan, ...]
    worst_if: str


def priced_campaign(session: Session) -> Iterator[Plan | Extremes]:
    """The plans of all stages. What is not known yet is priced as a sweep at twice its first N, with its extremes."""
    compute_bound = declared_regime(session.campaign) == "compute_bound"
    sweep = session.campaign.sweep
    assumed: int | None = None  # steps of a round whose budget is not known yet
    plans: dict[int, Plan] = {}
    if sweep is not None and not compute_bound and settled_outcome(session, sweep) is None:
        yield from _priced_sweep(session, sweep)
        assumed = rounded_up(sweep.margin * 2 * sweep.start_steps)
    swept = assumed is not None
    before: tuple[Trial, ...] = ()
    for number, declared in enumerate(session.campaign.rounds, 1):
        control = declared.start is not None
        likely = _steps_of_control(session, number, plans) if control else assumed
        prepared = _prepared(session, number, likely)
        priced = _promoting(session, number, assumed, before) if prepared is None else plan_study(session, *prepared)
        steps = priced.study.budget.max_train_steps
        if number == 1:  # whose steps say how long a warmup is that is declared as a share
            session = replace(session, campaign=session.campaign.with_warmup(steps))
        if not control:
            before, assumed = priced.trials, None if compute_bound else steps
        plans[number] = priced
        yield priced
    if sweep is not None and swept:
        yield from _rounds_extremes(session, sweep, plans)


def _priced_sweep(session: Session, sweep: Sweep) -> Iterator[Plan | Extremes]:
    """The grid and the fresh seeds as they will probably be; then as they are where nothing fits before the cap."""
    plan = sweep_plan(session.campaign, sweep)
    check_sweep(session.loaded, plan)
    steps = min(2 * sweep.start_steps, sweep.max_steps)
    study = plan.study("sweep", plan.budget(steps), len(plan.rates))
    grid = plan_study(session, study, plan.trials(study, plan.rates))
    seeds = _seeds(plan, grid, steps)
    yield grid
    yield seeds
    longest = plan.study("sweep", plan.budget(sweep.max_steps), len(plan.rates))
    count = len(plan.rates) + MAX_EXTENSIONS * GRID_EXTENSION + REFINED * (1 + MAX_EXTENSIONS)
    worst = replace(grid, study=longest, trials=grid.trials[:1] * count, saved=(), finished=0)
    yield Extremes(
        "the sweep",
        (grid, seeds),
        f"it doubles its steps from {sweep.start_steps:,} until a rate fits, here at {steps:,}",
        (worst, _seeds(plan, grid, sweep.max_steps)),
        f"a rate fits only at max_steps={sweep.max_steps:,}, and an end of the grid, extended {MAX_EXTENSIONS} times",
    )


def _seeds(plan: SweepPlan, grid: Plan, steps: int) -> Plan:
    """The fastest rate with fresh seeds, which get SEED_ROOM times the steps."""
    seeds = plan.sweep.seeds
    study = plan.study("sweep, fresh seeds", plan.budget(SEED_ROOM * steps), seeds)
    return replace(grid, study=study, trials=grid.trials[:1] * seeds, saved=(), finished=0)


def _steps_of_control(session: Session, number: int, plans: Mapping[int, Plan]) -> int:
    """How long a control will be, by the plans of the rounds before it."""
    compared = plans[session.campaign.round_before(number) or 1].study.budget.max_train_steps
    return control_steps(session.campaign.round(number), compared, inherited_steps(session).steps)


def _rounds_extremes(session: Session, sweep: Sweep, plans: Mapping[int, Plan]) -> Iterator[Extremes]:
    """The rounds whose length follows from the sweep; each later round may be twice as long as the round before.

    A control is as much longer than the round it is compared with as it is now.
    """
    campaign, most = session.campaign, rounded_up(sweep.margin * sweep.max_steps)
    lengths = {number: one.study.budget.max_train_steps for number, one in plans.items()}
    longest: dict[int, int] = {}
    for number, declared in enumerate(campaign.rounds, 1):
        before = campaign.round_before(number)
        if declared.max_train_steps is None and declared.start is None:
            longest[number] = most * LONGER_BUDGET ** sum(campaign.round(one).start is None for one in longest)
        elif declared.max_train_steps is None and before in longest:
            longest[number] = longest[before] + lengths[number] - lengths[before]
    if not longest:
        return
    worst = tuple(
        replace(plans[number], study=replace(plans[number].study, budget=campaign.budget(steps)), saved=())
        for number, steps in longest.items()
    )
    yield Extremes(
        "the rounds",
        tuple(plans[number] for number in longest),
        f"they take {sweep.margin:g} times the steps to fit",
        worst,
        f"a rate fits only at max_steps={sweep.max_steps:,}, and each later round has to double its length",
    )


def _prepared(session: Session, number: int, assumed: int | None) -> tuple[Study, tuple[Trial, ...]] | None:
    """A round as it will be, or at `assumed` steps; None for a promoting one whose round before was not trained yet."""
    for steps in (None, assumed):
        try:
            prepared = prepared_round(session, number, steps)
        except (StorageError, DeclarationError):
            if session.campaign.round(number).space is not None and steps == assumed:
                raise
        else:
            return prepared.study, prepared.trials
    return None


def _promoting(session: Session, number: int, steps: int | None, before: tuple[Trial, ...]) -> Plan:
    """A promoting round with points of the round before in the place of its best ones, and what their trunks save."""
    declared = session.campaign.round(number)
    budget = declared.max_train_steps or steps or session.campaign.production_steps or 1
    if steps is None and known_regime(session) == "compute_bound":
        budget = compute_bound_lengths(session.campaign)[number - 1]
    first = study_of_round(session.campaign, 1, budget)
    patience = declared.patience_steps or 0
    study = replace(first, name=round_name(number), num_trials=most_promoted(declared), patience_steps=patience)
    plan = plan_study(session, study, planned_trials(study))
    shares = session.loaded.promises(study).prefixes
    if known_regime(session) != "compute_bound" or declared.transfer == "retune" or not shares:
        return plan
    parents = before[: declared.promote]
    longer = [replace(one, schedule=lengthened(one.schedule, budget, declared.transfer)) for one in parents]
    saved = tuple(trunk_steps(one.schedule, more.schedule) for one, more in zip(parents, longer, strict=True))
    return replace(plan, trials=(*longer, *plan.trials[len(longer) :]), saved=saved)
