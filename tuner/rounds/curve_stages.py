"""What a longer run would buy: one point trained to several lengths, each with its own decay, from one trunk.

The longest length is trained first and leaves a trunk before the decay of each shorter one; those then train their
decay alone (a stage tree). So five lengths cost the longest run and four decays instead of five runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.analysis.questions.budget_curve import KIND, curve_name, degrees_of_freedom
from tuner.budget.families import constant_then_decay
from tuner.budget.schedules import Schedule
from tuner.budget.step_budget import StepBudget
from tuner.design.optimizers import is_known, optimizer_of
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.records import TrialRecord
from tuner.records.budget_origin import BudgetOrigin
from tuner.records.conclusions import CurveStudies
from tuner.rounds.launch import Plan, Session, known_promises, launch_study, plan_study
from tuner.rounds.plan import schedule_of, trial_at
from tuner.storage.studies import StudyRow

NUM_LENGTHS = 5
FEWEST = 3  # fewer lengths show no curve
FEW = 4  # fewer lengths, of one seed each, are described by a curve exactly, whatever their noise


@dataclass(frozen=True, slots=True)
class CurveLength:
    """The study of one length, and where its trials part from the trunk."""

    study: Study
    trials: tuple[Trial, ...]
    branches_at: int


def even_lengths(longest: int, count: int = NUM_LENGTHS) -> tuple[int, ...]:
    """`count` lengths at equal distances, up to the longest."""
    return tuple(sorted({max(1, round(longest * place / count)) for place in range(1, count + 1)}))


def seeds_for(num_lengths: int) -> int:
    """The number of seeds that a prediction from this many lengths needs for a useful interval."""
    return 1 if num_lengths >= FEW else 3


def curve_stages(
    row: StudyRow, record: TrialRecord, lengths: Sequence[int], num_seeds: int, *, shares: bool = True
) -> tuple[CurveLength, ...]:
    """The studies that train a recorded trial's point to each length, the longest first.

    shares: whether a trial may go on from the steps of another; where not, each length has the study's own schedule,
    as with an optimizer that trains under no decay.
    The first of the seeds are those the trial had, so that what it left is used. Raises DeclarationError.
    """
    shares = shares and not _trains_without_decay(row.study, record)
    _check(row, record, lengths, num_seeds, shares)
    grid = row.study.budget
    if max(lengths) > grid.max_train_steps:
        grid = grid.lengthened(max(lengths), max(1, round(grid.max_train_steps / grid.evaluate_every)))
    schedules = {length: _schedule(row.study, record, length, shares) for length in lengths}
    pins = tuple(sorted(schedule.decay_start or 0 for schedule in schedules.values())) if shares else ()
    stages = []
    for length in sorted(lengths, reverse=True):
        study = _study(row, record, grid.shortened(length), num_seeds)
        if not shares:
            study = replace(study, schedule=row.study.schedule)
        left = pins if length == max(lengths) else ()
        trials = (_trial(study, record, number, schedules[length], left) for number in range(num_seeds))
        begins = 0 if left or not shares else schedules[length].decay_start or 0
        stages.append(CurveLength(study, tuple(trials), begins))
    return tuple(stages)


def _trains_without_decay(study: Study, record: TrialRecord) -> bool:
    optimizer = str(record.point.get("optimizer", study.optimizer))
    return is_known(optimizer) and bool(optimizer_of(optimizer).only_constant)


def priced_stages(session: Session, stages: Sequence[CurveLength]) -> list[Plan]:
    """What they cost: each shorter length begins at the trunk that the longest will have left.

    Where trials share no first steps each length is trained from its first step, and priced so.
    """
    plans = [plan_study(session, stage.study, stage.trials) for stage in stages]
    if not known_promises(session, stages[0].study).prefixes:
        return plans
    return [
        replace(plan, saved=tuple(max(known, stage.branches_at) for known in plan.saved))
        for plan, stage in zip(plans, stages, strict=True)
    ]


def train_stages(session: Session, stages: Sequence[CurveLength], *, retry_failed: bool = False) -> list[StudyRow]:
    """Train what is left, the trunk first, and note which lengths belong together; returns their studies."""
    origin = BudgetOrigin("curve")
    rows = [
        launch_study(session, stage.study, stage.trials, budget_origin=origin, retry_failed=retry_failed)
        for stage in stages
    ]
    session.ledger.conclude(session.name, CurveStudies(tuple(row.study.name for row in rows)))
    return rows


def _check(row: StudyRow, record: TrialRecord, lengths: Sequence[int], num_seeds: int, shares: bool) -> None:
    if row.study.source or record.schedule is None:
        raise StorageError(f"trial {record.number} of {row.study.name} was trained elsewhere and cannot go on here")
    if len(set(lengths)) < max(FEWEST, len(lengths)):
        raise DeclarationError(
            f"a curve needs at least {FEWEST} different lengths in steps, got {list(lengths)}; give them like "
            "--lengths 200,400,800"
        )
    if num_seeds < 1:
        raise DeclarationError(f"seeds must be at least 1, got {num_seeds}")
    if degrees_of_freedom(num_seeds * len(lengths), num_seeds) < 1:
        raise DeclarationError(
            f"{len(lengths)} lengths of one seed each are described by a curve exactly, so nothing would tell how far "
            f"a prediction may be wrong; give --seeds 2, or {FEW} lengths or more"
        )
    for length in lengths:
        _check_length(row.study, record, length, shares)


def _check_length(study: Study, record: TrialRecord, length: int, shares: bool) -> None:
    """A length must hold its warmup, its decay, and a trunk between them."""
    warmup = record.schedule.warmup_steps if record.schedule else 0
    if length <= warmup:
        raise DeclarationError(
            f"a length of {length:,} steps ends in the warmup of {warmup:,} steps, which is carried in steps (D18); "
            f"give --lengths that are longer"
        )
    schedule = _schedule(study, record, length, shares)
    if shares and (not schedule.decay_start or schedule.decay_start <= warmup):
        raise DeclarationError(
            f"a length of {length:,} steps leaves nothing before its decay of {length - (schedule.decay_start or 0):,} "
            f"steps but the warmup of {warmup}: there is no trunk to branch from; give --lengths that are longer"
        )


def _schedule(study: Study, record: TrialRecord, length: int, shares: bool) -> Schedule:
    """Constant, then the declared decay; to share steps the default one where the study declares another family."""
    if study.schedule.kind.shares_trunk or not shares:
        return schedule_of(replace(study, budget=StepBudget(length, 1)), record.point)
    warmup = record.schedule.warmup_steps if record.schedule else 0
    return constant_then_decay().schedule(length, warmup)


def _study(row: StudyRow, record: TrialRecord, budget: StepBudget, num_seeds: int) -> Study:
    family = row.study.schedule
    return replace(
        row.study,
        name=curve_name(row.study.name, record.number, budget.max_train_steps),
        kind=KIND,
        goal="What does a longer run buy?",
        budget=budget,
        num_trials=num_seeds,
        schedule=family if family.kind.shares_trunk else constant_then_decay(),
        round=None,
        lineage=((row.study.name, f"trial {record.number}"),),
        scientific=(),
        patience_steps=0,
    )


def _trial(study: Study, record: TrialRecord, number: int, schedule: Schedule, pins: tuple[int, ...]) -> Trial:
    trial = replace(trial_at(study, number, record.point, study.lineage[0][1], schedule), pins=pins)
    if number == 0:
        return replace(trial, seed=record.seed, data_seed=record.data_seed)
    fresh = [derived_seed(kind, record.seed, "budget curve", number) for kind in ("trial", "data")]
    return replace(trial, seed=fresh[0], data_seed=fresh[1])
