"""Reads an Optuna study: intermediate values become curves, states are translated (D27, D33, D37)."""

import math
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuner.analysis.study_frames import PRUNED
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Range
from tuner.design.objective import Objective
from tuner.design.study import Study
from tuner.errors import DeclarationError, StorageError, TunerError
from tuner.interchange.cleaning import interval_of, reach_of, without_overflow
from tuner.interchange.imported import Imported, imported_study, imported_trial, metric_name, refuse_unknown
from tuner.interchange.optuna_cells import damage_of_trial
from tuner.interchange.optuna_places import OptunaPlace, chosen_study, opened_place, place_of, quiet_optuna, trials_in
from tuner.interchange.optuna_space import OptunaSpace, space_of
from tuner.records import FinishedTrial, Measurement, State
from tuner.shown import counted
from tuner.storage.codec import study_from

NUMBER, STATE, REASON = "tuner_trial", "tuner_state", "tuner_reason"  # user attributes that our export writes
DECLARED = "tuner_study"  # and that of the study: its declaration
OBJECTIVE = "objective"
SAMPLER_MARKS = (
    ("fixed_params", "enqueued by hand"), ("cma:", "by CMA-ES"), ("tpe:", "by TPE"), ("gp:", "by a Gaussian process"),
    (":generation", "by a genetic algorithm"), ("grid_id", "on a grid"),
)  # fmt: skip
_OURS = tuple(state.value for state in State if state.finished)
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True, slots=True)
class OptunaTerms:
    """Options of an import; everything else is in the study."""

    objective: str = OBJECTIVE
    max_train_steps: int | None = None
    schedule: str = "unknown"
    ignored: tuple[str, ...] = ()


def imported_from_optuna(written: str, name: str | None, terms: OptunaTerms) -> Imported:
    """Read a study of a path or URL; without a name the only one there.

    Raises StorageError, and DeclarationError for what cannot be a study here.
    """
    place = place_of(written)
    with quiet_optuna(), opened_place(place) as storage:
        study = chosen_study(storage, place, name)
        if len(study.directions) != 1:
            raise DeclarationError(
                f"{study.study_name!r} has {len(study.directions)} objectives, and a study here is judged by one; "
                "import one of them as a table (`tuner import table`)"
            )
        trials = _trials_of(storage, study, place)
        return _imported(study, trials, terms)


def _imported(study: optuna.Study, trials: Sequence[FrozenTrial], terms: OptunaTerms) -> Imported:
    notes: list[str] = []
    finished: Sequence[FrozenTrial] = _finished(trials, notes)
    ours = _declared(study, finished, terms)
    if ours is None and terms.max_train_steps is None:
        finished = _in_reports(finished, notes)
    metric = ours.objective.metric if ours and terms.objective == OBJECTIVE else metric_name(terms.objective)
    objective = Objective(metric, study.direction.name.lower())  # type: ignore[arg-type]
    shift = 0 if ours else _shift(finished, notes)
    refuse_unknown(terms.ignored, {name for trial in finished for name in trial.params})
    if ours is None:
        budget = _budget(finished, shift, terms.max_train_steps, notes)
        space = space_of(finished, terms.ignored, notes)
    else:
        budget = ours.budget
        space = OptunaSpace.declared(ours.hyperparameters)
    source = f"Optuna study {study.study_name}"
    declared = imported_study(space.hyperparameters, budget, objective, terms.schedule, source)
    made = [
        _trial(declared, trial, space.point_values(trial), shift, _ended(trial, budget, shift)) for trial in finished
    ]
    _note_states(finished, made, notes)
    declared = replace(declared, num_trials=len(made), patience_steps=ours.patience_steps if ours else 0)
    return Imported(declared, tuple(made), tuple(notes), study.study_name)


def _trials_of(storage: BaseStorage, study: optuna.Study, place: OptunaPlace) -> list[FrozenTrial]:
    """All trials, each of which can be read whole. Raises StorageError naming trial and field."""
    try:
        trials = trials_in(storage, study, place)
    except Exception as error:
        raise StorageError(
            f"{place.told}: the trials of {study.study_name!r} cannot be read: {type(error).__name__}: {error!s:.300}; "
            "nothing was imported"
        ) from error
    for trial in trials:
        wrong = damage_of_trial(trial)
        if wrong is not None:
            raise StorageError(f"{place.told}: trial {trial.number}: {wrong}; nothing was imported")
    return trials


def _declared(study: optuna.Study, finished: Sequence[FrozenTrial], terms: OptunaTerms) -> Study | None:
    """The declaration that an export here wrote; None where other trials were added, or options override it."""
    text = study.user_attrs.get(DECLARED)
    if not isinstance(text, str) or terms.ignored or terms.max_train_steps is not None:
        return None
    if any(NUMBER not in trial.user_attrs for trial in finished):
        return None
    try:
        return study_from(text)
    except StorageError:
        return None  # of a newer version, or edited: the trials show the space as well as those of any Optuna study


def _finished(trials: Sequence[FrozenTrial], notes: list[str]) -> list[FrozenTrial]:
    finished = [trial for trial in trials if trial.state in _FINISHED]
    counts = {
        state: sum(trial.state is state for trial in trials) for state in (TrialState.RUNNING, TrialState.WAITING)
    }
    words = " and ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
    if not finished:
        raise StorageError(
            f"the Optuna study has no finished trial among {len(trials)}{f' ({words})' if words else ''}; nothing can "
            "be imported"
        )
    if words:
        notes.append(
            f"trials that are not finished are left out ({words}); run the same command again later: it adds the "
            "trials that are new"
        )
    return finished


