"""`tuner plan`: rounds, trials, steps, cost and relevance before anything is trained."""

from collections.abc import Sequence

from rich.table import Table

from tuner.cli.given import command
from tuner.cli.launch import cost_words, say_gang
from tuner.cli.output import console, next_step, readable_seconds, say
from tuner.cli.sessions import open_session
from tuner.cli.stages import print_chain_prices, print_stage_prices
from tuner.cli.training_options import PlanOptions, TrainingOptions
from tuner.design.study_file import declared_stages
from tuner.errors import DeclarationError
from tuner.records import Price
from tuner.records.hourly_price import HourlyPrice, amount_words, parsed_price
from tuner.rounds.budgets import likely_budget
from tuner.rounds.controls import inherited_steps
from tuner.rounds.launch import Session, plan_study
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.prepared_round import known_regime
from tuner.rounds.round_lengths import (
    PlannedRound,
    check_transfer,
    declaration_words,
    many_rounds_note,
    planned_rounds,
    rounds_for,
    rounds_of_one_length,
)


def plan(options: PlanOptions) -> None:
    """Show the rounds of a campaign, or of all stages of a file; a total of steps is that of one campaign."""
    on = TrainingOptions(
        study=options.study, storage=options.storage, device=options.device, threads=options.threads, gang=options.gang
    )
    price = parsed_price(options.price_per_hour)
    stages = declared_stages(str(options.study)) if options.total_steps is None and options.rounds is None else []
    if len(stages) > 1:
        print_chain_prices(stages, on, price)
        next_step(command("run", str(options.study)))
        return
    with open_session(on, dry_run=True, stage=next(iter(stages), None)) as session:
        print_rounds(session, options.total_steps, options.rounds, price)


def print_rounds(
    session: Session, total_steps: int | None, count: int | None, price: HourlyPrice | None = None
) -> None:
    """The rounds as declared, or for a total of steps. Raises DeclarationError where no such plan exists."""
    if count is not None and total_steps is None:
        raise DeclarationError("--rounds plans rounds for a total of steps; give --total-steps with it")
    if known_regime(session) != "compute_bound":
        if total_steps is None:
            print_stage_prices(session, price)
        else:
            _print_one_length(session, total_steps, count, price)
        return
    check_transfer(session.campaign)
    inherited = inherited_steps(session).steps
    planned = (
        planned_rounds(session.campaign, inherited)
        if total_steps is None
        else rounds_for(session.campaign, total_steps, count, inherited)
    )
    _print_table(session, planned, price)
    note = many_rounds_note(sum(not one.control for one in planned))
    if note is not None:
        say(f"note: {note}")
    if total_steps is not None:
        _say_declarations([declaration_words(one) for one in planned])
    next_step(command("run", session.called, after=("--dry-run",)))


def _print_one_length(session: Session, total_steps: int, count: int | None, price: HourlyPrice | None) -> None:
    """What a total buys where the rounds do not grow: trials, all of the length that the sweep finds."""
    budget = likely_budget(session)
    planned = rounds_of_one_length(session.campaign, budget.steps, total_steps, count, inherited_steps(session).steps)
    _print_table(session, planned, price)
    say(
        f"trials of {budget.steps:,} steps ({budget.origin.sentence}): more steps gain nothing here, so all "
        "rounds have this length and --total-steps sets the number of trials. A round gets longer only if the best "
        "steps of the round before ask for it. The steps of a sweep are not included"
    )
    _say_declarations([declaration_words(one, length=False) for one in planned])
    next_step(command("run", session.called, after=("--dry-run",)))


def _say_declarations(rounds: Sequence[str]) -> None:
    say("to take this plan, write in the study file:")
    for number, words in enumerate(rounds, 1):
        say(f"  round {number}: {words}")


def _print_table(session: Session, planned: Sequence[PlannedRound], hourly: HourlyPrice | None) -> None:
    study = study_of_round(session.campaign, 1, planned[0].max_train_steps)
    first = plan_study(session, study, planned_trials(study))
    price, epochs = first.price, first.study.steps_per_epoch is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = (
        "round", "points", "trials", "steps each", *["epochs"] * epochs, "relevance", "steps", "share", "time",
        *["cost"] * (hourly is not None),
    )  # fmt: skip
    for name in names:
        table.add_column(name, justify="left" if name == "points" else "right")
    total = sum(one.steps for one in planned)
    for one in planned:
        table.add_row(
            str(one.number), _points(one), str(one.trials), f"{one.max_train_steps:,}",
            *[first.study.in_epochs(one.max_train_steps)] * epochs, f"{one.relevance:.0%}", f"{one.steps:,}",
            f"{one.steps / total:.0%}", readable_seconds(_seconds(session, one, price)),
            *([] if hourly is None else [amount_words(hourly.of(_process_seconds(session, one, price)))]),
        )  # fmt: skip
    console().print(table)
    seconds = sum(_seconds(session, one, price) for one in planned)
    say(
        f"{total:,} steps in all, about {readable_seconds(seconds)} here, one trial at a time; steps that are "
        "inherited from shorter trials are not subtracted"
    )
    if hourly is not None:
        say(cost_words(hourly, sum(_process_seconds(session, one, price) for one in planned), price.ranks))
    say_gang([first])
    for one in planned:
        if one.patience:
            say(
                f"round {one.number}: steps and time are at most these: a trial stops early where its metric has not "
                f"improved for {one.patience:,} steps"
            )


def _points(one: PlannedRound) -> str:
    parts = [
        (one.searched, "searched from scratch" if one.control else "searched"),
        (one.promoted, "promoted"),
        (one.fresh, "again with fresh seeds"),
    ]
    parts.append((one.arms, "at other rates"))
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def _seconds(session: Session, one: PlannedRound, price: Price) -> float:
    return one.trials * one.max_train_steps * price.step_ms / 1e3 + _evaluation_seconds(session, one, price)


def _process_seconds(session: Session, one: PlannedRound, price: Price) -> float:
    """The same of all processes that train a trial together."""
    return price.process_seconds(one.trials * one.max_train_steps, _evaluation_seconds(session, one, price))


def _evaluation_seconds(session: Session, one: PlannedRound, price: Price) -> float:
    evaluations = len(session.campaign.budget(one.max_train_steps).evaluation_steps)
    return one.trials * evaluations * price.evaluation_ms / 1e3
