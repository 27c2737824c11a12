"""Candidate and baseline: which two are meant, what their contest costs, and holding it while somebody watches."""

from dataclasses import dataclass, replace

from tuner.analysis.finding import Finding
from tuner.cli.given import command
from tuner.cli.launching import print_plan
from tuner.cli.output import next_step, say
from tuner.cli.places import exists, opened
from tuner.cli.watching import stop_on_signal, watch
from tuner.cli.where import Where
from tuner.reading import load
from tuner.rounds.adoption import Contest, Side, baseline_place, run_contest, trial_at_place
from tuner.rounds.imported_contest import imported_contest, imported_row, settle
from tuner.rounds.launch import Session, plan_study


def sides_of(session: Session, candidate: str | None, baseline: str | None) -> tuple[Side, Side]:
    """The two trials as named; by default the best of the last round, and what was adopted last."""
    if candidate is None:
        winner = load(session.name, session.ledger.url).best()
        candidate = f"{winner.row.study.name}/{winner.record.number}"
    side = trial_at_place(session.ledger, session.name, candidate)
    baseline = baseline or baseline_place(session.ledger, session.name, side.place)
    return side, trial_at_place(session.ledger, session.name, baseline)


@dataclass(frozen=True, slots=True)
class SettledImport:
    """The name of the contest's study, and its findings: none where it was only priced."""

    study: str
    findings: list[Finding]


def settled_import(
    where: Where, candidate: str | None, baseline: str | None, *, level: float, minimum_gain: float, dry_run: bool
) -> SettledImport | None:
    """The answer of the replicates of an imported study; None where the study is a file, to be trained."""
    name = str(where.study)
    if where.study.is_file() or not exists(where.storage):
        return None
    with opened(where.storage, create=False) as ledger:
        if imported_row(ledger, name) is None:
            return None
        made = imported_contest(ledger, name, candidate, baseline)
        say(f"{name} {made.study.name}: {made.study.goal}")
        say(f"{made.count(0)} replicates of the candidate, {made.count(1)} of the baseline; nothing is trained")
        if dry_run:
            return SettledImport(made.study.name, [])
        finding = settle(ledger, name, made, level=level, minimum_gain=minimum_gain)
    say(f"{finding.verdict.upper()}: in the log of adoptions of {name}")
    next_step(command("adoptions", name), command("report", name))
    return SettledImport(made.study.name, [finding])


def price_contest(session: Session, made: Contest) -> None:
    """What the contest costs."""
    print_plan(plan_study(session, made.study, made.trials))


def hold_contest(
    session: Session, made: Contest, *, level: float, minimum_gain: float, retry_failed: bool, quiet: bool
) -> Finding:
    """Train what is left while somebody watches."""
    say(f"{session.name} {made.study.name}: {made.study.goal}")
    say(f"{len(made.trials)} trials of {made.study.budget.max_train_steps:,} steps, with fresh seeds")
    with stop_on_signal() as asked:
        working = replace(session, stop=asked.is_set, watch=watch(quiet))
        return run_contest(working, made, level=level, minimum_gain=minimum_gain, retry_failed=retry_failed)
