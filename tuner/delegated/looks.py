"""A first look at a loop before its study is trained: it trains the first few steps of a throw-away trial.

Nothing is recorded. The trial has a budget and a schedule of its own, so that the same loop shows the same in every
study. What several looks show together is judged in `tuner.delegated.promised`.
"""

import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.budget.families import constant, constant_then_decay
from tuner.budget.step_budget import StepBudget
from tuner.delegated.files import own_folder
from tuner.delegated.first_steps import FirstSteps
from tuner.delegated.reports import ALL_STEPS, Reports
from tuner.delegated.setup import LoopSetup
from tuner.delegated.trainee import LoopTrainee
from tuner.delegated.trial import STARTED, LoopTrial
from tuner.design.hyperparameters import Value
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.seeds import derived_seed
from tuner.design.trial import Trial
from tuner.errors import Infeasible, WorkloadError
from tuner.sources.running import watched
from tuner.training.checkpoints import canonical_digest, state_in, write_state_to
from tuner.training.endings import before_training, first_line, is_out_of_memory
from tuner.training.first_loss import left_as_it_was
from tuner.training.frozen import left_out_bytes
from tuner.training.randomness import callers_generators_restored
from tuner.training.saving import num_bytes

_log = logging.getLogger(__name__)
LENGTH = 1000  # steps of the throw-away trial, of which a look trains the first
CALLS_AFTER_END = 100  # a loop that asks its trial so often after its end will not stop by itself
CALLS_OF_STEP = 100_000  # nor one that asks so often and never says that an update is made
MOST_POINTS = 8  # at which a loop is tried, where it rejects them
_SEEDS = derived_seed("first look", 0), derived_seed("first look", 1)
OTHER_SEEDS = derived_seed("first look", 2), derived_seed("first look", 3)


class LookIsOver(BaseException):
    """Ends a loop that goes on after its trial; no error that the loop itself would catch."""


class _Asked(set[str]):
    """What a loop asked its trial for; tells of each time."""

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__()
        self._heard = heard

    def add(self, name: str) -> None:
        super().add(name)
        self._heard()


class _Trying:
    """A first look: nothing is recorded, and the loop ends after `until` updates, evaluated after those `due`."""

    def __init__(self, setup: LoopSetup, trainee: LoopTrainee, folder: Path, due: tuple[int, ...], until: int) -> None:
        self.trainee, self.folder, self.until, self.due = trainee, folder, until, due
        self.reports = Reports(setup, due, trainee.step)
        self.look = FirstSteps()
        self.over = False
        self._calls = 0

    def heard(self) -> None:
        """Count what is asked after the end, or without an end of the update. Raises LookIsOver."""
        self._calls += 1
        if self._calls > (CALLS_AFTER_END if self.over else CALLS_OF_STEP):
            raise LookIsOver

    def reported(self, step: int, values: Mapping[str, Any]) -> None:
        self.heard()
        if not step and not self.look.times:
            raise WorkloadError(_never_says(self.reports.name))
        if not self.over:
            measured = self.reports.checked(step, values)
            self.look.curve |= {(step, name): value.hex() for name, value in measured.items()}

    def arrived(self, step: int) -> bool:
        self.heard()
        if self.over:
            return True
        self._calls = 0
        self.look.times.append((step, time.perf_counter()))
        self.reports.refuse_missing(step)
        self.over = step >= self.until or bool(self.reports.diverged)
        if self.over:
            self._end()
        return self.over

    def _end(self) -> None:
        trainee, look = self.trainee, self.look
        if not trainee.kept.objects and trainee.files.save is None:
            raise WorkloadError(
                f"{self.reports.name}.train keeps nothing, so no trial could be resumed and no weights would be left "
                "of it: trial.keep(model=model, optimizer=optimizer) before the first step"
            )
        # Files hold times and names of folders besides weights: only the curve says whether they are the same.
        of_modules = trainee.kept.weights()
        look.weights = canonical_digest(of_modules) if of_modules else ""
        frozen = left_out_bytes(trainee.frozen())
        look.best_bytes = num_bytes(of_modules or trainee.weights()) - frozen
        look.state = _through_a_file(trainee.state())
        look.latest_bytes = num_bytes(look.state) - frozen

    def alive(self, reached: int = 0) -> None:
        self.heard()


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint would give it back."""
    file = io.BytesIO()
    write_state_to(file, state)
    return state_in(file.getvalue())


@contextmanager
def left_alone(setup: LoopSetup) -> Iterator[None]:
    """Leave the global generators, the working directory and the attributes of the workload as they were found."""
    folder = os.getcwd()
    with callers_generators_restored(setup.device), left_as_it_was(setup.workload):
        try:
            yield
        finally:
            os.chdir(folder)


def _look_setup(setup: LoopSetup, length: int) -> LoopSetup:
    """The setup of a throw-away trial of so many steps, whatever the length of the study."""
    return replace(setup, study=replace(setup.study, budget=StepBudget(length, 1)), stop=lambda: False)


def trial_at(
    point: Mapping[str, Value], number: int = 0, length: int = LENGTH, seeds: tuple[int, int] = _SEEDS
) -> Trial:
    """A trial that is none of the study's: at a constant rate; a longer one at another rate in the end."""
    family = constant() if length == LENGTH else constant_then_decay()
    return Trial(number, Point.of(point), *seeds, family.schedule(length, 0), "a first look")


