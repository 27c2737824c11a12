"""`tuner budget-curve`: what is the gain from longer training?"""

from collections.abc import Sequence
from dataclasses import replace

from tuner.analysis.questions.budget_curve import budget_curve as recorded_curve
from tuner.analysis.questions.budget_curve import budget_curve_finding
from tuner.analysis.round_frames import round_frames, row_of_trial
from tuner.cli.given import command
from tuner.cli.launch import print_plan, told_failures
from tuner.cli.output import emit_findings, exit_code, next_step, say
from tuner.cli.sessions import open_session
from tuner.cli.training_options import BudgetCurveOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.errors import DeclarationError
from tuner.reading import round_number
from tuner.rounds.curve_stages import Stage, curve_stages, even_lengths, priced_stages, seeds_for, train_stages
from tuner.rounds.launch import Session
from tuner.rounds.promotion import chosen_trials


def budget_curve(options: BudgetCurveOptions) -> int:
    """Train one configuration for several lengths, or show what that would cost."""
    with open_session(options, dry_run=options.dry_run, create=False) as session:
        stages = chosen_stages(session, options.round_number, options.trial, options.lengths, options.seeds)
        if not options.dry_run:
            return run_and_print(session, stages, options)
        print_plan(*priced_stages(session, stages))
    return 0


def chosen_stages(
    session: Session, number: int | None, trial: int | None, lengths: str | None, num_seeds: int | None
) -> tuple[Stage, ...]:
    """The studies of the curve that the command line asks for. Raises InputError."""
    place = round_number(session.ledger, session.name, number)
    if trial is None:
        best = chosen_trials(round_frames(session.ledger, session.name, place), 1)
        if not best:
            raise DeclarationError(f"round {place} has no complete trial yet; give --round, or train it first")
        trial = best[0]
    row, record = row_of_trial(session.ledger, session.name, place, trial)
    longest = max(session.campaign.production_steps or 0, row.study.budget.max_train_steps)
    steps = _parsed(lengths) if lengths else even_lengths(longest)
    return curve_stages(row, record, steps, seeds_for(len(steps)) if num_seeds is None else num_seeds)


def run_and_print(session: Session, stages: Sequence[Stage], options: BudgetCurveOptions) -> int:
    """Train the curve while somebody watches, print its finding, and return the exit code."""
    lengths = ", ".join(f"{stage.study.budget.max_train_steps:,}" for stage in stages)
    say(
        f"{session.name}: {stages[0].study.lineage[0][0]} {stages[0].study.lineage[0][1]} to {lengths} steps, "
        f"{len(stages[0].trials)} of each"
    )
    with stop_on_signal() as asked:
        at_work = replace(session, stop=asked.is_set, watch=watch(options.quiet))
        rows = train_stages(at_work, stages, retry_failed=options.retry_failed)
    curve = recorded_curve(session.ledger, session.name)
    finding = budget_curve_finding(curve)
    emit_findings(session.name, "budget-curve", [finding], options.form)
    trained, taken = int(curve.table["trained"].sum()), int(curve.table["inherited"].sum())
    say(f"{trained:,} steps trained; separate runs would have trained {trained + taken:,}")
    failed = told_failures(session, rows)
    if len(curve.table):
        next_step(command("plot budget-curve", session.name, after=("-o", "budget-curve.png")))
    return failed or exit_code([finding])


def _parsed(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DeclarationError(f"--lengths takes steps with commas between, like 200,400,800, got {text!r}") from None
