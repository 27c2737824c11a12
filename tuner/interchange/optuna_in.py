"""An Optuna study as one of ours: intermediate values become curves, states become ours (D27, D33, D37)."""

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
import pandas as pd
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Range
from tuner.design.objective import Objective
from tuner.design.study import Study
from tuner.errors import DeclarationError, StorageError, TunerError
from tuner.interchange.cleaning import interval_of, reach_of, without_overflow
from tuner.interchange.imported import Imported, imported_study, imported_trial, metric_name, refuse_unknown
from tuner.interchange.optuna_space import hyperparameters_of, point_values
from tuner.records import FinishedTrial, Measurement, State

NUMBER, STATE, REASON = "tuner_trial", "tuner_state", "tuner_reason"  # user attributes that our export writes
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True, slots=True)
class OptunaTerms:
    """What the person who imports says: the rest is in the study."""

    objective: str = "objective"
    max_train_steps: int | None = None
    schedule: str = "unknown"
    ignored: tuple[str, ...] = ()


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Constraints are experimental in Optuna 5, and it says so each time; its log is not ours."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def optuna_study(url: str, name: str) -> optuna.Study:
    """A study of an Optuna storage. Raises StorageError with what there is instead."""
    try:
        storage = optuna.storages.RDBStorage(url, skip_table_creation=True)
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = ", ".join(repr(one) for one in optuna.get_all_study_names(url)[:20]) or "none"
        raise StorageError(f"there is no Optuna study {name!r} there; there are: {known}") from None
    except RuntimeError as error:
        raise StorageError(
            f"the Optuna database is of another version: {str(error).strip()[:300]}; back it up, then "
            "`optuna storage upgrade --storage URL` brings it to this one"
        ) from error
    except Exception as error:
        raise StorageError(f"no Optuna database can be read there: {type(error).__name__}: {error!s:.300}") from error


def imported_from_optuna(url: str, name: str, terms: OptunaTerms) -> Imported:
    """Read a study. Raises StorageError, and DeclarationError for what cannot be a study here."""
    with quiet_optuna():
        study = optuna_study(url, name)
        if len(study.directions) != 1:
            raise DeclarationError(
                f"{name!r} has {len(study.directions)} objectives, and a study here is judged by one; import one of "
                "them as a table (`tuner import table`)"
            )
        direction = study.direction.name.lower()
        trials = study.get_trials(deepcopy=False)
    notes: list[str] = []
    finished = _finished(trials, notes)
    objective = Objective(metric_name(terms.objective), direction)  # type: ignore[arg-type]
    shift = _shift(finished, notes)
    budget = _budget(finished, shift, terms.max_train_steps, notes)
    refuse_unknown(terms.ignored, {name for trial in finished for name in trial.params})
    hyperparameters, parents = hyperparameters_of(finished, terms.ignored, notes)
    declared = imported_study(hyperparameters, budget, objective, terms.schedule, f"Optuna study {name}")
    known = {h.name for h in hyperparameters}
    made = [
        _trial(declared, trial, point_values(trial, known, parents), shift, _ended(trial, budget, shift))
        for trial in finished
    ]
    _note_states(finished, made, notes)
    declared = Study(**{name: getattr(declared, name) for name in declared.__slots__} | {"num_trials": len(made)})
    return Imported(declared, tuple(made), tuple(notes))


def _finished(trials: Sequence[FrozenTrial], notes: list[str]) -> list[FrozenTrial]:
    finished = [trial for trial in trials if trial.state in _FINISHED]
    if not finished:
        raise StorageError(f"the Optuna study has no finished trial among {len(trials)}; nothing can be imported")
    if len(finished) < len(trials):
        left = len(trials) - len(finished)
        notes.append(f"{left} trials wait or run and are left out; import again when they are finished")
    return finished


def _shift(trials: Collection[FrozenTrial], notes: list[str]) -> int:
    """1 where steps are counted from 0: what is reported as step 0 was measured after the first one."""
    first = min((min(t.intermediate_values) for t in trials if t.intermediate_values), default=1)
    if first == 0:
        notes.append("steps are counted from 0 in Optuna; step s is taken as the state after s + 1 steps")
    return 1 if first == 0 else 0


