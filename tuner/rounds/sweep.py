"""The constant-learning-rate sweep: how many steps does the fastest trial need to fit the training set (A18-A26)?

1. `probe`: a few rates of the grid at N steps; N doubles until one fits (A20), or the cap is reached.
2. `grid`: every rate of the grid, N steps each, at a constant rate, no early stopping but divergence (A21).
3. `refined`: the fastest rates again, evaluated more often, where the interval is wider than 10 % (D5).
4. `seeds`: the fastest rate with fresh seeds, for the spread (A26).

A sweep trains the first round's space with everything but the learning rate at one value: regularization and
augmentation off (A22, A23), everything else in the middle of its range or where `Sweep.values` puts it. All trials of a
grid share one seed, so that only the rate differs.

Each stage is a study in the Ledger, so an interrupted sweep is continued. A rate that FAILED is not a rate that did
not fit: it is trained once more, and where it fails again the sweep has no answer (TrialsFailed names it).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from tuner.analysis.fit_steps import fit_steps_frame
from tuner.analysis.frames import study_frames
from tuner.analysis.study_frames import StudyFrames
from tuner.analysis.sweep_outcome import LEAST_WIDTH, not_fitted, sweep_outcome, with_seeds
from tuner.analysis.sweep_records import (
    SweepRecords,
    failed_of,
    failed_rates,
    fits_of_stages,
    refuse_failed_rates,
    sweep_records,
)
from tuner.budget.families import constant
from tuner.budget.step_budget import StepBudget
from tuner.design.campaign import Campaign, Sweep
from tuner.design.hyperparameters import Condition, Constant, Hyperparameter, Range, Value
from tuner.design.names import EMA_STEPS, Name
from tuner.design.objective import HOW_TO_DECLARE_A_FIT
from tuner.design.own_loop import OwnLoop
from tuner.design.points import Point
from tuner.design.seeds import derived_seed
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, TrialsFailed
from tuner.execution.inspection import inspect
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.records.conclusions import SweepConclusion
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted, SweepOutcome
from tuner.rounds.launch import Session, launch_study, started_study
from tuner.rounds.plan import words_of_updates


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
    def optimizer(self) -> str | None:
        """That of the sweep, or of the campaign; None where the loop makes its own."""
        optimizer: str | None = self.sweep.optimizer or self.campaign.optimizer
        return optimizer

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
        """A budget with the evaluation steps of the shorter probes, so that longer trials can inherit shorter ones."""
        budget = StepBudget.with_evaluations(min(self.sweep.start_steps, steps), self.evaluations)
        while budget.max_train_steps < steps:
            budget = budget.lengthened(min(2 * budget.max_train_steps, steps), self.evaluations)
        return budget

    def study(self, name: str, budget: StepBudget, num_trials: int) -> Study:
        """A study of constant rates, without augmentation, and of the weights themselves.

        Averages of them would not train faster: they come some `ema_steps` later to where the weights are already, and
        the sweep asks how many steps the training needs.
        """
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
            **words_of_updates(self.campaign) | {EMA_STEPS: 0},
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
    """The plan of a sweep, with one value for everything but the learning rate. Raises DeclarationError."""
    if campaign.workload.fitted_when is None:
        raise DeclarationError(
            f"{type(campaign.workload).__name__} declares no fit criterion, so a sweep cannot know when the training "
            f"set is fitted; write fitted_when = {HOW_TO_DECLARE_A_FIT} in the class"
        )
    space = campaign.rounds[0].space
    if space is None:
        raise DeclarationError("a sweep takes its hyperparameters from the first round's space, and there is none")
    chosen = _chosen_by_loop(space, sweep.values) if isinstance(campaign.workload, OwnLoop) else {}
    optimizer = chosen.get("optimizer") or sweep.optimizer or campaign.optimizer
    values = chosen | sweep_values(space, str(optimizer or ""), sweep.values)
    if not isinstance(campaign.workload, OwnLoop) and EMA_STEPS not in sweep.values:
        values.pop(EMA_STEPS, None)
    return SweepPlan(campaign, sweep, tuple(values.items()))


def _chosen_by_loop(space: SearchSpace, given: Mapping[str, Value]) -> dict[str, Value]:
    """The optimizer of a sweep that a loop reads from its point: as given, or the first of those it chooses from."""
    first = next(iter(space.optimizers), None)
    return {} if first is None else {"optimizer": given.get("optimizer", first)}


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


PROBE_EVERY = 3  # every third rate of the grid is probed: about one a decade
NEIGHBOURS = 2  # grid rates on each side of the best probe that are tried before giving up at the cap
REFINED_WIDTH = 0.05  # [P] an evaluation interval of the refinement, as a share of the steps to fit
SEED_ROOM = 2  # [P] fresh seeds get so many times N steps: the one that won was selected for being fast
MAX_EXTENSIONS = 3  # times an invalid grid is extended without asking anybody


def chosen_sweep(session: Session, learning_rates: Sequence[float] | None, extend: bool) -> Sweep:
    """The declared sweep with another grid: the given one, or with `extend` the extension of the last invalid one.

    extend: where the extension has ended already, its grid is returned again, so that the same call repeats nothing.
    Raises DeclarationError for both at once, and where there is nothing to extend.
    """
    declared = session.campaign.sweep or Sweep()
    if learning_rates is not None:
        if extend:
            raise DeclarationError(
                "--extend extends the last grid and --learning-rates gives a new one; say one of them"
            )
        return replace(declared, learning_rate=tuple(sorted(set(learning_rates))))
    if not extend:
        return declared
    last = sweep_records(session.ledger, session.name)
    if last is not None and isinstance(last.outcome, Invalid):
        return replace(declared, learning_rate=last.outcome.extended_grid)
    if last is not None and _is_extension(session, last):
        return replace(declared, learning_rate=_rates(last.frames))
    raise DeclarationError(
        "there is no invalid sweep to extend; run `tuner sweep` first, or give a grid with --learning-rates"
    )


def _is_extension(session: Session, last: SweepRecords) -> bool:
    """Whether the grid of a sweep is that of an earlier one and more."""
    names = [row.study.name for row in session.ledger.studies(session.name)]
    grids = [name for name in names if name.startswith("sweep-") and name.endswith("-grid")]
    mine = set(_rates(last.frames))
    return any(set(_rates(study_frames(session.ledger, session.name, name))) < mine for name in grids)


def _rates(frames: StudyFrames) -> tuple[float, ...]:
    """The learning rates of a sweep's grid, ascending."""
    return tuple(sorted(fit_steps_frame(frames)["learning_rate"]))


