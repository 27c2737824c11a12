"""Inspecting a study before it is trained, by the engine that will train it: what is wrong, and what trials cost."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from tuner.design.micro_batches import check_gang
from tuner.design.own_loop import OwnLoop
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.words import ignored_words
from tuner.errors import NotFusible
from tuner.execution.gang_estimate import estimated_gang
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.fused.fusion import SLOW_STEP, check_some_alike, look_at, trials_that_fit
from tuner.records import Price
from tuner.training.endings import ending, is_out_of_memory
from tuner.training.engine import Asked, Engine, Fusion, Inspection
from tuner.training.setup import TrainingSetup
from tuner.training.sharding import check_shards

_log = logging.getLogger(__name__)


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
    """Have the engine inspect the trials of a study (`Engine.inspect`), once a process.

    room: whether the disk has room for the checkpoints of the trials that train at a time. fusion: see how the trials
    would train together. The other keywords are those of `Asked`.

    Raises WorkloadError naming what is wrong with the workload, InputError for a gang that cannot share the slices of
    the study, Paused where there is no room.
    """
    check_gang(study, loaded.machine.gang)
    engine = loaded.engine_for(study)
    if loaded.machine.shard:
        for trial in {trial.shape_group: trial for trial in trials}.values():
            check_shards(cast(TrainingSetup, engine.setup), trial)
    if isinstance(loaded.workload, OwnLoop) and ("words",) not in loaded.inspected:
        loaded.inspected.add(("words",))
        for sentence in ignored_words(loaded.workload):
            _log.warning("%s", sentence)
    asked = Asked(
        known=loaded.inspected,
        validation_seconds=validation_seconds,
        price=price,
        room_for=_trained_at_a_time(loaded, study) if room else 0,
        without_randomness=without_randomness,
        gang=loaded.machine.gang,
    )
    found = engine.inspect(trials, asked)
    if found.price is not None and engine.promises.fusing:
        found = replace(found, price=_with_more_trials(loaded, engine, trials, found.price))
    return replace(found, fusion=_look_at_fusion(engine, trials)) if fusion else found


def _with_more_trials(loaded: LoadedWorkload, engine: Engine, trials: Sequence[Trial], price: Price) -> Price:
    """The price with what several trials take together, and several processes that train one of them."""
    setup = cast(TrainingSetup, engine.setup)
    together = _together(loaded, engine, trials, price)
    return replace(price, together=together, gang=estimated_gang(setup, trials, price, loaded.machine))


def _together(loaded: LoadedWorkload, engine: Engine, trials: Sequence[Trial], price: Price) -> int:
    """How many trials of the first one's shape fit as one stacked model; 0 where they are not to train together."""
    alike = [trial for trial in trials if trial.shape_group == trials[0].shape_group]
    machine = loaded.machine
    slow = machine.fuse == "auto" and price.step_ms > 1e3 * SLOW_STEP  # which trains them one by one
    if machine.fuse == "off" or machine.gang > 1 or slow or len(alike) < 2:
        return 0
    try:
        check_some_alike(cast(TrainingSetup, engine.setup), alike)
        return trials_that_fit(cast(TrainingSetup, engine.setup), alike, workers=machine.worker_count or 1)
    except Exception as error:
        if isinstance(error, NotFusible) or is_out_of_memory(error):
            return 0
        ending(error)
        return 0


def _look_at_fusion(engine: Engine, trials: Sequence[Trial]) -> Fusion:
    if not engine.promises.fusing:
        return Fusion(1, "the engine of this study trains each trial for itself")
    return look_at(cast(TrainingSetup, engine.setup), trials)


def _trained_at_a_time(loaded: LoadedWorkload, study: Study) -> int:
    machine = loaded.machine
    together = machine.fuse if isinstance(machine.fuse, int) else 1  # of "auto" it is not known yet
    return min(study.num_trials, together * (machine.worker_count or 1))