def _budget(trials: Collection[FrozenTrial], shift: int, given: int | None, notes: list[str]) -> StepBudget:
    steps = {step + shift for trial in trials for step in trial.intermediate_values}
    last = max(steps, default=1)
    if given is not None and last > given:
        raise DeclarationError(f"a trial reports step {last}, beyond --max-train-steps {given}; give the real budget")
    if not steps:
        notes.append("no trial has intermediate values: questions about curves answer no_curves")
    elif given is None:
        notes.append(
            f"max_train_steps is taken as {last}, the last step of any trial; --max-train-steps says otherwise"
        )
    whole = given or last
    rows = [(trial.number, step) for trial in trials for step in trial.intermediate_values]
    usual = interval_of(pd.DataFrame(rows, columns=["trial", "step"]))
    return StepBudget(whole, min(whole, usual) if steps else whole)


def _ended(trial: FrozenTrial, budget: StepBudget, shift: int) -> tuple[State, str]:
    """The state a trial has here, and why."""
    if STATE in trial.user_attrs:
        return State(trial.user_attrs[STATE]), str(trial.user_attrs.get(REASON, ""))
    values = trial.intermediate_values
    last = max(values, default=0) + shift
    if trial.state is TrialState.PRUNED:
        return State.CANCELLED, f"pruned at step {last}"
    if any(constraint > 0 for constraint in trial.constraints.values()):
        return State.INFEASIBLE, "a constraint is violated"
    if values and not math.isfinite(values[max(values)]):
        return State.INFEASIBLE, f"diverged: not finite at step {last}"
    if trial.state is TrialState.FAIL:
        return State.FAILED, "failed in Optuna: an error, or NaN was its value"
    if trial.value is None or not math.isfinite(trial.value):
        return State.INFEASIBLE, f"its value is {trial.value}"
    if values and last + reach_of(list(values), budget.evaluate_every) < budget.max_train_steps:
        return State.CANCELLED, f"cut short: last reported at step {last} of {budget.max_train_steps}"
    return State.COMPLETE, ""


def _trial(
    study: Study, trial: FrozenTrial, values: Mapping[str, object], shift: int, ended: tuple[State, str]
) -> FinishedTrial:
    measured = [
        Measurement(step + shift, study.objective.metric, without_overflow(float(value)))
        for step, value in sorted(trial.intermediate_values.items())
    ]
    if not measured and trial.value is not None and trial.state is TrialState.COMPLETE:
        measured = [
            Measurement(study.budget.max_train_steps, study.objective.metric, without_overflow(float(trial.value)))
        ]
    number = int(trial.user_attrs.get(NUMBER, trial.number))
    _check_values(study, number, values)
    step = measured[-1].step if measured else 0
    return FinishedTrial(imported_trial(study, number, values), *ended, step, measured)


def _check_values(study: Study, number: int, values: Mapping[str, object]) -> None:
    for hyperparameter in study.hyperparameters:
        value, domain = values.get(hyperparameter.name), hyperparameter.domain
        if isinstance(domain, Range) and value is not None and not isinstance(value, int | float):
            raise TunerError(f"trial {number} has {hyperparameter.name} = {value!r}, which is no number")


def _note_states(trials: Sequence[FrozenTrial], made: Sequence[FinishedTrial], notes: list[str]) -> None:
    counts = {state: sum(one.state is state for one in made) for state in (State.CANCELLED, State.FAILED)}
    if counts[State.CANCELLED]:
        notes.append(f"{counts[State.CANCELLED]} pruned or short trials count as cancelled (D13, D24)")
    if counts[State.FAILED]:
        notes.append(f"{counts[State.FAILED]} failed trials stay failed: Optuna does not keep whether it was NaN (D37)")
    infeasible = sum(one.state is State.INFEASIBLE for one in made)
    if infeasible:
        notes.append(f"{infeasible} trials are infeasible: not finite, or a violated constraint (D27, D37)")
    other = sum(_is_of_another_metric(trial) for trial in trials)
    if other:
        notes.append(
            f"the value of {other} trials is none of their intermediate values; the curves decide here, so if they are "
            "of another metric than the value, import both as tables"
        )
    bare = sum(one.state is State.COMPLETE and not t.intermediate_values for t, one in zip(trials, made, strict=True))
    if bare and bare < len(made):
        notes.append(f"{bare} complete trials have no intermediate values; their value stands at the last step")


def _is_of_another_metric(trial: FrozenTrial) -> bool:
    value, curve = trial.value, trial.intermediate_values.values()
    if value is None or not curve or not math.isfinite(value):
        return False
    return not any(math.isclose(value, each, rel_tol=1e-6) for each in curve)
