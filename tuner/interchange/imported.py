"""A study that was run elsewhere, ready to be written into the Ledger."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from tuner.budget.schedules import SCHEDULES, ScheduleFamily
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Hyperparameter
from tuner.design.names import refuse_budget_or_seed, refuse_column
from tuner.design.objective import Objective
from tuner.design.origin import RUN_ORIGIN
from tuner.design.points import Point
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StudyChanged
from tuner.records import FinishedTrial, TrialRecord
from tuner.storage.store import Ledger

STUDY = "round-1"  # the name of an imported study in its campaign

# Prefixes by which loggers name the splits; a metric without one counts as measured on validation.
_SPLITS = {
    "training": "training", "train": "training", "validation": "validation", "valid": "validation",
    "val": "validation", "eval": "validation", "dev": "validation", "test": "test",
}  # fmt: skip
LEARNING_RATE_METRICS = ("lr", "learning_rate")


@dataclass(frozen=True, slots=True)
class Imported:
    """A study, its finished trials and the notes of its import; `name`: its name in the other tool."""

    study: Study
    trials: tuple[FinishedTrial, ...]
    notes: tuple[str, ...]
    name: str = ""

    def worth(self, least: float) -> "Imported":
        """A copy with the smallest gain of the objective that counts. Raises DeclarationError."""
        return replace(self, study=replace(self.study, objective=replace(self.study.objective, worth=least)))


def metric_name(name: str) -> str:
    """The name of a metric here: val_loss is validation/loss, train/acc is training/acc, loss is validation/loss.

    Loss/train, as torch's own examples write it for TensorBoard, is training/Loss. A learning rate is of no split and
    keeps its name.
    """
    if name in LEARNING_RATE_METRICS:
        return name
    for separator in ("/", "_", "."):
        split, _, rest = name.partition(separator)
        if rest and split.lower() in _SPLITS:
            return f"{_SPLITS[split.lower()]}/{rest}"
    for separator in ("/", "_", "."):
        rest, _, split = name.rpartition(separator)
        if rest and split.lower() in _SPLITS and split.lower() != "dev":  # std_dev is a deviation
            return f"{_SPLITS[split.lower()]}/{rest}"
    return f"validation/{name}"


def imported_study(
    hyperparameters: Sequence[Hyperparameter], budget: StepBudget, objective: Objective, schedule: str, source: str
) -> Study:
    """The declaration of a study from what an import knows. Raises DeclarationError."""
    for hyperparameter in hyperparameters:
        try:
            refuse_budget_or_seed(hyperparameter.short_name)
            refuse_column(hyperparameter.name)
        except DeclarationError as error:
            raise DeclarationError(f"{error}; to import the study without it: --ignore {hyperparameter.name}") from None
    possible = [kind.name for kind in SCHEDULES if kind.importable]
    if schedule not in possible:
        raise DeclarationError(f"--schedule is one of {', '.join(possible)}, got {schedule!r}")
    return Study(
        name=STUDY,
        kind="round",
        goal=f"imported from {source}",
        hyperparameters=tuple(hyperparameters),
        fixed=(),
        budget=budget,
        num_trials=0,
        objective=objective,
        fitted_when=None,
        optimizer=None,
        schedule=ScheduleFamily(schedule),
        warmup_steps=0,
        batch_size=0,
        seed=0,
        round=1,
        source=source,
    )


def refuse_unknown(ignored: Sequence[str], known: Collection[str]) -> None:
    """Raise DeclarationError for an `--ignore` that leaves nothing out."""
    for name in ignored:
        if name not in known:
            raise DeclarationError(f"--ignore {name} names nothing there; there are: {', '.join(sorted(known))}")


def imported_trial(study: Study, number: int, values: Mapping[str, object], origin: str = "") -> Trial:
    """A trial as it was declared elsewhere; its seeds are not known. `origin`: by default what the study came from."""
    ordered = {h.name: values[h.name] for h in study.hyperparameters if h.name in values}
    schedule = study.schedule.schedule(study.budget.max_train_steps)
    return Trial(number, Point.of(ordered), 0, 0, schedule, origin or study.source)  # type: ignore[arg-type]


def write_imported(ledger: Ledger, campaign: str, imported: Imported) -> int:
    """Write the study under a name, in one transaction; trials that were imported before stay as they are.

    A run that has a name keeps the number that it had, wherever it stands in a table that has grown. Returns how many
    are new. Raises StudyChanged where another study has the name.
    """
    origin = f"imported from {imported.study.source}"
    known = _known_trials(ledger, campaign)
    trials = _as_numbered_before(known, imported.trials)
    _refuse_others(campaign, known, trials)
    try:
        return ledger.import_study(campaign, imported.study, origin, trials)
    except StudyChanged as error:
        changed = "\n".join(line for line in str(error).splitlines() if line.startswith("  "))
        raise StudyChanged(
            f"{campaign!r} was imported before, and what is read now has another declaration:\n{changed}\n"
            f"import it under another name: --study {campaign}-2; more trials of the same declaration would be added"
        ) from error


def outdated(ledger: Ledger, campaign: str, imported: Imported) -> int:
    """The trials that have changed since they were imported: they ended otherwise, or have more values."""
    known = {record.number: record for record in _known_trials(ledger, campaign)}
    trials = _as_numbered_before(list(known.values()), imported.trials)
    pairs = [(known[one.trial.number], one) for one in trials if one.trial.number in known]
    return sum(record.state is not one.state or record.step != one.step for record, one in pairs)


def _known_trials(ledger: Ledger, campaign: str) -> list[TrialRecord]:
    """The trials of the study under that name, where there is one that was imported."""
    rows = ledger.studies(campaign) if campaign in ledger.campaigns() else []
    return [record for row in rows if row.study.name == STUDY for record in ledger.trials(row.study_id)]


def _as_numbered_before(known: Sequence[TrialRecord], trials: Sequence[FinishedTrial]) -> Sequence[FinishedTrial]:
    if not known or not any(one.trial.origin.startswith(RUN_ORIGIN) for one in trials):
        return trials
    numbers = {record.origin: record.number for record in known}
    free = count(max(record.number for record in known) + 1)
    given = [numbers[one.trial.origin] if one.trial.origin in numbers else next(free) for one in trials]
    return [replace(one, trial=replace(one.trial, number=number)) for one, number in zip(trials, given, strict=True)]


def _refuse_others(campaign: str, known: Sequence[TrialRecord], trials: Sequence[FinishedTrial]) -> None:
    """Raise StudyChanged where a known trial has another point: another study with the same declaration."""
    points = {record.number: record.point for record in known if record.schedule is not None}  # None: unreadable
    for one in trials:
        there = points.get(one.trial.number, one.trial.point)
        if dict(there.values_by_name) != dict(one.trial.point.values_by_name):
            raise StudyChanged(
                f"there is another study {campaign!r}: its trial {one.trial.number} has other values than here; import "
                f"it under another name: --study {campaign}-2"
            )
