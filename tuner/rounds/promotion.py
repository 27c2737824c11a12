"""From a round to the next, longer one: the best points, each with its schedule carried over by rule (A33-A43)."""

from dataclasses import dataclass, replace

from tuner.analysis.round_frames import round_frames, round_rows
from tuner.budget.schedules import Schedule
from tuner.budget.step_budget import StepBudget
from tuner.budget.transfer import lengthened, transfer_report
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.rounds.launch import Desk, required_round
from tuner.rounds.plan import round_name, schedule_of, trial_at


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promoting round ready to be launched: its study, its trials, and what the longer schedules do."""

    study: Study
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]


def promotion(desk: Desk, number: int, max_train_steps: int, *, carry_over: bool) -> Promotion:
    """The best points of round `number - 1` at `max_train_steps`, with fresh seeds.

    carry_over: the schedules of a compute-bound workload are lengthened by rule (A40-A43); otherwise the declared
    schedule is made anew for the new length. Raises StorageError when the round before has no complete trial,
    TransferError for a schedule without a rule.
    """
    declared = desk.campaign.round(number)
    required_round(desk, number - 1)
    rows = round_rows(desk.ledger, desk.name, number - 1)
    records = {record.number: record for row in rows for record in desk.ledger.trials(row.study_id)}
    chosen = best_trials(desk, number - 1, declared.promote or 1)
    budget = StepBudget.with_evaluations(max_train_steps, desk.campaign.evaluations)
    study = replace(
        rows[-1].study,
        name=round_name(number),
        goal=declared.goal,
        budget=budget,
        num_trials=len(chosen),
        round=number,
        seed=derived_seed("study", desk.campaign.seed, round_name(number)),
        lineage=tuple((round_name(number - 1), f"trial {trial}") for trial in chosen),
    )
    trials: list[Trial] = []
    warnings: list[str] = []
    for place, trial in enumerate(chosen):
        record = records[trial]
        schedule = _carried(record.schedule, max_train_steps) if carry_over else schedule_of(study, record.point)
        if carry_over and record.schedule is not None:
            warnings += transfer_report(record.schedule, schedule or record.schedule).warnings
        origin = f"{round_name(number - 1)} trial {trial}"
        trials.append(trial_at(study, place, Point.of(dict(record.point)), origin, schedule))
    return Promotion(study, tuple(trials), tuple(dict.fromkeys(warnings)))


def best_trials(desk: Desk, number: int, count: int) -> list[int]:
    """Numbers of the best `count` complete trials of a round, best first; the smaller number on a tie."""
    frames = round_frames(desk.ledger, desk.name, number)
    complete = frames.complete
    ascending = frames.study.objective.direction == "minimize"
    ranked = complete.sort_values(["best_value", "trial"], ascending=[ascending, True])
    return [int(trial) for trial in ranked["trial"].head(count)]


def _carried(schedule: Schedule | None, max_train_steps: int) -> Schedule | None:
    return None if schedule is None else lengthened(schedule, max_train_steps)
