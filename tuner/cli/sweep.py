"""`tuner sweep`: how many steps does the fastest trial need to reach the fit criterion?"""

from collections.abc import Sequence
from dataclasses import replace

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.analysis.questions.sweep import sweep_finding
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_records import SweepRecords, sweep_records
from tuner.analysis.unfitted import Proposal, Unfitted, proposals
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.options import Format
from tuner.cli.output import emit_findings, emit_frame, next_step, say
from tuner.cli.sessions import open_session
from tuner.cli.training_options import Sweep as SweepOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.design.campaign import Sweep
from tuner.errors import DeclarationError, StorageError
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted
from tuner.rounds.launch import Session
from tuner.rounds.sweep import run_sweep

SHOWN = (
    "learning_rate", "state", "last_unfit", "first_fit", "final_value", "late_improvement", "validation_best",
    "validation_step", "validation_end", "overfits", "reason",
)  # fmt: skip
SPARE = ("late_improvement", "validation_end", "reason")  # what a narrow terminal does without


def sweep(options: SweepOptions) -> Exit:
    """Run a sweep while somebody watches, print its finding, and return the exit code."""
    with open_session(options) as session:
        declared = chosen_sweep(session, options.learning_rates, options.extend)
        with stop_on_signal() as asked:
            at_work = replace(session, stop=asked.is_set, watch=watch(options.quiet))
            outcome = run_sweep(at_work, declared, again=options.again, retry_failed=options.retry_failed)
        return _print_sweep(session, outcome, options.form)


def chosen_sweep(session: Session, learning_rates: str | None, extend: bool) -> Sweep:
    """The declared sweep, with the grid the command line asks for. Raises DeclarationError.

    extend: an extension that has come to an end is the answer, when the same command is given again.
    """
    declared = session.campaign.sweep or Sweep()
    if learning_rates is not None:
        if extend:
            raise DeclarationError(
                "--extend extends the last grid and --learning-rates gives a new one; use one of them"
            )
        return replace(declared, learning_rate=_grid(learning_rates))
    if not extend:
        return declared
    last = sweep_records(session.ledger, session.name)
    if last is not None and isinstance(last.outcome, Invalid):
        return replace(declared, learning_rate=last.outcome.extended_grid)
    if last is not None and _is_extension(session, last):
        return replace(declared, learning_rate=_rates(last.frames))
    raise DeclarationError(
        "there is no invalid sweep to extend; run `tuner sweep` first, or give a grid with --learning-rates"
    )


def _is_extension(session: Session, last: SweepRecords) -> bool:
    """Whether the grid of a sweep is that of an earlier one and more."""
    names = [row.study.name for row in session.ledger.studies(session.name)]
    grids = [name for name in names if name.startswith("sweep-") and name.endswith("-grid")]
    mine = set(_rates(last.frames))
    return any(set(_rates(study_frames(session.ledger, session.name, name))) < mine for name in grids)


def _rates(frames: StudyFrames) -> tuple[float, ...]:
    """The learning rates of a sweep's grid, ascending."""
    return tuple(sorted(fit_steps_frame(frames)["learning_rate"]))


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


def _grid(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise DeclarationError(f"--learning-rates takes numbers with commas between, got {text!r}") from None
