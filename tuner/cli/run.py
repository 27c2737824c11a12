"""`tuner run`: the whole playbook, what it would cost, and how it ends on a few lines."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.analysis.finding import NOTHING_TO_DO, Finding, needing_action
from tuner.analysis.spending import spent_words
from tuner.cli.budgets import say_lines
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.launch import told_failures
from tuner.cli.output import next_step, say, show
from tuner.cli.sessions import check_options, open_session
from tuner.cli.stages import print_chain, print_chain_prices
from tuner.cli.tables import readable
from tuner.cli.training_options import RunOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.design.stages import Stage
from tuner.design.study import Study
from tuner.design.study_file import declared_stages
from tuner.errors import StorageError, TrialsFailed
from tuner.execution.backend import Listener
from tuner.reading import Winner, load
from tuner.records.hourly_price import HourlyPrice, parsed_price
from tuner.report.page import report_path, write_report
from tuner.rounds.foreseen import check_chain
from tuner.rounds.importances import importances
from tuner.rounds.launch import Session
from tuner.rounds.playbook import Decision, Ending, Playbook
from tuner.shown import word


def run(options: RunOptions) -> Exit:
    """Run what is left of the playbook and write the report, or show what it would cost.

    Of a file with several campaigns these are its stages, in their order: none begins before the one before it is done.
    """
    check_options(options)
    price = parsed_price(options.price_per_hour)
    stages = declared_stages(str(options.study))
    check_chain(stages, options.storage, dry_run=options.dry_run)
    if options.dry_run:
        print_chain_prices(stages, options, price)
        return Exit.FINE
    for place, stage in enumerate(stages):
        left = [one.name for one in stages[place + 1 :]]
        if len(stages) > 1:
            say(f"stage {place + 1} of {len(stages)}: {stage.words}")
        try:
            code = _run_stage(options, stage, left=left)
        except TrialsFailed:
            _say_left(left, "its failed trials are trained")
            raise
        if code is not Exit.FINE:
            break
    if len(stages) > 1:
        print_chain(options.storage, [stage.name for stage in stages])
    return code


def _run_stage(options: RunOptions, stage: Stage, *, left: Sequence[str]) -> Exit:
    """Run what is left of one campaign, write its report, and say what comes next; `left`: the stages after it."""
    tell = (lambda text: None) if options.quiet else say
    seen: list[str] = []

    def watch_and_note(study: Study, finished: int) -> AbstractContextManager[Listener]:
        seen.append(study.name)
        return watch(options.quiet)(study, finished)

    with open_session(options, stage=stage) as session:
        with stop_on_signal() as asked:
            at_work = replace(session, stop=asked.is_set, watch=watch_and_note)
            ending = Playbook(
                at_work, yes=options.yes, tell=tell, expand=options.expand, retry_failed=options.retry_failed
            ).run()
        asked_run = AskedRun(str(options.study), tuple(left), parsed_price(options.price_per_hour))
        return _finish(session, ending, asked_run, trained=bool(seen))


@dataclass(frozen=True, slots=True)
class AskedRun:
    """What `tuner run` was asked for: the study as it was given, the stages after this one, the price of an hour."""

    study: str
    left: tuple[str, ...] = ()
    price: HourlyPrice | None = None


def _say_left(left: Sequence[str], until: str) -> None:
    """Which stages wait for this one, and for what."""
    if left:
        say(f"not begun until {until}: {', '.join(left)}")


def _finish(session: Session, ending: Ending, asked: AskedRun, *, trained: bool) -> Exit:
    """Write the report and print the result; the exit code.

    A question comes before failed trials: until it is answered nothing more is trained.
    """
    page = report_path(session.ledger, session.name)
    if trained or asked.price is not None or not _is_current(session, page):
        write_report(session.ledger, session.name, page, importances, asked.price)
        say(f"wrote {page}")
    _print_bottom_line(session, ending)
    if asked.price is not None:
        say(spent_words(session.ledger, session.name, asked.price))
    code = told_failures(session, ending.rounds)
    stopped = ending.decision is not None or code is not Exit.FINE
    if stopped:
        answered = "its question is answered"
        _say_left(asked.left, answered if ending.decision is not None else "its failed trials are trained")
    if ending.decision is not None:
        _ask(ending.decision, session, asked)
        return Exit.FINDING
    if stopped or not asked.left:
        next_step(f"open {word(page)}", command("best", session.name, after=("--export", "model.safetensors")))
    return code


def _is_current(session: Session, page: Path) -> bool:
    """Whether a page is there, and no trial ended after it: an earlier command may have been stopped before its own."""
    if not page.exists() or session.name not in session.ledger.campaigns():
        return page.exists()
    written, rows = page.stat().st_mtime, session.ledger.studies(session.name)
    since = (one for row in rows for one in session.ledger.progress(row.study_id, written))
    return not any(one.state.finished for one in since)


def _print_bottom_line(session: Session, ending: Ending) -> None:
    try:
        records = load(session.name, session.ledger.url)
        winner, page = records.best(), records.check()
    except StorageError:
        return
    first, *others = bottom_line(winner, on_the_page(ending.findings, page), ended=ending.decision is None)
    show(first, style="bold")
    for line in others:
        show(line)


def _ask(decision: Decision, session: Session, asked: AskedRun) -> None:
    """Print what a person has to decide. A command comes as the next step only where repeating it changes something."""
    say("")
    say(f"question: {decision.text}")
    for finding in decision.findings:
        say(f"  {finding.subject}: {finding.action}")
    if not decision.proposal:
        say("--yes cannot choose this for you.")
        say_lines(decision.lines, session.study_file or session.name, "the same command again")
        next_step(command("plot sweep", session.name))
        return
    say(f"  --yes takes this action: {decision.proposal}")
    if decision.instead:
        say(f"  the alternative, wider ranges first: {decision.instead}")
    next_step(command("run", asked.study, after=("--yes",)))


def bottom_line(winner: Winner, findings: Sequence[Finding], *, ended: bool) -> Iterator[str]:
    """The configuration and what it reaches first, then what the rounds answered, what to do, and what is not known.

    findings: of this run, in its order. ended: whether every round of the study file was trained.
    """
    study, point = winner.row.study, winner.record.point.values_by_name
    values = ", ".join(f"{name} {readable(value)}" for name, value in point)
    yield f"{'Result' if ended else 'So far'}: take {values}, and train {study.trains_in_words}"
    yield f"  {study.objective.metric} {winner.headline.words}"
    yield f"  selected run: trial {winner.record.number} of {study.name}, best at step {winner.step:,}"
    yield from (f"  {words}" for words in winner.stopping_words)
    answers = [finding for finding in findings if _answers_the_round(finding) and finding.strength != "none"]
    yield from (f"  {finding.heading} {finding.verdict}. {finding.summary}" for finding in answers)
    act = needing_action(findings)
    left = (one for one in act if one.action != NOTHING_TO_DO and not _is_taken(one, winner))
    yield from (f"  to do, {finding.heading} {finding.action}" for finding in left)
    doubts = [finding for finding in findings if finding.strength == "none" and not finding.needs_action]
    if doubts:
        yield f"  not known: {', '.join(dict.fromkeys(finding.about for finding in doubts))}"
        yield from (f"    {finding.heading} {finding.action}" for finding in doubts if _is_worth_a_line(finding))
    elif not act:
        yield "  every question that was asked has an answer, and nothing is left to do"


def on_the_page(told: Sequence[Finding], page: Sequence[Finding]) -> list[Finding]:
    """What a run has told, as the page of its last round tells it, and what else that page asks somebody to do.

    page: the findings of the last round, whose advice was made to agree.
    """
    agreed = {(finding.question, finding.subject): finding for finding in page}
    found = [agreed.pop((finding.question, finding.subject), finding) for finding in told]
    return found + needing_action(agreed.values())


def _is_taken(finding: Finding, winner: Winner) -> bool:
    """Whether the rival that is better by fresh seeds is the configuration that the first line says to take."""
    study, _, trial = winner.record.origin.partition(",")[0].partition(" trial ")
    return _answers_the_round(finding) and f"the rival, trial {trial} of {study}:" in finding.action


def _answers_the_round(finding: Finding) -> bool:
    of_winner = finding.question == "transfer" and finding.subject == "winner"
    return of_winner or finding.question in ("isolation", "control")


def _is_worth_a_line(finding: Finding) -> bool:
    """What a person can do about the round's own question; of the others the report tells."""
    return _answers_the_round(finding) and bool(finding.action) and finding.action != NOTHING_TO_DO
