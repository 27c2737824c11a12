"""`tuner sweep`: how many steps does the fastest trial need to reach the fit criterion?"""

from collections.abc import Sequence
from dataclasses import replace

from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.sweep_records import sweep_records
from tuner.analysis.unfitted import Proposal, Unfitted, proposals
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.options import Format
from tuner.cli.output import emit_findings, emit_frame, next_step, say
from tuner.cli.sessions import open_session
from tuner.cli.training_options import SweepOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.errors import DeclarationError, StorageError
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted
from tuner.rounds.launch import Session
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
    file = session.study_file or session.name
    if isinstance(outcome, Fitted):
        next_step(command("launch", file, after=("--round", 1)), command("plot sweep", session.name))
        return Exit.FINE
    say("no step budget could be determined: see the action above")
    if isinstance(outcome, Invalid):
        next_step(command("sweep", file, after=("--extend",)))
    elif isinstance(outcome, NotFitted):
        say_lines(proposals(Unfitted(outcome, records.fits, records.frames.study)), file, f"tuner run {file}")
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
