"""Writes a study as an Optuna study, for optuna-dashboard and other tools; writing it again changes nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.analysis.study_frames import PRUNED, StudyFrames
from tuner.design.hyperparameters import Domain, Range
from tuner.errors import StorageError
from tuner.interchange.optuna_in import DECLARED, NUMBER, REASON, STATE
from tuner.interchange.optuna_places import quiet_optuna, writable_storage
from tuner.storage.codec import study_text

_FINISHED = ("complete", "infeasible", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Exported:
    """Numbers of trials of an export: new ones, those that were there before, and those that are not finished."""

    new: int
    before: int
    unfinished: int


def export_to_optuna(frames: StudyFrames, url: str, name: str) -> Exported:
    """Add the finished trials that the Optuna study does not have. Raises StorageError.

    `url`: as `optuna.create_study(storage=...)` takes it, or a path: of a SQLite file, or of a journal (*.log).
    Values are the best over training; intermediate values are the selecting metric's. An infeasible trial with a
    finite best value is COMPLETE with a violated constraint, a pruned one PRUNED; everything else that is not complete
    is FAIL. The declaration goes along, so that an import here finds the study as it was.
    """
    with quiet_optuna():
        study = _study(frames, url, name)
        known = {trial.user_attrs.get(NUMBER) for trial in study.get_trials(deepcopy=False)}
        finished = frames.trials[frames.trials["state"].isin(_FINISHED)]
        new = finished[~finished["trial"].isin(known)]
        there = {one: frames.exists_in(frames.trials, one) for one in frames.hyperparameters}
        mine = frames.curves[frames.curves["metric"] == frames.study.objective.metric]
        curves = {
            int(str(trial)): dict(zip(part["step"].tolist(), part["value"].tolist(), strict=True))
            for trial, part in mine.groupby("trial")
        }
        for index, row in zip(new.index, new.to_dict("records"), strict=True):
            values = {str(column): value for column, value in row.items()}
            varied = [one for one in frames.hyperparameters if there[one][index]]
            study.add_trial(_frozen(frames, values, varied, curves.get(int(row["trial"]), {})))
        study.set_user_attr(DECLARED, study_text(frames.study))
    return Exported(len(new), len(finished) - len(new), len(frames.trials) - len(finished))


def _study(frames: StudyFrames, url: str, name: str) -> optuna.Study:
    direction = frames.study.objective.direction
    try:
        storage = writable_storage(url)
        study = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
    except StorageError:
        raise
    except Exception as error:
        raise StorageError(f"no Optuna study can be written there: {type(error).__name__}: {error!s:.300}") from error
    if len(study.directions) != 1 or study.direction.name.lower() != direction:
        raise StorageError(f"the Optuna study {name!r} has another direction than {direction}; give --study-name")
    if any(NUMBER not in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
        raise StorageError(f"the Optuna study {name!r} has trials that are not from here; give --study-name")
    return study


def _frozen(frames: StudyFrames, row: dict[str, Any], varied: Sequence[str], curve: dict[int, float]) -> FrozenTrial:
    domains = {h.name: h.domain for h in frames.study.hyperparameters}
    params = {name: _plain(row[name], domains[name]) for name in varied}
    best = float(row["best_value"])
    complete = row["state"] == "complete" and math.isfinite(best)
    broken = row["state"] == "infeasible" and math.isfinite(best)
    pruned = row["state"] == "cancelled" and str(row["reason"]).startswith(PRUNED) and math.isfinite(best)
    attributes = {
        NUMBER: int(row["trial"]), STATE: row["state"], REASON: row["reason"], "origin": row["origin"],
        "best_step": int(row["best_step"]) if math.isfinite(best) else None,
    }  # fmt: skip
    return create_trial(
        state=TrialState.COMPLETE if complete or broken else TrialState.PRUNED if pruned else TrialState.FAIL,
        value=best if complete or broken or pruned else None,
        params=params,
        distributions={name: _distribution(domains[name]) for name in params},
        user_attrs=attributes,
        intermediate_values=curve,
        constraints={"feasible": 1.0} if broken else None,
    )


def _distribution(domain: Domain) -> BaseDistribution:
    if not isinstance(domain, Range):
        return CategoricalDistribution(domain.choices)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(float(domain.low), float(domain.high), log=domain.log)


def _plain(value: Any, domain: Domain) -> Any:
    """As Optuna stores it: whole numbers come back from a frame as floats."""
    if isinstance(domain, Range):
        return int(value) if domain.integer else min(max(float(value), domain.low), domain.high)
    plain = value.item() if hasattr(value, "item") else value
    exact = next((choice for choice in domain.choices if repr(choice) == repr(plain)), plain)  # True is not 1
    return None if exact is None or exact != exact else exact
