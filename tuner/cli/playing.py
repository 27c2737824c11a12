"""Running the playbook while somebody watches; and what it would cost."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from tuner.cli.bottom_line import bottom_line, on_the_page
from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.launching import print_plan, told_failures
from tuner.cli.output import next_step, readable_seconds, say, show
from tuner.cli.sweeping import say_lines
from tuner.cli.watching import stop_on_signal, watch
from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.execution.backend import Listener
from tuner.reading import load
from tuner.report.page import report_path, write_report
from tuner.rounds.importances import importances
from tuner.rounds.launch import Plan, Session
from tuner.rounds.price import Extremes, priced_campaign
from tuner.rounds.run import Ending, Playbook, Question
from tuner.shown import word


def play(session: Session, *, yes: bool, expand: int, retry_failed: bool, quiet: bool) -> Exit:
    """Run what is left of the playbook, write the report, and return the exit code.

    A question comes before failed trials: until it is answered nothing more is trained.
    """
    tell = (lambda text: None) if quiet else say
    seen: list[str] = []

    def watch_and_note(study: Study, finished: int) -> AbstractContextManager[Listener]:
        seen.append(study.name)
        return watch(quiet)(study, finished)

    with stop_on_signal() as asked:
        at_work = replace(session, stop=asked.is_set, watch=watch_and_note)
        ending = Playbook(at_work, yes=yes, tell=tell, expand=expand, retry_failed=retry_failed).run()
    page = report_path(session.ledger, session.name)
    if seen or not page.exists():  # nothing was trained: the page is the one it would be
        write_report(session.ledger, session.name, page, importances)
        say(f"wrote {page}")
    _print_bottom_line(session, ending)
    code = told_failures(session, ending.rounds)
    if ending.question is not None:
        _ask(ending.question, session)
        return Exit.FINDING
    next_step(f"open {word(page)}", command("best", session.name, after=("--export", "model.safetensors")))
    return code


def print_prices(session: Session) -> None:
    """Trials, steps, time and disk of the whole playbook as it will probably go; and what it costs at worst."""
    lines = list(priced_campaign(session))
    print_plan(*(line for line in lines if not isinstance(line, Extremes)))
    for line in lines:
        if isinstance(line, Extremes):
            say(f"{line.what}, likely: {_price_words(line.likely)} ({line.likely_if})")
            say(f"{line.what}, at worst: {_price_words(line.worst)} ({line.worst_if})")


def _price_words(plans: Sequence[Plan]) -> str:
    steps, seconds = sum(plan.steps for plan in plans), sum(plan.seconds for plan in plans)
    return f"{steps:,} steps, about {readable_seconds(seconds)}"


def _print_bottom_line(session: Session, ending: Ending) -> None:
    try:
        records = load(session.name, session.ledger.url)
        winner, page = records.best(), records.check()
    except StorageError:
        return
    first, *others = bottom_line(winner, on_the_page(ending.findings, page), ended=ending.question is None)
    show(first, style="bold")
    for line in others:
        show(line)


def _ask(question: Question, session: Session) -> None:
    """Print what a person has to decide. A command comes as the next step only where repeating it changes something."""
    say("")
    say(f"question: {question.text}")
    for finding in question.findings:
        say(f"  {finding.subject}: {finding.action}")
    file = session.study_file or session.name
    if not question.proposal:
        say("--yes cannot choose this for you.")
        say_lines(question.lines, file, "the same command again")
        next_step(command("plot sweep", session.name))
        return
    say(f"  --yes would: {question.proposal}")
    if question.instead:
        say(f"  the other way, wider ranges first: {question.instead}")
    next_step(command("run", session.study_file or session.name, after=("--yes",)))
