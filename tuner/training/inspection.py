"""What torch trials show before they are trained: everything that a workload can have wrong, and what a trial costs.

Nothing here is written, and no trial is trained further than an update of a throw-away copy.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tuner.design.adapters import ALPHAS, RANKS
from tuner.design.names import Name
from tuner.design.other_words import instead_of
from tuner.design.stages import START_FROM
from tuner.design.trial import Trial
from tuner.errors import Infeasible, WorkloadError
from tuner.records import Price
from tuner.system import num_cores
from tuner.training.caption_look import unseen_captions
from tuner.training.data_checks import random_example
from tuner.training.determinism import settle_determinism
from tuner.training.endings import is_out_of_memory
from tuner.training.engine import Asked, Inspection
from tuner.training.finite import check_validation, warn_of_training
from tuner.training.gang_sums import exchange_bytes
from tuner.training.optimizer_speed import told_of_optimizer
from tuner.training.precision import check_precision_here
from tuner.training.preflight import (
    check_model,
    check_room,
    check_switched_off,
    check_workload,
    measured_price,
    precision_speeds,
    warn_of_ignored,
)
from tuner.training.setup import TrainingSetup
from tuner.training.unread import unread

_log = logging.getLogger(__name__)


def inspected(setup: TrainingSetup, trials: Sequence[Trial], asked: Asked) -> Inspection:
    """Try a whole update of the first trial of each optimizer and precision, and whatever else is asked.

    Raises WorkloadError naming what is wrong with the workload, Paused where there is no room.
    """
    first: dict[object, Trial] = {}
    for trial in trials:
        first.setdefault((trial.point.get("optimizer"), setup.precision_of(trial)), trial)
    for trial in first.values():
        check_precision_here(setup.precision_of(trial), setup.device)
    unread_names = [name for trial in first.values() for name in _try_update(setup, trial, asked)]
    _warn_of_captions(setup, trials, asked)
    _try_ranks(setup, trials, asked)
    if asked.without_randomness:
        check_switched_off(setup, trials[0])
    finite = asked.validation_seconds is not None and _all_finite(setup, trials[0], asked, asked.validation_seconds)
    if asked.room_for:
        with suppress(Infeasible):  # a point that the model rejects needs no room
            check_room(setup, trials[0], asked.room_for)
    return Inspection(
        unread=tuple(unread_names),
        finite=finite,
        price=_price(setup, trials, asked.gang) if asked.price else None,
    )


def _price(setup: TrainingSetup, trials: Sequence[Trial], ranks: int) -> Price:
    """What the first trial costs, on each of some ranks, and how fast each declared precision is here."""
    try:
        price = measured_price(setup, trials[0])
    except Exception as error:
        if setup.shard and is_out_of_memory(error):
            raise WorkloadError(
                "a dry run times a step in one process, and the model does not fit into one: there is no price for it "
                "before it is trained in parts"
            ) from error
        raise
    if price.memory is not None and ranks > 1:
        exchange = exchange_bytes(price.memory.gradients)
        memory = price.memory.in_shards(ranks) if setup.shard else replace(price.memory, exchange=exchange)
        price = replace(price, memory=memory)
    return replace(price, precisions=precision_speeds(setup, trials))


def _try_update(setup: TrainingSetup, trial: Trial, asked: Asked) -> list[str]:
    """Try an update, once a study, optimizer and precision: all of its trials train alike.

    Returns hyperparameters unread.
    """
    study = setup.study
    kind = setup.optimizer_of(trial), setup.precision_of(trial), asked.gang
    tried = "update", study.name, study.budget.max_train_steps, *kind
    if tried in asked.known:
        return []
    settle_determinism(setup, trial)
    check_workload(setup, trial, asked.gang)
    asked.known.add(tried)
    _warn_once(setup, trial, asked)
    _tell_of_optimizer(setup, trial, asked)
    if study.kind != "round" or ("unread", study.name) in asked.known:
        return []  # a sweep switches off what it does not need
    asked.known.add(("unread", study.name))
    names = unread(setup, trial)
    for name in names:
        written = instead_of(Name.of(name).short)
        hint = f"write {written}" if written else "misspelt?"
        _log.warning("nothing reads the hyperparameter %s of %s: it changes nothing; %s", name, study.name, hint)
    return names


def _warn_of_captions(setup: TrainingSetup, trials: Sequence[Trial], asked: Asked) -> None:
    """Look once a study, and say once, which changes of captions the models cannot see."""
    looked = "captions", setup.study.name
    if looked not in asked.known:
        asked.known.add(looked)
        for sentence in unseen_captions(setup, trials):
            if ("captions", sentence) not in asked.known:
                asked.known.add(("captions", sentence))
                _log.warning("%s", sentence)


def _try_ranks(setup: TrainingSetup, trials: Sequence[Trial], asked: Asked) -> None:
    """Build the model of one trial of each rank, and of each candidate that it starts from. Raises WorkloadError.

    A rank can be too large for a layer (C17), a candidate can have other shapes, and an alpha of 0 is refused.
    """
    for trial in trials:
        values = [(Name.of(name).short, value) for name, value in trial.point.items()]
        tried = [
            one for one in values if one[0] in (*RANKS, START_FROM) or (one[0] in ALPHAS and not _is_above_zero(one[1]))
        ]
        if tried and ("ranks", setup.study.name, *tried) not in asked.known:
            asked.known.add(("ranks", setup.study.name, *tried))
            check_model(setup, trial)


def _is_above_zero(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def _warn_once(setup: TrainingSetup, trial: Trial, asked: Asked) -> None:
    """What is worth knowing about a workload before anything is trained, once a process."""
    if ("warnings",) in asked.known:
        return
    asked.known.add(("warnings",))
    warn_of_training(setup, trial)
    warn_of_ignored(setup, trial)
    _warn_of_loading(setup)
    if random_example(setup.data.validation) is not None:
        _log.warning(
            "the validation split draws random numbers: each of its examples is drawn once for all, and is "
            "the same at every evaluation"
        )


def _tell_of_optimizer(setup: TrainingSetup, trial: Trial, asked: Asked) -> None:
    """Say once of each optimizer what is worth knowing, and where its step takes long here, with the measured time."""
    looked = "told", setup.optimizer_of(trial)
    if looked not in asked.known:
        asked.known.add(looked)
        for sentence in told_of_optimizer(setup, trial):
            _log.warning("%s", sentence)


def _warn_of_loading(setup: TrainingSetup) -> None:
    """Say where more loading processes were asked for than there are cores: a number that was given is kept."""
    asked, trainers, cores = setup.workload.data_workers, setup.trainers, num_cores()
    if asked == "auto" or asked * trainers <= cores:
        return
    beside = f" for each of {trainers} processes that train, {asked * trainers} in all," if trainers > 1 else ""
    _log.warning(
        'data_workers = %d starts %d loading processes%s on %d cores; that pays where a dataset waits (for a disk, for '
        'a network) and not where it computes: data_workers = "auto" takes no more than there are cores for',
        asked, asked, beside, cores,
    )  # fmt: skip


def _all_finite(setup: TrainingSetup, trial: Trial, asked: Asked, most_seconds: float) -> bool:
    """Whether each validation example has a finite selection metric; raises WorkloadError where one has none.

    False where looking at all of them would take more than `most_seconds`.
    """
    looked = "validation", setup.study.objective.metric
    if looked in asked.known:
        return True
    try:
        finite = check_validation(setup, trial, most_seconds)
    except Exception as error:
        if isinstance(error, Infeasible) or is_out_of_memory(error):
            return False  # of this point alone: its trial will report it
        raise
    if finite:
        asked.known.add(looked)
    return finite
