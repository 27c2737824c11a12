"""Studies made by hand: a few points, a few curves, every number visible in the test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from benchmarks.synthetic import study as synthetic_study
from tuner.analysis.frames import frames_of
from tuner.analysis.study_frames import StudyFrames
from tuner.budget.families import constant
from tuner.budget.schedules import ScheduleFamily
from tuner.design.hyperparameters import log_uniform
from tuner.design.objective import Objective
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import State, TrialRecord
from tuner.rounds.plan import schedule_of

METRIC = "validation/loss"
SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))


def study(
    space: SearchSpace = SPACE,
    *,
    steps: int = 1000,
    evaluations: int = 50,
    direction: str = "minimize",
    schedule: ScheduleFamily | None = None,
    warmup_steps: int = 0,
) -> Study:
    made = synthetic_study(space, steps=steps, evaluations=evaluations)
    objective = Objective(METRIC, direction)
    return replace(made, objective=objective, schedule=schedule or constant(), warmup_steps=warmup_steps)


def trained(study: Study, record: TrialRecord) -> TrialRecord:
    """The record with the schedule that the study's declaration and its point make."""
    return planned(record, schedule=schedule_of(study, record.point))


def record(number: int, point: Mapping[str, object] | None = None, state: State = State.COMPLETE) -> TrialRecord:
    values = Point.of(point if point is not None else {"learning_rate": 1e-3})
    trial = Trial(number, values, 7, 8, constant().schedule(1000), "by hand")
    return TrialRecord(number, trial, state, "", 1000, 1, None)


def planned(record: TrialRecord, **changes: object) -> TrialRecord:
    """The record of a trial that was planned otherwise, `changes` being fields of `Trial`."""
    return replace(record, trial=replace(record.readable_trial(), **changes))


def curve(trial: int, steps: Sequence[int], values: Sequence[float], metric: str = METRIC) -> pd.DataFrame:
    return pd.DataFrame({"trial": trial, "step": list(steps), "metric": metric, "value": list(values)})


def frames_of_curves(
    study: Study, curves: Sequence[Sequence[float]], states: Mapping[int, State] | None = None
) -> StudyFrames:
    """One trial a curve, each measured at the first evaluation steps of the study."""
    steps = study.budget.evaluation_steps
    ended = [(states or {}).get(number, State.COMPLETE) for number in range(len(curves))]
    records = [trained(study, record(number, state=state)) for number, state in enumerate(ended)]
    parts = [curve(number, steps[: len(values)], values) for number, values in enumerate(curves)]
    return frames_of(study, records, pd.concat(parts, ignore_index=True))


def frames_of_values(
    study: Study, points: Sequence[Mapping[str, object]], values: Sequence[float | None]
) -> StudyFrames:
    """One trial a point, measured once at the end; None makes it infeasible."""
    records = [
        trained(study, record(number, point, State.INFEASIBLE if value is None else State.COMPLETE))
        for number, (point, value) in enumerate(zip(points, values, strict=True))
    ]
    last = study.budget.max_train_steps
    parts = [curve(0, [], [])]
    parts += [curve(number, [last], [value]) for number, value in enumerate(values) if value is not None]
    return frames_of(study, records, pd.concat(parts, ignore_index=True))
