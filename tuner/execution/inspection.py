"""Inspecting a study before it is trained: everything that a workload can have wrong, and what its trials will cost.

Nothing here is written, and no trial is trained further than an update of a throw-away copy.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import Infeasible
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.fused.fusion import look_at
from tuner.records import Price
from tuner.training.determinism import settle_determinism
from tuner.training.endings import is_out_of_memory
from tuner.training.engine import Fusion
from tuner.training.finite import check_validation, warn_of_training
from tuner.training.preflight import check_room, check_switched_off, check_workload, measured_price, warn_of_ignored
from tuner.training.random_examples import random_example
from tuner.training.setup import TrainingSetup
from tuner.training.unread import unread

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found out about the trials of a study.

    unread: hyperparameters that nothing reads, where they were looked for just now (once a study and process).
    finite: every validation example was seen to have a finite selection metric.
    price: of one trial, with the bytes of its checkpoints; None where it was not asked for.
    fusion: how the trials would train together, or why they cannot; None where it was not asked for.
    """

    unread: tuple[str, ...] = ()
    finite: bool = False
    price: Price | None = None
    fusion: Fusion | None = None


def inspect(  # noqa: PLR0913 - keywords with defaults
    loaded: LoadedWorkload,
    study: Study,
    trials: Sequence[Trial],
    *,
    validation_seconds: float | None = math.inf,
    price: bool = False,
    room: bool = False,
    fusion: bool = False,
    without_randomness: bool = False,
) -> Inspection:
    """Try a whole update of the first trial of each optimizer, once a process, and whatever else is asked for.

    validation_seconds: look at each validation example where that takes no longer; None: do not look.
    price: measure milliseconds of a step and of an evaluation. room: raise Paused where the disk has no room for a few
    checkpoints. fusion: see how the trials would train together. without_randomness: raise WorkloadError where the
    first trial is regularized or augmented (D2), as a sweep must not be.

    Raises WorkloadError naming what is wrong with the workload.
    """
    setup = loaded.setup(study)
    first: dict[object, Trial] = {}
    for trial in trials:
        first.setdefault(trial.point.get("optimizer"), trial)
    unread_names = [name for trial in first.values() for name in _try_update(loaded, setup, trial)]
    if without_randomness:
        check_switched_off(setup, trials[0])
    finite = validation_seconds is not None and _all_finite(loaded, setup, trials[0], validation_seconds)
    if room:
        _check_room(loaded, setup, trials[0])
    return Inspection(
        unread=tuple(unread_names),
        finite=finite,
        price=measured_price(setup, trials[0]) if price else None,
        fusion=look_at(setup, trials) if fusion else None,
    )


def _try_update(loaded: LoadedWorkload, setup: TrainingSetup, trial: Trial) -> list[str]:
    """Try an update, once a study and optimizer: all of its trials train alike. Returns hyperparameters unread."""
    study = setup.study
    tried = "update", study.name, study.budget.max_train_steps, setup.optimizer_of(trial)
    if tried in loaded.inspected:
        return []
    settle_determinism(setup, trial)
    check_workload(setup, trial)
    loaded.inspected.add(tried)
    _warn_once(loaded, setup, trial)
    if study.kind != "round" or ("unread", study.name) in loaded.inspected:
        return []  # a sweep switches off what it does not need
    loaded.inspected.add(("unread", study.name))
    names = unread(setup, trial)
    for name in names:
        _log.warning("nothing reads the hyperparameter %s of %s: it changes nothing; misspelt?", name, study.name)
    return names


def _warn_once(loaded: LoadedWorkload, setup: TrainingSetup, trial: Trial) -> None:
    """What is worth knowing about a workload before anything is trained, once a process."""
    if ("warnings",) in loaded.inspected:
        return
    loaded.inspected.add(("warnings",))
    warn_of_training(setup, trial)
    warn_of_ignored(setup, trial)
    if random_example(setup.data.validation) is not None:
        _log.warning(
            "the validation split draws random numbers: each of its examples is drawn once for all, and is "
            "the same at every evaluation"
        )


def _all_finite(loaded: LoadedWorkload, setup: TrainingSetup, trial: Trial, most_seconds: float) -> bool:
    """Whether each validation example has a finite selection metric; raises WorkloadError where one has none.

    False where looking at all of them would take more than `most_seconds`.
    """
    looked = "validation", setup.study.objective.metric
    if looked in loaded.inspected:
        return True
    try:
        finite = check_validation(setup, trial, most_seconds)
    except Exception as error:
        if isinstance(error, Infeasible) or is_out_of_memory(error):
            return False  # of this point alone: its trial will report it
        raise
    if finite:
        loaded.inspected.add(looked)
    return finite


def _check_room(loaded: LoadedWorkload, setup: TrainingSetup, trial: Trial) -> None:
    """Raise Paused where the disk has no room for a few checkpoints of each trial that trains at a time."""
    machine = loaded.machine
    together = machine.fuse if isinstance(machine.fuse, int) else 1  # of "auto" it is not known yet
    at_once = min(setup.study.num_trials, together * (machine.worker_count or 1))
    with suppress(Infeasible):  # a point that the model rejects needs no room
        check_room(setup, trial, at_once)
