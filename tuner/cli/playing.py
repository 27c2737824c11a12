"""Running the playbook while somebody watches; and what it would cost."""

from contextlib import AbstractContextManager
from dataclasses import replace

from tuner.cli.exit_codes import Exit
from tuner.cli.given import command
from tuner.cli.launching import print_plan, told_failures
from tuner.cli.output import next_step, say, show
from tuner.cli.places import report_path
from tuner.cli.watching import stop_on_signal, watch
from tuner.design.study import Study
from tuner.errors import StorageError
from tuner.execution.backend import Listener
from tuner.reading import load
from tuner.report.page import write_report
from tuner.rounds.importances import importances
from tuner.rounds.launch import Desk, Plan
from tuner.rounds.price import priced_campaign
from tuner.rounds.run import Playbook, Question
from tuner.shown import word


def play(desk: Desk, *, yes: bool, expand: int, retry_failed: bool, quiet: bool) -> Exit:
    """Run what is left of the playbook, write the report, and return the exit code.

    A question comes before failed trials: until it is answered nothing more is trained.
    """
    tell = (lambda text: None) if quiet else say
    seen: list[str] = []

    def watch_and_note(study: Study, finished: int) -> AbstractContextManager[Listener]:
        seen.append(study.name)
        return watch(quiet)(study, finished)

    with stop_on_signal() as asked:
        at_work = replace(desk, stop=asked.is_set, watch=watch_and_note)
        ending = Playbook(at_work, yes=yes, tell=tell, expand=expand, retry_failed=retry_failed).run()
    page = report_path(desk.ledger, desk.name)
    if seen or not page.exists():  # nothing was trained: the page is the one it would be
        write_report(desk.ledger, desk.name, page, importances)
        say(f"wrote {page}")
    _print_winner(desk)
    code = told_failures(desk, ending.rounds)
    if ending.question is not None:
        _ask(ending.question, desk)
        return Exit.FINDING
    next_step(f"open {word(page)}", command("best", desk.name, after=("--export", "model.safetensors")))
    return code


def print_prices(desk: Desk) -> None:
    """Trials, steps, time and disk of the whole playbook, from its cheapest to its dearest course."""
    plans: list[Plan] = []
    for line in priced_campaign(desk):
        if isinstance(line, str):
            say(line)
        else:
            plans.append(line)
    print_plan(*plans)


def _print_winner(desk: Desk) -> None:
    try:
        winner = load(desk.name, desk.ledger.url).best()
    except StorageError:
        return
    study = winner.row.study
    show(f"the best of {study.name}: trial {winner.record.number}", style="bold")
    show(f"  {study.objective.metric} {winner.value:.4g} at step {winner.step} of {study.budget.max_train_steps}")
    point = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in winner.record.point.values_by_name
    )
    show(f"  {point}")


def _ask(question: Question, desk: Desk) -> None:
    say("")
    say(f"question: {question.text}")
    for finding in question.findings:
        say(f"  {finding.subject}: {finding.action}")
    say(f"  --yes would: {question.proposal}")
    if question.instead:
        say(f"  the other way, wider ranges first: {question.instead}")
    next_step(command("run", desk.study_file or desk.name, after=("--yes",)))
