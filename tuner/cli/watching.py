"""Progress of a launch: bars on a terminal, one line per finished trial anywhere else; and Ctrl-C."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tuner.cli.output import console, readable_seconds, say
from tuner.design.study import Study
from tuner.execution.backend import Listener, Silent, Watch
from tuner.records import Claim, Measurement, State, TrialUpdate


class Lines:
    """One line per finished trial."""

    def __init__(self, study: Study, finished: int) -> None:
        self.study = study
        self.finished = finished
        self.started = time.monotonic()
        self.best: dict[int, list[Measurement]] = {}

    def trial_started(self, claim: Claim) -> None:
        self.started = time.monotonic()

    def trial_stepped(self, claim: Claim, step: int) -> None:
        """Lines do not move."""

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        if update.state is State.RUNNING:
            return
        self.finished += 1
        seconds = readable_seconds(time.monotonic() - self.started)
        place = f"{self.study.name} {self.finished}/{self.study.num_trials}"
        say(f"{place}  {described(self.study, claim, update)}  {seconds}")


class Bars:
    """A bar for the study and one for the trial, with steps per second and the time left."""

    def __init__(self, study: Study, finished: int, progress: Progress) -> None:
        self.study = study
        self.progress = progress
        self.steps = study.budget.max_train_steps
        self.whole = progress.add_task(study.name, total=study.num_trials * self.steps, completed=finished * self.steps,
                                       note=f"{finished}/{study.num_trials} trials")  # fmt: skip
        self.finished = finished
        self.trial: TaskID | None = None
        self.began = (time.monotonic(), 0)

    def trial_started(self, claim: Claim) -> None:
        if self.trial is not None:
            self.progress.remove_task(self.trial)
        first = max((checkpoint.step for checkpoint in claim.checkpoints if checkpoint.kind == "latest"), default=0)
        self.trial = self.progress.add_task(f"  trial {claim.trial.number}", total=self.steps, completed=first, note="")
        self.began = (time.monotonic(), first)

    def trial_stepped(self, claim: Claim, step: int) -> None:
        if self.trial is None:
            return
        since, first = self.began
        rate = (step - first) / max(time.monotonic() - since, 1e-9)
        self.progress.update(self.trial, completed=step, note=f"{rate:,.0f} steps/s")
        self.progress.update(self.whole, completed=self.finished * self.steps + step)

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        if update.state is State.RUNNING:
            return
        self.finished += 1
        note = f"{self.finished}/{self.study.num_trials} trials"
        self.progress.update(self.whole, completed=self.finished * self.steps, note=note)
        if update.state is not State.COMPLETE:
            self.progress.console.print(f"  {described(self.study, claim, update)}", markup=False)


def described(study: Study, claim: Claim, update: TrialUpdate) -> str:
    """A finished trial in a line."""
    name = f"trial {claim.trial.number}: {update.state}"
    if update.state is not State.COMPLETE:
        return f"{name} ({update.reason.splitlines()[0] if update.reason else ''})"
    best = [checkpoint for checkpoint in update.checkpoints or () if checkpoint.kind == "best"]
    if not best:
        return f"{name}, no finite {study.objective.metric}"
    return f"{name}, best {study.objective.metric} {best[0].value:.4g} at step {best[0].step}"


def watch(quiet: bool) -> Watch:
    """What makes a listener for each study that is launched, suited to where the output goes."""
    if quiet:
        return lambda study, finished: nullcontext(Silent())
    if not sys.stderr.isatty():
        return lambda study, finished: nullcontext(Lines(study, finished))
    return _bars


@contextmanager
def _bars(study: Study, finished: int) -> Iterator[Listener]:
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[note]}", markup=False),
        MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield Bars(study, finished, progress)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM asks trials to stop at their next step and save; the second one ends at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say("stopping: saving where we are (once more ends at once)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
