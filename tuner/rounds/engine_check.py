"""A check of a training without a study: what it promises, and what is wrong with it (`tuner.testing.check_engine`)."""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tuner.design.campaign import Campaign
from tuner.design.hyperparameters import Value, log_uniform
from tuner.design.points import Point
from tuner.design.round import Round
from tuner.design.space import SearchSpace
from tuner.design.study_file import declared_stage
from tuner.design.workload import Trainable
from tuner.errors import DeclarationError, WorkloadError
from tuner.execution.inspection import inspect
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records import MeasuredPromises, Promises
from tuner.records.promises import EngineCheck, common_promises
from tuner.rounds.plan import planned_trials, study_of_round, trial_at
from tuner.rounds.sweep import check_sweep, sweep_plan
from tuner.training.engine import Inspection

LENGTH = 100_000  # steps of a study that is never trained, longer than any warmup
_SAYS = "tuner.delegated.promised", "tuner.delegated.looks"  # the loggers that say what is not promised


def checked(
    trained: Campaign | Trainable | str | Path,
    point: Mapping[str, Value] | None,
    device: str | None,
    steps: int,
    patience: float,
) -> EngineCheck:
    """See `tuner.testing.check_engine`."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise DeclarationError(f"steps must be a whole number of at least 2, got {steps!r}")
    declared = declared_stage(trained).campaign if isinstance(trained, str | Path) else trained
    campaign = declared if isinstance(declared, Campaign) else _campaign_of(declared, point)
    name = type(campaign.workload).__name__
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _silent():
        try:
            loaded = LoadedWorkload(campaign.workload, Machine(Path(folder), device))
            loaded.looks.steps, loaded.looks.slow_seconds = (steps // 2, steps), patience
            found, seen, promises = _looked(campaign, loaded, None if point is None else Point.of(point))
        except WorkloadError as error:
            return EngineCheck(name, Promises(), problem=str(error), seconds=time.perf_counter() - began)
    why = {promise: words for one in seen for promise, words in one.why.items()}
    took, own = time.perf_counter() - began, loaded.trains_itself
    return EngineCheck(name, promises, why, "", found.unread, found.price, took, steps if own else 0)


def _looked(
    campaign: Campaign, loaded: LoadedWorkload, point: Point | None
) -> tuple[Inspection, list[MeasuredPromises], Promises]:
    """What the first round shows, and the sweep where there is one; and what both promise.

    Raises WorkloadError where the workload is faulty, or rejects every point.
    """
    study = replace(study_of_round(campaign, 1, LENGTH), num_examples=loaded.num_examples)
    trial = planned_trials(study)[0] if point is None else trial_at(study, 0, point, "a check")
    if point is not None:
        loaded.looks.points[study.augment] = dict(point.values_by_name)
    found = inspect(loaded, study, [trial], validation_seconds=None, price=True)
    studies = [study]
    if campaign.sweep is not None:
        plan = sweep_plan(campaign, campaign.sweep)
        check_sweep(loaded, plan)
        studies.append(plan.study("sweep", plan.budget(campaign.sweep.start_steps), 1))
    seen = [measured for one in studies if (measured := loaded.measured(one)) is not None]
    if loaded.trains_itself and len(seen) < len(studies):
        name, why = type(campaign.workload).__name__, loaded.looks.rejected
        raise WorkloadError(f"{name}.train rejects each point at which it was tried, so nothing is known of it: {why}")
    return found, seen, common_promises(loaded.promises(one) for one in studies)


def _campaign_of(workload: Trainable, point: Mapping[str, Value] | None) -> Campaign:
    """A campaign around a point: a space must vary something, so its learning rate varies."""
    rate = (point or {}).get("learning_rate")
    if point is None or isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise DeclarationError(
            f"check_engine needs the point at which {type(workload).__name__} is looked at, with a learning_rate above "
            f'0, point={{"learning_rate": 0.1}}, or a whole Campaign; got {point!r}'
        )
    space: dict[str, object] = {**point, "learning_rate": log_uniform(rate / 2, rate * 2)}
    return Campaign(workload, rounds=[Round("a check", trials=1, max_train_steps=LENGTH, space=SearchSpace(**space))])


@contextmanager
def _silent() -> Iterator[None]:
    """What is not promised is in the result, and is not logged besides."""
    loggers = [logging.getLogger(name) for name in _SAYS]
    before = [one.disabled for one in loggers]
    for one in loggers:
        one.disabled = True
    try:
        yield
    finally:
        for one, disabled in zip(loggers, before, strict=True):
            one.disabled = disabled