def run_sweep(session: Session, sweep: Sweep, *, again: bool = False, retry_failed: bool = False) -> SweepOutcome:
    """Run or continue a sweep and store its outcome. Trials that are in the Ledger already are not trained again.

    again: train it again although it came to an end, because what it was run under changed (A16). Raises TrialsFailed
    where a rate FAILED twice.
    """
    plan = sweep_plan(session.campaign, sweep)
    name = _sweep_name(session, plan)
    concluded = sweep_records(session.ledger, session.name)
    if concluded is not None and concluded.name == name:
        if not again and not failed_rates(session.ledger, session.name, name):
            return concluded.outcome
        name = f"sweep-{len(_known_sweeps(session)) + 1}" if again else name
    check_sweep(session.loaded, plan)
    outcome = _Stages(session, plan, name, retry_failed=retry_failed).outcome()
    session.ledger.conclude(session.name, SweepConclusion(name, sweep.margin, outcome))
    return outcome


def settled_outcome(session: Session, sweep: Sweep) -> SweepOutcome | None:
    """The outcome of a later sweep that replaced this one because it was not valid; None without one."""
    last = sweep_records(session.ledger, session.name)
    if last is None or isinstance(last.outcome, Invalid) or failed_rates(session.ledger, session.name, last.name):
        return None
    return (
        last.outcome
        if started_study(session, f"{_sweep_name(session, sweep_plan(session.campaign, sweep))}-grid")
        else None
    )


def check_sweep(loaded: LoadedWorkload, plan: SweepPlan) -> None:
    """Raise WorkloadError when the workload still regularizes or augments at its off values (A22, A23, D2)."""
    study = plan.study("sweep", StepBudget.with_evaluations(plan.sweep.start_steps, plan.evaluations), 1)
    trial = plan.trials(study, plan.rates[:1])[0]
    inspect(loaded, study, [trial], validation_seconds=None, without_randomness=True)


