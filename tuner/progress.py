"""Progress of a study in training: bars on a terminal and in a notebook, lines of text anywhere else."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tuner.design.study import Study
from tuner.execution.backend import Listener
from tuner.records import STOPPED_EARLY, Claim, State, TrialUpdate
from tuner.shown import readable_seconds, shown

Tell = Callable[[str], None]  # shows one line of text
ROOMY = 100  # columns of a terminal that has room for the time that has passed
MOST_BARS = 8  # of single trials
SILENT_SECONDS = 60.0  # after these, a line tells how far the trials are


class Lines:
    """One line for each finished trial, with the time since the study began here.

    Where no trial ends for a minute, a line tells how far the trials are and how long the rest may take.
    """

    def __init__(self, study: Study, finished: int, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self.study = study
        self.finished = finished
        self.tell = tell
        self.clock = clock
        self.began = self.told = clock()
        self.reached: dict[int, int] = {}  # last step of each trial in training
        self.steps = 0  # trained since the study began here

    def trial_started(self, claim: Claim) -> None:
        self.reached[claim.trial_id] = claim.first_step

    def trial_stepped(self, claim: Claim, step: int) -> None:
        self.steps += step - self.reached.get(claim.trial_id, step)
        self.reached[claim.trial_id] = step
        if self.clock() - self.told >= SILENT_SECONDS:
            self._tell(f"{self._place()}  {self._progress()}")

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        self.reached.pop(claim.trial_id, None)
        if update.state is State.RUNNING:
            if update.reason:
                self._tell(f"{self.study.name}  trial {claim.trial.number} {update.reason}; it will be tried again")
            return
        self.finished += 1
        passed = readable_seconds(self.clock() - self.began)
        self._tell(f"{self._place()}  {described(self.study, claim, update)}, after {passed}")

    def _tell(self, line: str) -> None:
        self.told = self.clock()
        self.tell(line)

    def _place(self) -> str:
        return f"{self.study.name} {self.finished}/{self.study.num_trials}"

    def _progress(self) -> str:
        """How far the trials in training are, how fast, and the time for all that are left at that rate."""
        length = self.study.budget.max_train_steps
        low, high = min(self.reached.values()), max(self.reached.values())
        between = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        rate = self.steps / (self.clock() - self.began)
        left = (self.study.num_trials - self.finished) * length - sum(self.reached.values())
        time_left = f", about {readable_seconds(left / rate)} left" if rate else ""
        return f"{len(self.reached)} in training at step {between} of {length:,}; {rate:,.0f} steps/s{time_left}"


class Bars:
    """A bar for the study and one for each trial in training, with steps per second and the time left.

    Where many trials train together, only the first few have a bar. `line`: how a line of text is made safe to show.
    """

    def __init__(self, study: Study, finished: int, progress: Progress, line: Callable[[str], str] = shown) -> None:
        self.study = study
        self.progress = progress
        self.line = line
        self.steps = study.budget.max_train_steps
        self.finished = finished
        self.best = math.nan  # of the trials that ended here
        self.whole = progress.add_task(
            shown(study.name), total=study.num_trials * self.steps, completed=finished * self.steps, note=self._note()
        )
        self.trials: dict[int, tuple[TaskID, float, int]] = {}  # by trial id: bar, start time, first step
        self.reached: dict[int, int] = {}

    def trial_started(self, claim: Claim) -> None:
        self._forget(claim)
        first = claim.first_step
        has_room = len(self.trials) < MOST_BARS
        rate = claim.trial.point.number("learning_rate")
        bar = self.progress.add_task(
            f"  trial {claim.trial.number} lr {rate:.3g}",
            total=self.steps,
            completed=first,
            note="",
            visible=has_room,
        )
        self.trials[claim.trial_id] = (bar, time.monotonic(), first)

    def trial_stepped(self, claim: Claim, step: int) -> None:
        if claim.trial_id not in self.trials:
            return
        bar, since, first = self.trials[claim.trial_id]
        rate = (step - first) / max(time.monotonic() - since, 1e-9)
        self.progress.update(bar, completed=step, note=f"{step:,}/{self.steps:,} steps, {rate:,.0f}/s")
        self.reached[claim.trial_id] = step
        self.progress.update(self.whole, completed=self.finished * self.steps + sum(self.reached.values()))

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        self._forget(claim)
        if update.state is State.RUNNING:
            return
        self.finished += 1
        for checkpoint in update.checkpoints or ():
            value = math.nan if checkpoint.value is None else checkpoint.value
            if checkpoint.kind == "best" and self.study.objective.better(value, self.best):
                self.best = value
        done = self.finished * self.steps + sum(self.reached.values())
        self.progress.update(self.whole, completed=done, note=self._note())
        if update.state is not State.COMPLETE or update.reason:
            self.progress.console.print(self.line(f"  {described(self.study, claim, update)}"), markup=False)

    def _note(self) -> str:
        best = "" if math.isnan(self.best) else f", best {self.best:.4g}"
        return f"{self.finished}/{self.study.num_trials} trials{best}"

    def _forget(self, claim: Claim) -> None:
        if claim.trial_id in self.trials:
            self.progress.remove_task(self.trials.pop(claim.trial_id)[0])
        self.reached.pop(claim.trial_id, None)


def described(study: Study, claim: Claim, update: TrialUpdate) -> str:
    """A finished trial in a line."""
    name = f"trial {claim.trial.number}: {update.state}"
    if update.state is not State.COMPLETE:
        return f"{name} ({update.reason.splitlines()[0] if update.reason else ''})"
    best = [checkpoint for checkpoint in update.checkpoints or () if checkpoint.kind == "best"]
    if not best:
        return f"{name}, no finite {study.objective.metric}"
    stopped = f", {STOPPED_EARLY} at step {update.step:,}" if update.reason.startswith(STOPPED_EARLY) else ""
    return f"{name}, best {study.objective.metric} {best[0].value:.4g} at step {best[0].step:,}{stopped}"


@contextmanager
def bars(study: Study, finished: int, console: Console, line: Callable[[str], str] = shown) -> Iterator[Listener]:
    """A listener that draws bars on a console while a study trains. `finished`: trials that need no training."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False), BarColumn(12), TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}", markup=False),
    ]  # fmt: skip
    if console.width >= ROOMY:
        columns += [TimeElapsedColumn(), TextColumn("passed,")]
    columns += [TimeRemainingColumn(), TextColumn("left")]
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(study, finished, progress, line)
