"""`tuner sweep` and `budget-curve`: how many steps to train, and what more steps gain."""

from collections.abc import Sequence
from dataclasses import replace

from tuner.analysis.questions.budget_curve import budget_curve as recorded_curve
from tuner.analysis.questions.budget_curve import budget_curve_finding
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.round_frames import round_number, row_of_trial
from tuner.analysis.sweep_records import sweep_records
from tuner.analysis.unfitted import Proposal, Unfitted, proposals
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.launch import print_plan, told_failures
from tuner.cli.options import Format
from tuner.cli.output import emit_findings, emit_frame, exit_code, next_step, say
from tuner.cli.sessions import open_session
from tuner.cli.training_options import BudgetCurveOptions, SweepOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.errors import DeclarationError, StorageError
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted
from tuner.rounds.curve_stages import CurveLength, curve_stages, even_lengths, priced_stages, seeds_for, train_stages
from tuner.rounds.launch import Session, known_promises
from tuner.rounds.promotion import best_trial
from tuner.rounds.sweep import chosen_sweep, run_sweep

SHOWN = (
    "learning_rate", "state", "last_unfit", "first_fit", "final_value", "late_improvement", "validation_best",
    "validation_step", "validation_end", "overfits", "reason",
)  # fmt: skip
SPARE = ("late_improvement", "validation_end", "reason")  # what a narrow terminal does without


def sweep(options: SweepOptions) -> Exit:
    """Run a sweep while somebody watches, print its finding, and return the exit code."""
    with open_session(options) as session:
        declared = chosen_sweep(session, _grid(options.learning_rates), options.extend)
        with stop_on_signal() as asked:
            at_work = replace(session, stop=asked.is_set, watch=watch(options.quiet))
            outcome = run_sweep(at_work, declared, again=options.again, retry_failed=options.retry_failed)
        return _print_sweep(session, outcome, options.form)


def _print_sweep(session: Session, outcome: Fitted | Invalid | NotFitted, form: Format) -> Exit:
    """Print what a sweep found, and what to do next."""
    records = sweep_records(session.ledger, session.name)
    if records is None:
        raise StorageError(f"the sweep of {session.name!r} left no record")
    if form is Format.table:
        emit_frame(records.fits[list(SHOWN)], form, spare=SPARE)
    emit_findings(session.name, records.name, [sweep_finding(outcome, records.fits, records.frames.study)], form)
    file = session.called
    if isinstance(outcome, Fitted):
        next_step(command("launch", file, after=("--round", 1)), command("plot sweep", session.name))
        return Exit.FINE
    say("no step budget could be determined: see the action above")
    if isinstance(outcome, Invalid):
        next_step(command("sweep", file, after=("--extend",)))
    elif isinstance(outcome, NotFitted):
        lines = proposals(Unfitted(outcome, records.fits, records.frames.study))
        say_lines(lines, session.study_file or session.name, f"tuner run {file}")
    return Exit.FINDING


def say_lines(lines: Sequence[Proposal], file: object, then: str) -> None:
    """Lines to write in the study file, of which a person chooses one, and what to run `then`."""
    say(f"Write one of these lines in {file}, then: {then}")
    for line in lines:
        say(f"  {line.code}  # in {line.place}: {line.why}" if line.code else f"  or {line.why}")


def _grid(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise DeclarationError(f"--learning-rates takes numbers with commas between, got {text!r}") from None


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
) -> tuple[CurveLength, ...]:
    """The studies of the curve that the command line asks for. Raises InputError."""
    place = round_number(session.ledger, session.name, number)
    trial = best_trial(session, place) if trial is None else trial
    row, record = row_of_trial(session.ledger, session.name, place, trial)
    longest = max(session.campaign.production_steps or 0, row.study.budget.max_train_steps)
    steps = _parsed(lengths) if lengths else even_lengths(longest)
    seeds = seeds_for(len(steps)) if num_seeds is None else num_seeds
    shares = known_promises(session, row.study).prefixes
    return curve_stages(row, record, steps, seeds, shares=shares)


def run_and_print(session: Session, stages: Sequence[CurveLength], options: BudgetCurveOptions) -> int:
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
    shared = f"separate runs would have trained {trained + taken:,}"
    say(f"{trained:,} steps trained; {shared if curve.shared else 'each length was trained from its first step'}")
    failed = told_failures(session, rows)
    if len(curve.table):
        next_step(command("plot budget-curve", session.name, after=("-o", "budget-curve.png")))
    return failed or exit_code([finding])


def _parsed(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DeclarationError(f"--lengths takes steps with commas between, like 200,400,800, got {text!r}") from None