class _Stages:
    """The stages of one sweep; each stage is a separate study."""

    def __init__(self, session: Session, plan: SweepPlan, name: str, *, retry_failed: bool = False) -> None:
        self.session = session
        self.retry_failed = retry_failed
        self.plan = plan
        self.name = name

    def outcome(self) -> SweepOutcome:
        enough = self._enough_steps()
        if isinstance(enough, NotFitted):
            return enough
        fits = self._fits("grid", self.plan.rates, self.plan.budget(enough))
        outcome = sweep_outcome(fits, enough)
        if _is_coarse(outcome):
            outcome = self._refined(fits, outcome, enough)
        if isinstance(outcome, Fitted):
            return self._with_seeds(outcome)
        return outcome

    def _enough_steps(self) -> int | NotFitted:
        """The first N, doubled from the start, at which some rate fits; or that none does up to the cap (A20)."""
        sweep = self.plan.sweep
        steps, probes, stage = sweep.start_steps, self.plan.rates[PROBE_EVERY // 2 :: PROBE_EVERY], "probe"
        tried: list[pd.DataFrame] = []  # at this length
        while True:
            tried.append(self._fits(f"{stage}-{steps}", probes, self.plan.budget(steps)))
            if tried[-1]["first_fit"].notna().any():
                return steps
            if not (tried[-1]["state"] == "complete").any():
                if probes[0] == self.plan.rates[0]:
                    return not_fitted(fits_of_stages(tried), steps)
                # All diverged: only the lowest rates are left.
                probes, stage = self.plan.rates[: PROBE_EVERY // 2 + 1], "lowest"
            elif steps >= sweep.max_steps:
                return self._last_try(tried, steps)
            else:
                steps, tried = min(2 * steps, sweep.max_steps), []

    def _last_try(self, tried: list[pd.DataFrame], steps: int) -> int | NotFitted:
        """Before giving up at the cap: the rates of the grid around the best probe."""
        best = not_fitted(fits_of_stages(tried), steps).best_learning_rate
        place = self.plan.rates.index(best) if best is not None else 0
        near = self.plan.rates[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
        more = self._fits(f"last-{steps}", near, self.plan.budget(steps))
        if more["first_fit"].notna().any():
            return steps
        return not_fitted(fits_of_stages([*tried, more]), steps)

    def _refined(self, fits: pd.DataFrame, coarse: SweepOutcome, enough: int) -> SweepOutcome:
        """Evaluate the fastest rates (all that tie) more finely (D5). The same rates train the same way again."""
        fastest = fits.sort_values("first_fit", kind="stable").iloc[0]
        low, high = int(fastest["last_unfit"]), int(fastest["first_fit"])
        tied = tuple(float(rate) for rate in fits.loc[fits["last_unfit"] < high, "learning_rate"])
        every = max(1, int(REFINED_WIDTH * max(low, high // 2)))
        fine = self._fits("refined", tied, StepBudget(min(enough, 2 * high), every))
        finer = fits.set_index("learning_rate")
        for row in fine[fine["first_fit"].notna()].to_dict("records"):
            finer.loc[row["learning_rate"], ["last_unfit", "first_fit"]] = [row["last_unfit"], row["first_fit"]]
        judged = sweep_outcome(finer.reset_index(), enough)
        return coarse if isinstance(judged, NotFitted) else judged

    def _with_seeds(self, outcome: Fitted) -> Fitted:
        """The fastest rate with fresh seeds: the trial that won is left out, it was selected for being fast (B32)."""
        budget = StepBudget(SEED_ROOM * outcome.max_steps, max(1, int(REFINED_WIDTH * outcome.high)))
        study = self.plan.study(f"{self.name}-seeds", budget, self.plan.sweep.seeds)
        return with_seeds(outcome, self._trained(study, self.plan.seed_trials(study, outcome.learning_rate)))

    def _fits(self, stage: str, rates: tuple[float, ...], budget: StepBudget) -> pd.DataFrame:
        name = f"{self.name}-{stage}"
        started = started_study(self.session, name)  # perhaps by a version that evaluated elsewhere
        if started is not None and started.study.budget.max_train_steps == budget.max_train_steps:
            budget = started.study.budget
        study = self.plan.study(name, budget, len(rates))
        return self._trained(study, self.plan.trials(study, rates))

    def _trained(self, study: Study, trials: Sequence[Trial]) -> pd.DataFrame:
        """The fits of a stage. Raises TrialsFailed where a trial of it FAILED, the second time too."""
        try:
            launch_study(self.session, study, trials, second_try=True, retry_failed=self.retry_failed)
        except TrialsFailed:
            self._fits_of(study)
            raise
        return self._fits_of(study)

    def _fits_of(self, study: Study) -> pd.DataFrame:
        session = self.session
        fits = fit_steps_frame(study_frames(session.ledger, session.name, study.name))
        refuse_failed_rates(failed_of(fits, study.name), session.called)
        return fits


def _is_coarse(outcome: SweepOutcome) -> bool:
    """Whether finer evaluations can change the answer: a wide interval, or a tie with an end of the grid (D5)."""
    if isinstance(outcome, Invalid):
        return outcome.ambiguous
    return isinstance(outcome, Fitted) and outcome.width > LEAST_WIDTH


def _sweep_name(session: Session, plan: SweepPlan) -> str:
    """The name of this sweep: unchanged for the same declaration, the next number for another grid or criterion.

    The criterion decides when a trial fitted, and so how long the next one is.
    """
    sweeps = _known_sweeps(session)
    for name, study in reversed(sweeps.items()):
        if dict(study.lineage)["sweep"] == plan.digest and study.fitted_when == plan.campaign.workload.fitted_when:
            return name
    return f"sweep-{len(sweeps) + 1}"


def _known_sweeps(session: Session) -> dict[str, Study]:
    """Sweeps by name, in the order of their start, each with one of its studies."""
    known = session.ledger.studies(session.name) if session.name in session.ledger.campaigns() else []
    return {"-".join(row.study.name.split("-")[:2]): row.study for row in known if row.study.kind == "sweep"}
