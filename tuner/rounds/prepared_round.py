"""A round before it is trained: its budget, its study, its trials, and warnings about them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tuner.analysis.edge_gains import MINIMUM_TRIALS, TRIALS_PER_DIMENSION
from tuner.analysis.questions.isolation import MINIMUM_EACH, role_warnings
from tuner.analysis.questions.stale_start import stale_start_findings
from tuner.budget.step_budget import MINIMUM_EVALUATIONS
from tuner.design.adapters import ALPHAS, RANKS
from tuner.design.campaign import Campaign
from tuner.design.hyperparameters import Choice, Domain, Range
from tuner.design.names import EMA_STEPS, Name
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.update_words import values_of
from tuner.errors import DeclarationError
from tuner.records.budget_origin import ON_THE_COMMAND_LINE, budget_of_study
from tuner.records.conclusions import RegimeVerdict
from tuner.rounds.budgets import Budget, budget_of_round, check_against_round_before, with_warmup
from tuner.rounds.comparison import basis_of, stale_budget
from tuner.rounds.controls import as_compared
from tuner.rounds.expand import planned_expansion
from tuner.rounds.launch import Session, launch_study, started_study
from tuner.rounds.plan import planned_trials, round_name, study_of_round
from tuner.rounds.promotion import promotion
from tuner.rounds.round_lengths import check_transfer, compute_bound_lengths
from tuner.storage.studies import StudyRow

WIDE_OPEN = 4.0  # [P]; times its smallest value the largest one is, of an alpha and a rate that are both searched
LONG_AVERAGE = 0.10  # [P] of the steps; above it an average shows in most of a training where the weights have been
LONG_WARMUP = 0.10  # of the steps; a longer warmup is warned about (C9)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study and its trials, where its budget comes from, and warnings about roles and carried-over schedules."""

    study: Study
    trials: tuple[Trial, ...]
    budget: Budget
    warnings: tuple[str, ...] = ()


def prepared_round(
    session: Session, number: int, max_train_steps: int | None = None, num_trials: int | None = None
) -> Prepared:
    """Everything about round `number` but the training.

    num_trials: trials in all, over the declared number. Raises DeclarationError when the budget is not known, or the
    number of trials cannot be had.
    """
    regime = known_regime(session)
    if regime == "compute_bound":
        check_rounds(session.campaign)
    control = session.campaign.round(number).start is not None
    if max_train_steps is not None:
        if regime == "compute_bound" and not control:
            check_against_round_before(session, number, max_train_steps)
        budget = Budget(max_train_steps, ON_THE_COMMAND_LINE)
    else:
        budget = budget_of_round(session, number, regime)
    if number > 1 and budget.source is None:  # whatever it was declared, its points or its schedule were chosen there
        before = session.campaign.round_before(number)
        budget = replace(budget, source=None if before is None else round_name(before))
    stale = _stale_warnings(session, number, budget)  # with the warmup as it is declared
    session = with_warmup(session, number, budget.steps, regime)
    if session.campaign.round(number).space is not None:
        study, grown = _with_trials(session, study_of_round(session.campaign, number, budget.steps), num_trials)
        study, unequal = as_compared(session, study) if control else (study, ())
        warnings = (
            *(*stale, *grown, *unequal, *role_warnings(study)),
            *(*_too_few_to_answer(study), *_long_warmup(study), *_long_averages(study), *_coupled_alpha(study)),
        )
        return Prepared(_with_examples(session, study), planned_trials(study), budget, warnings)
    if num_trials is not None:
        raise DeclarationError(
            f"round {number} promotes points, and has as many trials as promote=... and trials=... in the study file "
            "say; give --trials to the round that searches"
        )
    promoted = promotion(session, number, budget.steps, carry_over=regime == "compute_bound")
    warnings = (*stale, *promoted.warnings, *_long_warmup(promoted.study), *_long_averages(promoted.study))
    return Prepared(_with_examples(session, promoted.study), promoted.trials, budget, warnings)


def _long_warmup(study: Study) -> Iterator[str]:
    """A warning where the warmup takes much of the training (C9)."""
    share = study.warmup_steps / study.budget.max_train_steps
    if share > LONG_WARMUP:
        yield (
            f"the warmup of {study.warmup_steps:,} steps is {share:.0%} of {study.name}; above {LONG_WARMUP:.0%} "
            "little is trained at the full rate: shorten it, or train longer where training is unstable without (C9)"
        )


def _long_averages(study: Study) -> Iterator[str]:
    """A warning where averages of the weights reach over much of the training, at any value of a space."""
    declared = [(study.ema_steps,), *(values_of(h.domain) for h in study.hyperparameters if h.short_name == EMA_STEPS)]
    declared += [(constant.value,) for name, constant in study.fixed if Name.of(name).short == EMA_STEPS]
    steps = max((one for values in declared for one in values if isinstance(one, int)), default=0)
    share = steps / study.budget.max_train_steps
    if share > LONG_AVERAGE:
        yield (
            f"ema_steps of {steps:,} is {share:.0%} of the {study.budget.max_train_steps:,} steps of {study.name}; "
            f"above {LONG_AVERAGE:.0%} curves show for long where the weights have been, and best steps come late: "
            f"average over at most {max(1, int(LONG_AVERAGE * study.budget.max_train_steps)):,} steps, or train longer"
        )


