"""`tuner stability`: does instability limit the learning rate, and which warmup helps?"""

from dataclasses import replace

from tuner.analysis.questions.stability import stability_finding
from tuner.analysis.stability_records import StabilityRecords
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.launch import print_plan, told_failures
from tuner.cli.output import emit_findings, exit_code, next_step, readable_seconds, say
from tuner.cli.sessions import open_session
from tuner.cli.training_options import StabilityOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.errors import DeclarationError
from tuner.rounds.launch import Session, plan_study
from tuner.rounds.stability_stages import (
    AskedStability,
    StabilityPlan,
    open_warmups,
    priced_stability,
    rows_of,
    stability_plan,
    train_rates,
    train_warmups,
)
from tuner.shown import counted


def stability(options: StabilityOptions) -> int:
    """Train the rates, then with --yes the warmups where a rate is unstable; or show what that would cost."""
    asked = _asked(options)
    with open_session(options, dry_run=options.dry_run, create=False) as session:
        plan = stability_plan(session, asked, options.round_number, options.trial)
        if not options.dry_run:
            return _run_and_print(session, plan, options)
        print_plan(*priced_stability(session, plan))
        _say_what_is_certain(plan)
    return Exit.FINE


def _say_what_is_certain(plan: StabilityPlan) -> None:
    if plan.warmups:
        say(
            "The rates are trained in any case. Warmups are trained with --yes and only where a rate is unstable "
            "early, the shortest first, until one is stable"
        )
    else:
        say(
            f"No warmup would be tried: a tenth of the {plan.budget:,} steps is no longer than the present warmup of "
            f"{plan.present_warmup:,} steps (--warmups names others)"
        )


def _run_and_print(session: Session, plan: StabilityPlan, options: StabilityOptions) -> int:
    stage = plan.rates_stage()
    rates = ", ".join(f"{multiple:g}x" for multiple in plan.asked.above)
    study, trial = stage.study.lineage[0]
    say(
        f"{session.name}: {study} {trial} at its learning rate {plan.rate:.3g} and at {rates} of it, "
        f"{plan.steps:,} steps each, {counted(plan.asked.seeds, 'seed')}"
    )
    with stop_on_signal() as stopped:
        at_work = replace(session, stop=stopped.is_set, watch=watch(options.quiet))
        records = train_rates(at_work, plan, retry_failed=options.retry_failed)
        if options.yes:
            records = train_warmups(at_work, plan, records, retry_failed=options.retry_failed)
    if records.by_warmup.empty and not options.yes:
        _say_price(session, plan, records)
    finding = stability_finding(records)
    emit_findings(session.name, "stability", [finding], options.form)
    failed = told_failures(session, rows_of(session))
    next_step(command("plot stability", session.name, after=("-o", "stability.png")))
    return failed or exit_code([finding])


def _say_price(session: Session, plan: StabilityPlan, records: StabilityRecords) -> None:
    """What the warmups would cost that --yes trains."""
    prices = [plan_study(session, stage.study, stage.trials) for stage in open_warmups(plan, records)]
    if prices:
        lengths = ", ".join(f"{steps:,}" for steps in plan.warmups)
        seconds = readable_seconds(sum(price.seconds for price in prices))
        say(
            f"--yes trains warmups of {lengths} steps, the shortest first, until one is stable: at most "
            f"{sum(price.steps for price in prices):,} steps, {seconds}"
        )


def _asked(options: StabilityOptions) -> AskedStability:
    return AskedStability(
        above=_numbers("--above", options.above, "2,5,10"),
        steps=None if options.steps is None else _steps(options.steps),
        seeds=options.seeds,
        warmups=None if options.warmups is None else _whole("--warmups", options.warmups),
        factor=options.factor,
    )


def _numbers(option: str, text: str, example: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise DeclarationError(f"{option} takes numbers with commas between, like {example}, got {text!r}") from None


def _whole(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DeclarationError(f"{option} takes steps with commas between, like 10,100,1000, got {text!r}") from None


def _steps(text: str) -> int | float:
    """Steps, or a share of the budget."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        raise DeclarationError(f"--steps takes a number of steps, or a share like 20%, got {text!r}") from None
