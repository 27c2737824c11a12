"""`tuner adopt`: is the candidate better than the baseline, in view of the variance of trials?"""

from dataclasses import replace

from tuner.analysis.finding import Finding
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.launch import print_plan, told_failures
from tuner.cli.output import emit_findings, next_step, say
from tuner.cli.places import opened
from tuner.cli.sessions import open_session
from tuner.cli.training_options import AdoptOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.reading import load
from tuner.rounds.adoption import (
    Contest,
    Side,
    baseline_place,
    check_level,
    contest,
    run_contest,
    trial_at_place,
)
from tuner.rounds.imported_contest import imported_contest, imported_row, settle
from tuner.rounds.launch import Session, plan_study
from tuner.rounds.opening import storage_exists


def adopt(options: AdoptOptions) -> Exit:
    """Compare candidate and baseline by trials with fresh seeds, or show what that would cost."""
    check_level(options.level)
    if _is_imported(options):
        return _compare_replicates(options)
    with open_session(options, dry_run=options.dry_run, create=False) as session:
        made = contest(session, *_sides_of(session, options.candidate, options.baseline), options.replicates)
        if options.dry_run:
            print_plan(plan_study(session, made.study, made.trials))
            return Exit.FINE
        finding = _hold_contest(session, made, options)
        emit_findings(session.name, made.study.name, [finding], options.form)
        say(f"{finding.verdict.upper()}: recorded in the log of adoptions of {session.name}")
        code = told_failures(session, [session.ledger.study(session.name, made.study.name)])
        next_step(command("adoptions", session.name), command("report", session.name))
        return code


def _sides_of(session: Session, candidate: str | None, baseline: str | None) -> tuple[Side, Side]:
    """The two trials as named; by default the best of the last round, and the configuration adopted last."""
    if candidate is None:
        winner = load(session.name, session.ledger.url).best()
        candidate = f"{winner.row.study.name}/{winner.record.number}"
    side = trial_at_place(session.ledger, session.name, candidate)
    baseline = baseline or baseline_place(session.ledger, session.name, side.place)
    return side, trial_at_place(session.ledger, session.name, baseline)


def _hold_contest(session: Session, made: Contest, options: AdoptOptions) -> Finding:
    """Train what is left while somebody watches."""
    say(f"{session.name} {made.study.name}: {made.study.goal}")
    say(f"{len(made.trials)} trials of {made.study.budget.max_train_steps:,} steps, with fresh seeds")
    with stop_on_signal() as asked:
        working = replace(session, stop=asked.is_set, watch=watch(options.quiet))
        return run_contest(
            working, made, level=options.level, minimum_gain=options.minimum_gain, retry_failed=options.retry_failed
        )


def _is_imported(options: AdoptOptions) -> bool:
    """Whether the study is the name of an imported one, and no file that can be trained."""
    if options.study.is_file() or not storage_exists(options.storage):
        return False
    with opened(options.storage, create=False) as ledger:
        return imported_row(ledger, str(options.study)) is not None


def _compare_replicates(options: AdoptOptions) -> Exit:
    """Answer from the replicates that an imported study has; a dry run only counts them."""
    name = str(options.study)
    with opened(options.storage, create=False) as ledger:
        made = imported_contest(ledger, name, options.candidate, options.baseline)
        say(f"{name} {made.study.name}: {made.study.goal}")
        say(f"{made.count(0)} replicates of the candidate, {made.count(1)} of the baseline; nothing is trained")
        findings = (
            []
            if options.dry_run
            else [settle(ledger, name, made, level=options.level, minimum_gain=options.minimum_gain)]
        )
    for finding in findings:
        say(f"{finding.verdict.upper()}: recorded in the log of adoptions of {name}")
        next_step(command("adoptions", name), command("report", name))
    emit_findings(name, made.study.name, findings, options.form)
    return Exit.FINE
