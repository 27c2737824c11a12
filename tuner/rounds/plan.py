"""From a declared round to a study and its trials."""

from dataclasses import replace
from typing import Any

from tuner.budget.schedules import Schedule, ScheduleFamily
from tuner.design.campaign import Campaign
from tuner.design.optimizers import is_known, optimizer_of
from tuner.design.own_loop import OwnLoop
from tuner.design.points import Point
from tuner.design.quasi_random import quasi_random_points
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Trainable, Workload
from tuner.errors import DeclarationError
from tuner.storage.store import Ledger


def round_name(number: int) -> str:
    """The name of a round's study in its campaign."""
    return f"round-{number}"


def study_of_round(campaign: Campaign, number: int, max_train_steps: int) -> Study:
    """The study of round `number` (counted from 1), which declares a search space."""
    declared = campaign.round(number)
    if declared.space is None or declared.trials is None:
        raise DeclarationError(f"round {number} takes its points from the round before and has no space of its own")
    if number == 1:
        campaign = campaign.with_warmup(max_train_steps)
    study = Study(
        name=round_name(number),
        kind="round",
        goal=declared.goal,
        hyperparameters=declared.space.hyperparameters,
        fixed=declared.space.fixed,
        budget=campaign.budget(max_train_steps),
        num_trials=declared.trials,
        objective=campaign.workload.select_by,
        fitted_when=campaign.workload.fitted_when,
        optimizer=campaign.optimizer,
        schedule=campaign.schedule_family,
        warmup_steps=campaign.warmup_steps,
        batch_size=campaign.workload.batch_size,
        seed=derived_seed("study", campaign.seed, round_name(number)),
        keep_best=campaign.keep_best,
        round=number,
        scientific=declared.scientific,
        start=declared.start or "",
        **words_of_updates(campaign),
    )
    _check_learning_rate(study, campaign.workload)
    return study


def words_of_updates(campaign: Campaign) -> dict[str, Any]:
    """What a study keeps of the slices, the precision and the averages that its campaign declares."""
    workload = campaign.workload
    words: dict[str, Any] = {"precision": campaign.precision or "", "ema_steps": campaign.ema_steps or 0}
    if isinstance(workload, Workload):
        from_portions = workload.slices is None and workload.micro_batch_size is not None
        words["slices"] = workload.slices or 1
        words["slice_size"] = workload.micro_batch_size if from_portions else 0
    return words


def with_kept_slices(study: Study, workload: Trainable, ledger: Ledger, campaign: str) -> Study:
    """A study with slices of the size with which its campaign began, where its class does not say their number.

    What is computed at a time may be another than when it began, on another machine.
    """
    if not isinstance(workload, Workload) or workload.slices is not None or campaign not in ledger.campaigns():
        return study
    first = next((row.study for row in ledger.studies(campaign) if not row.study.source), None)
    return study if first is None else replace(study, slice_size=first.slice_size)


def planned_trials(study: Study, start: int = 0) -> tuple[Trial, ...]:
    """Trials `start`..`num_trials - 1` of an exploration: the quasi-random points of (space, seed, index)."""
    points = quasi_random_points(study.space, seed=study.seed, start=start, count=study.num_trials - start)
    return tuple(trial_at(study, number, point, f"quasi-random {number}") for number, point in enumerate(points, start))


def trial_at(study: Study, number: int, point: Point, origin: str, schedule: Schedule | None = None) -> Trial:
    """A trial of a study. Each has its own seed; all share the order of the batches (D42)."""
    schedule = schedule or schedule_of(study, point)
    return Trial(
        number=number,
        point=point,
        seed=derived_seed("trial", study.seed, number),
        data_seed=derived_seed("data", study.seed),
        schedule=schedule,
        origin=origin,
        shape_group=study.shape_group(point),
        pins=pins_of(schedule),
    )


def pins_of(schedule: Schedule) -> tuple[int, ...]:
    """The steps after which a trial leaves a shared checkpoint: just before its decay; none inside a warmup."""
    start = schedule.decay_start
    return (start,) if start is not None and start > schedule.warmup_steps else ()


def schedule_of(study: Study, point: Point) -> Schedule:
    """The learning rate schedule of a point: the family of the study, with the warmup and decay of the point."""
    family: ScheduleFamily = study.schedule
    if "decay_fraction" in point:
        family = replace(family, decay=point.number("decay_fraction"))
    warmup = point.whole("warmup_steps", study.warmup_steps)
    return family.schedule(study.budget.max_train_steps, warmup)


def _check_learning_rate(study: Study, workload: Trainable) -> None:
    """Raise DeclarationError for points without a learning rate; a loop may have none at all, and rates of its own."""
    trials = planned_trials(replace(study, num_trials=min(study.num_trials, 64)))
    if isinstance(workload, OwnLoop) and not workload.follows_schedule:
        none = not any("learning_rate" in trial.point for trial in trials)
        if none or workload.follows_schedule is False:
            return
    for trial in trials:
        if "learning_rate" not in trial.point:
            to_begin_with = _rate_to_begin_with(study, trial.point)
            raise DeclarationError(
                f"{study.name} has points without a learning_rate ({dict(trial.point)}); declare one in the search "
                f"space, in every branch of the optimizer if it is chosen there{to_begin_with}"
            )


def _rate_to_begin_with(study: Study, point: Point) -> str:
    name = point.get("optimizer", study.optimizer)
    known = optimizer_of(name).ranges.get("learning_rate") if is_known(name) else None
    return f": learning_rate={known.as_declared()} to begin with {name}" if known is not None else ""