def _coupled_alpha(study: Study) -> Iterator[str]:
    """A warning where the alpha of LoRA and the learning rate are both searched: they do nearly the same.

    B starts at zero. Its gradient has the factor alpha, and so has what it adds to the weight. Adam divides the first
    factor out of its steps, SGD does not.
    """
    short = {Name.of(name).short for name in (*(h.name for h in study.hyperparameters), *(n for n, _ in study.fixed))}
    wide = {h.short_name for h in study.hyperparameters if _span(h.domain) >= WIDE_OPEN}
    if "learning_rate" not in wide or not short & set(RANKS):
        return
    for alpha in sorted(wide & set(ALPHAS)):
        yield (
            f"{alpha} and learning_rate are both wide open in {study.name}, and of LoRA they are coupled: with Adam "
            f"the first changes of a weight grow with {alpha} times the rate, with SGD with {alpha} squared times the "
            f"rate, so that many pairs train alike. Fix {alpha}, or {alpha}/rank, and search the rate"
        )


def _span(domain: Domain) -> float:
    """How many times its smallest value the largest one of a range or a choice of positive numbers is; 1 for others."""
    if isinstance(domain, Range):
        return domain.high / domain.low if domain.low > 0 else math.inf
    numbers = [float(one) for one in domain.choices if isinstance(one, int | float) and not isinstance(one, bool)]
    return max(numbers) / min(numbers) if numbers and min(numbers) > 0 else 1.0


def _with_examples(session: Session, study: Study) -> Study:
    return replace(study, num_examples=session.loaded.num_examples)


def _with_trials(session: Session, study: Study, wanted: int | None) -> tuple[Study, tuple[str, ...]]:
    """The study with the wanted number of trials, or as many as were planned before, and notes about that.

    Raises DeclarationError for fewer than were planned: they are there, and every answer rests on them.
    """
    started = started_study(session, study.name)
    planned = started.study.num_trials if started is not None else 0
    if wanted is not None and wanted < planned:
        raise DeclarationError(
            f"--trials {wanted} is fewer than the {planned} that {study.name} has already; trials can be added, and "
            "none taken away: give a larger number"
        )
    trials = wanted or max(study.num_trials, planned)
    note = f"{study.name} has {trials} trials, by --trials; the study file declares {study.num_trials}"
    return replace(study, num_trials=trials), (note,) if trials > study.num_trials else ()


def _too_few_to_answer(study: Study) -> Iterator[str]:
    """Warnings where the declared trials or evaluations are too few to answer the questions of the checklist."""
    values = {h.name: len(h.domain.choices) for h in study.hyperparameters if isinstance(h.domain, Choice)}
    dimensions = len(study.hyperparameters) - len(values) + sum(count - 1 for count in values.values())
    each = [count * MINIMUM_EACH for name, count in values.items() if name in study.scientific]
    needed = max([MINIMUM_TRIALS, TRIALS_PER_DIMENSION * dimensions, *each])
    if study.num_trials < needed:
        yield (
            f"{study.num_trials} trials are too few to answer whether the ranges were wide enough, which takes "
            f"{needed}: trials={needed} in the study file, or --trials {needed}"
        )
    if len(study.budget.even_steps) < MINIMUM_EVALUATIONS:
        yield (
            f"{len(study.budget.even_steps)} evaluations a trial are too few to answer whether the budget was right, "
            f"which takes {MINIMUM_EVALUATIONS}: Campaign(evaluations={MINIMUM_EVALUATIONS}), or a smaller "
            "evaluate_every, or more steps"
        )


def _stale_warnings(session: Session, number: int, budget: Budget) -> tuple[str, ...]:
    """What changed since the budget was chosen, and what to do about it (A7, A16, A17)."""
    if session.name not in session.ledger.campaigns():
        return ()
    now = basis_of(session.campaign, session.loaded, number)
    found = stale_budget(session.ledger, session.name, budget.source, now, round_name(number))
    stale = (f"stale budget. {found.summary} {found.action}",) if found else ()
    starts = stale_start_findings(session.ledger, session.name, round_name(number))
    return (*stale, *(f"stale start. {one.summary} {one.action}" for one in starts))


def check_rounds(campaign: Campaign) -> None:
    """All that can be wrong with the rounds of a compute-bound campaign, before the first is trained."""
    compute_bound_lengths(campaign)
    check_transfer(campaign)


def prepared_expansion(session: Session, number: int) -> Prepared:
    """The newest widened study of a round, as it was written. Raises StorageError where there is none."""
    study, trials = planned_expansion(session.ledger, session.name, number)
    return Prepared(study, trials, Budget(study.budget.max_train_steps, budget_of_study(round_name(number))))


def launch_prepared(
    session: Session, prepared: Prepared, *, retry_failed: bool = False, second_try: bool = False
) -> StudyRow:
    """Train what is left of a round, as `launch_study` does, and record where its budget comes from."""
    return launch_study(
        session,
        prepared.study,
        prepared.trials,
        retry_failed=retry_failed,
        second_try=second_try,
        budget_origin=prepared.budget.origin,
        budget_source=prepared.budget.source,
    )


def known_regime(session: Session) -> str:
    """The regime: as declared, as concluded before, or as the declaration implies."""
    declared = declared_regime(session.campaign)
    if declared is not None:
        return declared
    known = session.name in session.ledger.campaigns()
    concluded = session.ledger.conclusion(session.name, RegimeVerdict) if known else None
    return concluded.verdict if concluded else "undecided"


def declared_regime(campaign: Campaign) -> str | None:
    """The declared regime. A production length without a sweep means compute-bound."""
    if campaign.regime is not None:
        return campaign.regime
    return "compute_bound" if campaign.production_steps is not None and campaign.sweep is None else None
