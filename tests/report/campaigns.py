"""Campaigns with a sweep and promoted points, filled by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuner.budget.families import constant
from tuner.budget.schedules import Schedule
from tuner.budget.step_budget import StepBudget
from tuner.budget.transfer import lengthened
from tuner.design.hyperparameters import Hyperparameter, log_uniform
from tuner.design.objective import at_most
from tuner.design.points import Point
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import Checkpoint, Measurement, State, TrialUpdate
from tuner.records.conclusions import SweepConclusion
from tuner.records.sweep_outcomes import Fitted, SweepOutcome
from tuner.storage.store import Ledger

# The first step at which each rate fits the training set; None: never in the 500 steps there are.
FITTING: dict[float, int | None] = {1e-3: None, 3e-3: 400, 1e-2: 210, 3e-2: 300, 1e-1: None}
FITTED = Fitted(1e-2, 200, 210, 500, seed_steps=(200, 270, 320), seed_low=150, seed_high=440)


def sweep_stage(like: Study, name: str, rates: Sequence[float], steps: int = 500) -> Study:
    """A study of a sweep as `rounds.sweep` declares it."""
    rate = Hyperparameter("learning_rate", log_uniform(min(rates), max(rates) * 1.001), "optimizer")
    return replace(
        like,
        name=name,
        kind="sweep",
        goal="How many steps does the fastest constant learning rate need?",
        hyperparameters=(rate,),
        fixed=(),
        budget=StepBudget(steps, 10),
        num_trials=len(rates),
        fitted_when=at_most("training/error_rate", 0.0),
        schedule=constant(),
        warmup_steps=0,
        round=None,
        augment=False,
        lineage=(("sweep", "digest"),),
    )


def fill_stage(ledger: Ledger, campaign: str, study: Study, fitting: Mapping[float, int | None]) -> None:
    """Every rate trained to its end: the training error is 1 before its fit and 0 from there on."""
    study_id = plan_stage(ledger, campaign, study, fitting)
    updates = []
    for claim in ledger.claim(study_id, worker="test", lease_seconds=1e6, max_trials=len(fitting)):
        first = fitting[float(claim.trial.point["learning_rate"])]
        measured = []
        for step in study.budget.evaluation_steps:
            fitted = first is not None and step >= first
            measured.append(Measurement(step, "training/error_rate", 0.0 if fitted else 0.5))
            measured.append(Measurement(step, "validation/error_rate", 0.1 if fitted else 0.6))
        last = study.budget.max_train_steps
        updates.append(TrialUpdate(claim.trial_id, claim.fence, last, measured, [], State.COMPLETE))
    ledger.record(updates)


def plan_stage(ledger: Ledger, campaign: str, study: Study, fitting: Mapping[float, int | None]) -> int:
    """A stage whose trials all wait; its id."""
    row = ledger.start_study(campaign, study, "fingerprint")
    schedule = study.schedule.schedule(study.budget.max_train_steps)
    points = [Point.of({"learning_rate": rate}) for rate in fitting]
    trials = [Trial(number, point, 3, 17, schedule, "grid") for number, point in enumerate(points)]
    ledger.plan_trials(row.study_id, trials)
    return row.study_id


def fill_sweep(
    ledger: Ledger,
    campaign: str,
    like: Study,
    outcome: SweepOutcome | None,
    *,
    name: str = "sweep-1",
    fitting: Mapping[float, int | None] = FITTING,
) -> None:
    """A probe and a grid, and what was concluded from them (None: nothing yet)."""
    some = dict(list(fitting.items())[1::3])
    fill_stage(ledger, campaign, sweep_stage(like, f"{name}-probe-250", list(some), 250), some)
    fill_stage(ledger, campaign, sweep_stage(like, f"{name}-grid", list(fitting)), fitting)
    if outcome is not None:
        ledger.conclude(campaign, SweepConclusion(name, 2.0, outcome))


def fill_promoted(
    ledger: Ledger, campaign: str, before: Study, steps: int, numbers: Sequence[int], worse: float
) -> None:
    """Points of `before` trained for `steps` with fresh seeds; their best values are `worse` by a constant."""
    row = ledger.study(campaign, before.name)
    parents = {record.number: record for record in ledger.trials(row.study_id)}
    study = replace(
        before,
        name="round-2",
        goal="The final model",
        budget=StepBudget.with_evaluations(steps, 50),
        num_trials=len(numbers),
        round=2,
        lineage=tuple((before.name, f"trial {number}") for number in numbers),
    )
    trials = [
        Trial(place, parents[number].point, 9000 + place, 18, _longer(parents[number].schedule, steps),
              f"{before.name} trial {number}")
        for place, number in enumerate(numbers)
    ]  # fmt: skip
    study_id = ledger.start_study(campaign, study, "fingerprint").study_id
    ledger.plan_trials(study_id, trials)
    updates = []
    for claim in ledger.claim(study_id, worker="test", lease_seconds=1e6, max_trials=len(numbers)):
        value = 0.1 + worse + 0.01 * claim.trial.number
        measured = []
        for step in study.budget.evaluation_steps:
            rest = (step - 0.8 * steps) ** 2 / steps**2
            measured.append(Measurement(step, "training/error_rate", 0.5 * value + rest))
            measured.append(Measurement(step, "validation/error_rate", value + rest))
        _, _, step = min((one.value, place, one.step) for place, one in enumerate(measured[1::2]))
        best = Checkpoint("best", step, "round-2/best.safetensors", "ab" * 32, 1000, value)
        updates.append(TrialUpdate(claim.trial_id, claim.fence, steps, measured, [best], State.COMPLETE))
    ledger.record(updates)


def _longer(schedule: Schedule | None, steps: int) -> Schedule:
    assert schedule is not None
    return lengthened(schedule, steps)