def look_at(
    setup: LoopSetup,
    trial: Trial,
    *,
    due: tuple[int, ...] = (),
    until: int | None = None,
    state: Mapping[str, Any] | None = None,
    watch: bool = False,
) -> FirstSteps:
    """Let the loop train the first `until` steps of a trial, from a state where one is given. Records nothing.

    due: updates after which it is evaluated, by default those of `Looks`.

    Raises WorkloadError where the loop fails, or does not do what was agreed; Infeasible where it rejects the point.
    """
    setup, due = _look_setup(setup, len(trial.schedule)), due or setup.looks.steps
    trainee = LoopTrainee(setup, trial)
    if state is not None:
        trainee.load(state)
    with own_folder() as folder:
        listener = _Trying(setup, trainee, folder, due, due[-1] if until is None else until)
        handle = LoopTrial(listener, trying=True)
        handle.read = _Asked(listener.heard)
        started = time.perf_counter()
        if watch:
            with watched(listener.look.seen):
                _train(setup, trial, handle, listener)
        else:
            _train(setup, trial, handle, listener)
    if setup.inherited is not None and state is None and STARTED not in handle.read:
        raise WorkloadError(_never_starts(setup))
    look = listener.look
    look.seconds = time.perf_counter() - started
    look.read, look.point_read = set(handle.read), set(getattr(handle.point, "read", ()))
    return look


def _train(setup: LoopSetup, trial: Trial, handle: LoopTrial, listener: _Trying) -> None:
    name = type(setup.workload).__name__
    try:
        with before_training(f"{name}.train"):
            handle.train_with(setup)
    except LookIsOver:
        if listener.over:
            raise WorkloadError(
                f"{name}.train goes on after its trial has ended: leave the loop where trial.steps() ends, or where "
                "trial.stepped(updates) is true"
            ) from None
        raise WorkloadError(_never_says(name)) from None
    if not listener.over:
        raise WorkloadError(
            f"{name}.train returned after {listener.trainee.step} updates of a first look, before it was told to "
            f"end; a trial {ALL_STEPS}"
        )


def _never_says(name: str) -> str:
    return (
        f"{name}.train never says how many updates it has made, so it could not be stopped, saved or resumed: "
        "for step in trial.steps(), or trial.stepped(updates) after each update"
    )


def _never_starts(setup: LoopSetup) -> str:
    name = type(setup.workload).__name__
    told = "" if setup.inherited is None else setup.inherited.words
    return (
        f"the campaign {told}, and {name}.train never takes these weights, so that it would train from its own: "
        "trial.carry_into(model) before trial.keep(model=model, ...), or trial.start_weights, or trial.start_file"
    )


def first_point(setup: LoopSetup) -> Mapping[str, Value]:
    """The point at which a loop is looked at: where it was before, else the middle of the space."""
    found = setup.looks.points.get(setup.study.augment)
    return found or setup.study.space.values_by(lambda one: one.domain.value_at(0.5))


def first_look(setup: LoopSetup, point: Mapping[str, Value]) -> FirstSteps:
    """The first look at a point, taken now where it was not yet; the code that runs is seen."""
    start = "" if setup.inherited is None else setup.inherited.identity
    place = setup.study.augment, f"{sorted(point.items())!r}{start}"
    if place not in setup.looks.taken:
        setup.looks.taken[place] = look_at(setup, trial_at(point), watch=True)
    return setup.looks.taken[place]


def first_feasible(setup: LoopSetup) -> FirstSteps | None:
    """The first look at the middle of the space, or at the first of some points that the loop does not reject.

    None where it rejects all of them (at most `MOST_POINTS` are tried), which its trials will report.
    """
    rejected = ""
    others = quasi_random_points(setup.study.space, seed=0, start=0, count=MOST_POINTS - 1)
    for point in (first_point(setup), *(dict(one.values_by_name) for one in others)):
        try:
            look = first_look(setup, point)
        except Infeasible as error:
            rejected = str(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            rejected = first_line(error) or type(error).__name__
        else:
            setup.looks.points[setup.study.augment] = dict(point)
            return look
    setup.looks.rejected = rejected
    _log.warning("the loop rejects each point at which it was tried, so nothing is known of it: %s", rejected)
    return None


def look_for_identity(
    setup: LoopSetup, points: Sequence[Mapping[str, Value]]
) -> tuple[Mapping[str, Value], FirstSteps] | None:
    """A point and what the loop shows there, to tell whether it is the loop that it was; None where it rejects all.

    points: where it was looked at when the study started; none at the first time.
    """
    with left_alone(setup):
        if not points:
            look = first_feasible(setup)
            return None if look is None else (first_point(setup), look)
        try:
            return points[0], first_look(setup, points[0])
        except Infeasible:  # now; its code is another one, then
            return None
