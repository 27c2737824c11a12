"""A first look at a loop before its study is trained: does it do what was agreed, and what may be relied on?

The loop trains the first few steps of a throw-away trial: once; once more, to see whether the same seeds give the same
curve; and once stopped in the middle and resumed from what it kept. What differs is not promised. Nothing is recorded.
"""

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.delegated.first_steps import FirstSteps
from tuner.delegated.reports import Reports
from tuner.delegated.setup import LoopSetup
from tuner.delegated.trainee import LoopTrainee
from tuner.delegated.trial import LoopTrial
from tuner.design.hyperparameters import Value
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.trial import Trial
from tuner.errors import WorkloadError
from tuner.records import Price, Promises
from tuner.sources.running import watched
from tuner.training.checkpoints import canonical_digest, state_in, write_state_to
from tuner.training.endings import before_training
from tuner.training.engine import Asked, Inspection
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.saving import num_bytes

STEPS = (2, 4)  # [P] the numbers of updates after which a look is evaluated; the last one ends it
_SEEDS = derived_seed("first look", 0), derived_seed("first look", 1)
SLOW_SECONDS = 60.0  # a look that took longer is not taken a second and a third time


def first_look(setup: LoopSetup, trial: Trial) -> FirstSteps:
    """The first look at a point, taken now where it was not yet; the code that runs is seen."""
    place = setup.study.augment, repr(sorted(trial.point.values_by_name))
    if place not in setup.looks.taken:
        setup.looks.taken[place] = look_at(setup, trial)
    return setup.looks.taken[place]


def first_look_at(setup: LoopSetup, point: Mapping[str, Value]) -> FirstSteps:
    """The first look at a point of a study, by a trial that is none of its own."""
    return first_look(setup, _trial_at(setup, point))


def _trial_at(setup: LoopSetup, point: Mapping[str, Value]) -> Trial:
    study = setup.study
    schedule = study.schedule.schedule(study.budget.max_train_steps, study.warmup_steps)
    return Trial(0, Point.of(point), *_SEEDS, schedule, "a first look")


def first_point(setup: LoopSetup) -> dict[str, Value]:
    """The point at which a loop is looked at: the middle of the space."""
    return dict(setup.study.space.values_by(lambda one: one.domain.value_at(0.5)))


class _Trying:
    """A first look: nothing is recorded, and the loop ends after `until` updates."""

    def __init__(self, setup: LoopSetup, trainee: LoopTrainee, folder: Path, until: int) -> None:
        self.trainee, self.folder, self.until = trainee, folder, until
        last = setup.study.budget.max_train_steps
        self.due = tuple(dict.fromkeys(min(step, last) for step in STEPS))
        self.reports = Reports(setup, self.due, trainee.step)
        self.look = FirstSteps()
        self.times = [time.perf_counter()]
        self.over = False

    def reported(self, step: int, values: Mapping[str, Any]) -> None:
        if not self.over:
            measured = self.reports.checked(step, values)
            self.look.curve |= {(step, name): value.hex() for name, value in measured.items()}

    def arrived(self, step: int) -> bool:
        if self.over:
            return True
        self.times.append(time.perf_counter())
        self.reports.refuse_missing(step)
        self.over = step >= min(self.until, self.due[-1]) or bool(self.reports.diverged)
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
        weights = trainee.weights()
        look.weights, look.best_bytes = canonical_digest(weights), num_bytes(weights)
        look.state = _through_a_file(trainee.state())
        look.latest_bytes = num_bytes(look.state)
        look.step_seconds = min(after - before for before, after in zip(self.times[1:], self.times[2:], strict=False))

    def alive(self, reached: int = 0) -> None:
        """Nobody waits for a sign."""


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint would give it back."""
    file = io.BytesIO()
    write_state_to(file, state)
    return state_in(file.getvalue())


def look_at(
    setup: LoopSetup, trial: Trial, *, until: int = STEPS[-1], state: Mapping[str, Any] | None = None
) -> FirstSteps:
    """Let the loop train the first `until` steps of a trial, from a state where one is given. Records nothing.

    Raises WorkloadError where the loop fails, or does not do what was agreed.
    """
    name = type(setup.workload).__name__
    trainee = LoopTrainee(setup, replace(trial, pins=()))
    if state is not None:
        trainee.load(state)
    with tempfile.TemporaryDirectory() as folder, callers_generators_restored(setup.device):
        listener = _Trying(setup, trainee, Path(folder), until)
        handle = LoopTrial(listener, trying=True)
        started = time.perf_counter()
        with before_training(f"{name}.train"), watched(listener.look.seen):
            seed_global_generators(trial.seed, setup.device)
            setup.workload.train(handle)
        if not listener.over:
            raise WorkloadError(listener.reports.returned_early(trainee.step))
    listener.look.seconds = time.perf_counter() - started
    listener.look.read, listener.look.point_read = handle.read, getattr(handle.point, "read", set())
    return listener.look


def inspected(setup: LoopSetup, trials: Sequence[Trial], asked: Asked) -> Inspection:
    """Take the first looks at a study, and note what they show.

    Raises WorkloadError where the loop does not do what was agreed, or trains a sweep with regularization.
    """
    look = first_look_at(setup, first_point(setup))
    if asked.without_randomness:
        _check_switched_off(setup, look)
    if setup.study.augment not in setup.looks.measured:
        setup.looks.measured[setup.study.augment] = measured_promises(setup, look)
    price = Price(1e3 * look.step_seconds, 0.0, look.latest_bytes, look.best_bytes) if asked.price else None
    return Inspection(price=price)


def _check_switched_off(setup: LoopSetup, look: FirstSteps) -> None:
    name = type(setup.workload).__name__
    if "regularization_off" not in look.read:
        raise WorkloadError(
            f"{name}.train never reads trial.regularization_off, and a sweep trains without augmentation and "
            "regularization (A22, A23), because it asks for the steps that fit the training set: "
            "if trial.regularization_off: train without them"
        )
    if not follows_schedule(setup, look):
        raise WorkloadError(
            f"{name}.train never asks for the learning rate of the study, and a sweep trains at constant rates: "
            "set_rate(optimizer, trial.rate(step)) before each update, or trial.scheduler(optimizer)"
        )


def follows_schedule(setup: LoopSetup, look: FirstSteps) -> bool:
    """Whether the loop trains at the rates of the study: as it says itself, or because it asked for them."""
    said = setup.workload.follows_schedule
    return "rate" in look.read if said is None else said


def measured_promises(setup: LoopSetup, look: FirstSteps) -> Promises:
    """The same trial once more, and once stopped in the middle and resumed: what gives the same curve is promised."""
    follows = follows_schedule(setup, look)
    if look.seconds > SLOW_SECONDS:
        return Promises(follows_schedule=follows)
    trial = _trial_at(setup, first_point(setup))
    again = look_at(setup, trial)
    same = _alike(look, again)
    half = look_at(setup, trial, until=STEPS[0])
    resumed = look_at(setup, trial, state=half.state)
    whole = replace_curve(half, resumed)
    return Promises(exact_resume=same and _alike(look, whole), follows_schedule=follows, deterministic=same)


def replace_curve(half: FirstSteps, rest: FirstSteps) -> FirstSteps:
    """What a trial shows that was stopped and resumed."""
    return FirstSteps(curve=half.curve | rest.curve, weights=rest.weights)


def _alike(one: FirstSteps, other: FirstSteps) -> bool:
    return one.curve == other.curve and one.weights == other.weights
