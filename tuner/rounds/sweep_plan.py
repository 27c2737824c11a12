"""What a sweep trains: the first round's space with everything but the learning rate at one value.

Regularization and augmentation stand at their off values (A22, A23), everything else in the middle of its range or
where `Sweep.values` puts it. All trials of a grid share one seed, so that only the rate differs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.budget.families import constant
from tuner.budget.step_budget import StepBudget
from tuner.design.campaign import Campaign, Sweep
from tuner.design.hyperparameters import Condition, Constant, Hyperparameter, Range, Value
from tuner.design.names import Name
from tuner.design.objective import HOW_TO_DECLARE_A_FIT
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A sweep ready to be trained: its grid and the values of everything else."""

    campaign: Campaign
    sweep: Sweep
    values: tuple[tuple[str, Value], ...]

    @property
    def rates(self) -> tuple[float, ...]:
        return self.sweep.learning_rate

    @property
    def evaluations(self) -> int:
        return self.campaign.evaluations

    @property
    def optimizer(self) -> str:
        return self.sweep.optimizer or self.campaign.optimizer

    @property
    def digest(self) -> str:
        """Another grid, optimizer or value, another digest."""
        declared = [
            self.rates,
            self.values,
            self.optimizer,
            self.sweep.start_steps,
            self.sweep.max_steps,
            self.evaluations,
        ]
        return hashlib.sha256(json.dumps(declared).encode()).hexdigest()[:16]

    def budget(self, steps: int) -> StepBudget:
        """Evaluated where the shorter probes are, so that a longer trial goes on from the end of a shorter one."""
        budget = StepBudget.with_evaluations(min(self.sweep.start_steps, steps), self.evaluations)
        while budget.max_train_steps < steps:
            budget = budget.lengthened(min(2 * budget.max_train_steps, steps), self.evaluations)
        return budget

    def study(self, name: str, budget: StepBudget, num_trials: int) -> Study:
        """A study of constant rates, without augmentation."""
        rates = Range(self.rates[0], self.rates[-1], log=True)
        return Study(
            name=name,
            kind="sweep",
            goal="How many steps does the fastest constant learning rate need to fit the training set?",
            hyperparameters=(Hyperparameter("learning_rate", rates, "optimizer"),),
            fixed=tuple((name, Constant(value)) for name, value in self.values),
            budget=budget,
            num_trials=num_trials,
            objective=self.campaign.workload.select_by,
            fitted_when=self.campaign.workload.fitted_when,
            optimizer=self.optimizer,
            schedule=constant(),
            warmup_steps=0,
            batch_size=self.campaign.workload.batch_size,
            seed=derived_seed("sweep", self.campaign.seed),
            keep_best=1,
            augment=False,
            lineage=(("sweep", self.digest),),
        )

    def trials(self, study: Study, rates: tuple[float, ...]) -> tuple[Trial, ...]:
        """One trial a rate, all with one seed."""
        seeds = derived_seed("trial", study.seed), derived_seed("data", study.seed)
        return tuple(self._trial(study, number, rate, seeds, "grid") for number, rate in enumerate(rates))

    def seed_trials(self, study: Study, rate: float) -> tuple[Trial, ...]:
        """Trials at one rate that differ in both seeds, from each other and from the grid's."""
        pairs = [
            (derived_seed("trial", study.seed, "fresh", number), derived_seed("data", study.seed, "fresh", number))
            for number in range(study.num_trials)
        ]
        return tuple(self._trial(study, n, rate, pair, f"fresh seed {n}") for n, pair in enumerate(pairs))

    def _trial(self, study: Study, number: int, rate: float, seeds: tuple[int, int], origin: str) -> Trial:
        point = Point.of({"learning_rate": rate, **dict(self.values)})
        schedule = study.schedule.schedule(study.budget.max_train_steps)
        return Trial(number, point, *seeds, schedule, origin)


def sweep_plan(campaign: Campaign, sweep: Sweep) -> SweepPlan:
    """Everything but the learning rate at one value. Raises DeclarationError when that is not possible."""
    if campaign.workload.fitted_when is None:
        raise DeclarationError(
            f"{type(campaign.workload).__name__} declares no fit criterion, so a sweep cannot know when the training "
            f"set is fitted; write fitted_when = {HOW_TO_DECLARE_A_FIT} in the class"
        )
    space = campaign.rounds[0].space
    if space is None:
        raise DeclarationError("a sweep takes its hyperparameters from the first round's space, and there is none")
    values = sweep_values(space, sweep.optimizer or campaign.optimizer, sweep.values)
    return SweepPlan(campaign, sweep, tuple(values.items()))


def sweep_values(space: SearchSpace, optimizer: str, given: Mapping[str, Value]) -> dict[str, Value]:
    """The value of every hyperparameter but the learning rate: off, as given, or the middle of its range."""
    unknown = [name for name in given if name not in {h.short_name for h in space} | {n for n, _ in space.fixed}]
    if unknown:
        raise DeclarationError(f"Sweep(values=...) names {', '.join(unknown)}, which the first round does not declare")
    off = space.off_values()
    values: dict[str, Value] = {}
    for hyperparameter in space:
        name = hyperparameter.short_name
        if name in ("learning_rate", "optimizer") or _of_another_optimizer(hyperparameter.condition, optimizer):
            continue
        values[name] = given.get(name, off.get(hyperparameter.name, hyperparameter.domain.value_at(0.5)))
    for name, constant_value in space.fixed:
        short = Name.of(name).short
        if short not in ("learning_rate", "optimizer") and Name.of(name).branch in ("", optimizer):
            values[short] = given.get(short, off.get(name, constant_value.value))
    return {name: value for name, value in values.items() if name not in ("warmup_steps", "decay_fraction")}


def _of_another_optimizer(condition: Condition | None, optimizer: str) -> bool:
    return condition is not None and condition[0] == "optimizer" and condition[1] != optimizer