def _in_reports(trials: Sequence[FrozenTrial], notes: list[str]) -> Sequence[FrozenTrial]:
    """Trials whose steps are numbered by report, where the complete ones reported equally often up to other steps.

    So they do where each is evaluated once an epoch and the batch size is searched: in steps most would be cut short.
    """
    whole = [t.intermediate_values for t in trials if t.state is TrialState.COMPLETE and t.intermediate_values]
    counts, ends = {len(values) for values in whole}, sorted(max(values) for values in whole)
    if len(counts) != 1 or counts == {1}:
        return trials
    if all(max(values) + reach_of(list(values), 1) >= ends[-1] for values in whole):
        return trials
    notes.append(
        f"the complete trials end at steps {ends[0]:,} to {ends[-1]:,}, after {counts.pop()} reports each: a step is "
        "one report here (an epoch, where the batch size was searched)"
    )
    numbered = [copy(trial) for trial in trials]
    for trial in numbered:
        trial.intermediate_values = {
            k: value for k, (_, value) in enumerate(sorted(trial.intermediate_values.items()), 1)
        }
    return numbered


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
        raise DeclarationError(f"a trial reports step {last:,}, beyond --max-train-steps {given}; give the real budget")
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
    """The state of a trial in the Ledger, and the reason."""
    if trial.user_attrs.get(STATE) in _OURS:
        return State(trial.user_attrs[STATE]), str(trial.user_attrs.get(REASON, ""))
    values = trial.intermediate_values
    last = max(values, default=0) + shift
    if trial.state is TrialState.PRUNED:
        return State.CANCELLED, f"{PRUNED} at step {last}"
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
    ours = trial.user_attrs.get(NUMBER)
    number = ours if isinstance(ours, int) else trial.number
    _check_values(study, number, values)
    step = measured[-1].step if measured else 0
    started = trial.datetime_start.timestamp() if trial.datetime_start and ours is None else None
    made = imported_trial(study, number, values, origin=f"{study.source}{sampler_words(trial)}")
    return FinishedTrial(made, *ended, step, measured, started)


def sampler_words(trial: FrozenTrial) -> str:
    """What Optuna wrote down of how a trial's point was chosen: ", by CMA-ES". Most samplers leave nothing."""
    keys = " ".join(trial.system_attrs)
    return next((f", {words}" for mark, words in SAMPLER_MARKS if mark in keys), "")


def _check_values(study: Study, number: int, values: Mapping[str, object]) -> None:
    for hyperparameter in study.hyperparameters:
        value, domain = values.get(hyperparameter.name), hyperparameter.domain
        if isinstance(domain, Range) and value is not None and not isinstance(value, int | float):
            raise TunerError(f"trial {number} has {hyperparameter.name} = {value!r}, which is no number")


def _note_states(trials: Sequence[FrozenTrial], made: Sequence[FinishedTrial], notes: list[str]) -> None:
    short = [
        one.step for trial, one in zip(trials, made, strict=True)
        if trial.state is TrialState.COMPLETE and one.state is State.CANCELLED
    ]  # fmt: skip
    if short:
        notes.append(
            f"{counted(len(short), 'trial')} completed in Optuna but ended early, at step {min(short):,} to "
            f"{max(short):,}: cut short, because all trials of a study have one budget here (A11); where all trained "
            "equally long in epochs, report the epoch: trial.report(value, epoch)"
        )
    counts = {state: sum(one.state is state for one in made) for state in (State.CANCELLED, State.FAILED)}
    if counts[State.CANCELLED]:
        pruned = sum(trial.state is TrialState.PRUNED for trial in trials)
        told = "pruned trial" if pruned == counts[State.CANCELLED] else "pruned or short trial"
        notes.append(
            f"{counted(counts[State.CANCELLED], told)} did not reach the end: counted as at least that bad (D13, D24)"
        )
    if counts[State.FAILED]:
        told = counted(counts[State.FAILED], "trial")
        notes.append(f"{told} failed in Optuna, which does not keep whether the value was NaN: failed here, too (D37)")
    infeasible = sum(one.state is State.INFEASIBLE for one in made)
    if infeasible:
        notes.append(f"{counted(infeasible, 'infeasible trial')}: not finite, or a violated constraint (D27, D37)")
    other = sum(_is_of_another_metric(trial) for trial in trials)
    if other:
        notes.append(
            f"the value of {counted(other, 'trial')} is not among the intermediate values; the curves decide here: if "
            "these are of another metric than the value, import both as tables"
        )
    bare = sum(one.state is State.COMPLETE and not t.intermediate_values for t, one in zip(trials, made, strict=True))
    if bare and bare < len(made):
        notes.append(
            f"{counted(bare, 'complete trial')} without intermediate values: the value stands at the last step"
        )


def _is_of_another_metric(trial: FrozenTrial) -> bool:
    value, curve = trial.value, trial.intermediate_values.values()
    if value is None or not curve or not math.isfinite(value):
        return False
    return not any(math.isclose(value, each, rel_tol=1e-6) for each in curve)
