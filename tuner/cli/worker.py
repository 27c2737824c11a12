"""`tuner worker`: trains what others launch, round after round, and may start before them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tuner.cli.exit_codes import Exit
from tuner.cli.launch import told_failures
from tuner.cli.output import say
from tuner.cli.sessions import check_options, open_session
from tuner.cli.training_options import WorkerOptions
from tuner.cli.watching import stop_on_signal, watch
from tuner.design.stages import Stage
from tuner.design.study_file import declared_stages
from tuner.errors import InputError, Paused, StudyChanged
from tuner.rounds.launch import Session, work_on
from tuner.rounds.serving import AskedLaunch, Serving
from tuner.storage.engine import default_url
from tuner.storage.reading import StudyLeft
from tuner.storage.store import open_ledger


def worker(options: WorkerOptions) -> Exit:
    """Train what others launch, while somebody watches; the exit code.

    Of a file with several campaigns these are its stages, as of `tuner run`.
    """
    # In a process of its own, so that its lease is renewed whatever the training does.
    options = options if options.engine else replace(options, workers=options.workers or "1")
    _check(options)
    stages = _launched_stages(options)
    tell = (lambda text: None) if options.quiet else say
    with stop_on_signal() as asked:
        serving = Serving(stages, options.until.value, options.idle_timeout, asked.is_set, tell)
        stage = _first_stage(options, stages)
        while True:
            with open_session(options, create=False, stage=stage) as session:
                found = _serve(replace(session, stop=asked.is_set, watch=watch(options.quiet)), serving)
                if isinstance(found, str):
                    return _ended(session, stages, found)
            stage = next(one for one in stages if one.name == found.campaign)


def _check(options: WorkerOptions) -> None:
    """Raise InputError for an option with a wrong value, before a study file is run."""
    check_options(options)
    for name, seconds in (("--idle-timeout", options.idle_timeout), ("--wait-for-launch", options.wait_for_launch)):
        if math.isnan(seconds) or seconds < 0.0:
            raise InputError(f"{name} is a number of seconds, 0 or more (inf: for ever), got {seconds:g}")


def _launched_stages(options: WorkerOptions) -> list[Stage]:
    """The stages to serve, at least one of which was launched. Raises what `AskedLaunch.wait` raises."""
    stages = declared_stages(str(options.study))
    asked = AskedLaunch(str(options.study), tuple(stage.name for stage in stages), options.storage)
    waited = asked.wait(options.wait_for_launch, say)
    return declared_stages(str(options.study)) if waited else stages  # the file may have been edited meanwhile


def _first_stage(options: WorkerOptions, stages: Sequence[Stage]) -> Stage:
    """The stage whose session is opened first, so that what is wrong is said at once: the one that was begun last."""
    with open_ledger(options.storage or default_url(), create=False) as ledger:
        left = ledger.studies_left([stage.name for stage in stages])
    chosen = next((one for one in left if one.free), left[-1])
    return next(stage for stage in stages if stage.name == chosen.campaign)


def _serve(session: Session, serving: Serving) -> StudyLeft | str:
    """Train studies of one stage; returns the first study of another one, or why nothing more is to be done."""
    while True:
        found = serving.next_study(session.ledger)
        if isinstance(found, str) or found.campaign != session.name:
            return found
        counts = session.ledger.state_counts(found.study_id)
        finished = sum(count for state, count in counts.items() if state.finished)
        try:
            work_on(session, session.ledger.study(session.name, found.name), finished)
        except StudyChanged as error:
            _refuse_what_was_read(session, error)
            raise


def _refuse_what_was_read(session: Session, error: StudyChanged) -> None:
    """Raise Paused where a worker that reads the code again may go on: it was edited while this one waited."""
    label = session.loaded.identifier.changed_file()
    if label:
        raise Paused(
            f"{label} was edited after this worker had read it, and {session.called} is trained by other code now: "
            "start the same command again, which reads it again"
        ) from error


def _ended(session: Session, stages: Sequence[Stage], why: str) -> Exit:
    """Say why this worker ends, and which trials FAILED; the exit code."""
    say(f"{', '.join(stage.name for stage in stages)}: {why}")
    there = session.ledger.campaigns()
    rows = [row for one in stages if one.name in there for row in session.ledger.studies(one.name)]
    return told_failures(session, rows, again="the command that launched them")
