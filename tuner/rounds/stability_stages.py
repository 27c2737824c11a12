"""`tuner stability`: rates above the best one, then warmups to a rate far above the unstable one (B36, B37).

Both are studies of their own, of the kind "stability": nothing of the rounds rests on them. Loss and gradient norm of
each update are recorded (`Study.traced_every`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tuner.analysis.frames import study_frames
from tuner.analysis.round_frames import main_rounds, round_frames, round_number, row_of_trial
from tuner.analysis.stability_records import EARLY, KIND, StabilityRecords, stability_records, training_loss
from tuner.budget.families import constant
from tuner.budget.step_budget import StepBudget
from tuner.design.origin import Origin
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import DeclarationError, StorageError
from tuner.records import TrialRecord
from tuner.records.budget_origin import BudgetOrigin
from tuner.records.conclusions import StabilityStudies
from tuner.rounds.launch import Plan, Session, known_promises, launch_study, plan_study
from tuner.rounds.plan import trial_at
from tuner.rounds.promotion import best_trial
from tuner.storage.studies import StudyRow

ABOVE = (2.0, 5.0, 10.0)  # [S] multiples of the best rate (B36)
STEPS = 500  # [S] of an abbreviated run (B36)
SEEDS = 3  # [P] of each rate and of each warmup
FACTOR = 10.0  # [S] the base rate of the warmups is so many times the unstable one (B37)
HOLD = 2  # [S] steps at the base rate for each step of the warmup (B37)
EVALUATIONS = 20  # [P] of a trial whose updates are traced
REPORTS = 100  # [P] of a trial of a loop, which shows its loss at evaluations alone
SHORTEST = 10  # steps of the shortest warmup that is tried by default


@dataclass(frozen=True, slots=True)
class AskedStability:
    """What a stability study is asked for.

    above: multiples of the best rate. steps: of each trial at a constant rate; a float is a share of the budget; None:
    STEPS after the present warmup, or the budget where that is shorter. warmups: in steps; None: 10, 100, ... up to a
    tenth of the budget. factor: the base rate of the warmups, in multiples of the unstable rate.
    """

    above: tuple[float, ...] = ABOVE
    steps: int | float | None = None
    seeds: int = SEEDS
    warmups: tuple[int, ...] | None = None
    factor: float = FACTOR

    def __post_init__(self) -> None:
        usable = all(1.0 < multiple < float("inf") for multiple in self.above)
        if not self.above or not usable or list(self.above) != sorted(set(self.above)):
            raise DeclarationError(
                f"above takes multiples of the best learning rate, larger than 1, ascending, each once, like 2,5,10; "
                f"got {list(self.above)}"
            )
        share = isinstance(self.steps, float)
        if self.steps is not None and not (0.0 < self.steps <= 1.0 if share else self.steps >= 1):
            raise DeclarationError(
                f"steps is a number of steps, like 500, or a share of the budget, like 0.2; got {self.steps!r}"
            )
        if self.seeds < 1:
            raise DeclarationError(f"seeds must be at least 1, got {self.seeds}")
        if not 1.0 <= self.factor < float("inf"):
            raise DeclarationError(f"factor must be at least 1, and 10 or more is usual (B37); got {self.factor:g}")
        if self.warmups is not None and (
            not self.warmups or min(self.warmups) < 1 or list(self.warmups) != sorted(set(self.warmups))
        ):
            raise DeclarationError(
                f"warmups takes steps, ascending, each once, like 10,100,1000; got {list(self.warmups)}"
            )


@dataclass(frozen=True, slots=True)
class StabilityStage:
    """A study of the stability study, with its trials."""

    study: Study
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class StabilityPlan:
    """What is trained around one trial: `record` of the study `row`."""

    row: StudyRow
    record: TrialRecord
    asked: AskedStability
    traced: bool = True

    @property
    def budget(self) -> int:
        """max_train_steps of the trial."""
        return self.row.study.budget.max_train_steps

    @property
    def rate(self) -> float:
        """Its learning rate."""
        return self.record.point.number("learning_rate")

    @property
    def present_warmup(self) -> int:
        return self.record.schedule.warmup_steps if self.record.schedule else 0

    @property
    def steps(self) -> int:
        """Of each trial at a constant rate."""
        steps, warmup = self.asked.steps, self.present_warmup
        if steps is None:
            return min(self.budget, warmup + STEPS)
        return max(warmup + 1, round(steps * self.budget) if isinstance(steps, float) else steps)

    @property
    def warmups(self) -> tuple[int, ...]:
        """The lengths to try, in steps, the shortest first; longer than the present one."""
        longest = int(EARLY * self.budget)
        if self.asked.warmups is not None:
            return self.asked.warmups
        powers = [SHORTEST**power for power in range(1, len(str(longest)) + 1)]
        lengths = {*(power for power in powers if power < longest), longest}
        return tuple(sorted(length for length in lengths if length > max(1, self.present_warmup)))

    def rates_stage(self) -> StabilityStage:
        """The best rate and those above it, each constant after the present warmup."""
        multiples = (1.0, *self.asked.above)
        names = "-".join(f"{multiple:g}x" for multiple in self.asked.above)
        study = self._study(f"{names}-{self.steps}", self.steps, len(multiples))
        places = (divmod(number, len(multiples)) for number in range(study.num_trials))  # more seeds extend the study
        trials = [
            self._trial(study, number, multiples[place], self.present_warmup, seed)
            for number, (seed, place) in enumerate(places)
        ]
        return StabilityStage(study, tuple(trials))

    def warmup_stage(self, warmup: int, unstable: float) -> StabilityStage:
        """A linear warmup of so many steps to `factor` times the unstable rate (a multiple), then twice as many."""
        multiple = self.asked.factor * unstable
        study = self._study(f"warmup-{warmup}-to-{multiple:g}x", (1 + HOLD) * warmup, 1)
        trials = [self._trial(study, number, multiple, warmup, number) for number in range(study.num_trials)]
        return StabilityStage(study, tuple(trials))

    def _study(self, name: str, steps: int, each_seed: int) -> Study:
        evaluations = EVALUATIONS if self.traced else REPORTS
        source, number = self.row.study, self.record.number
        return replace(
            source,
            name=f"stability-{source.name}-trial-{number}-{name}",
            kind=KIND,
            goal="Does instability limit the learning rate?",
            budget=StepBudget.with_evaluations(steps, evaluations),
            num_trials=self.asked.seeds * each_seed,
            schedule=constant(),
            keep_best=1,
            patience_steps=0,
            round=None,
            lineage=((source.name, f"trial {number}"),),
            scientific=(),
        )

    def _trial(self, study: Study, number: int, multiple: float, warmup: int, seed: int) -> Trial:
        """The point at another rate; the first seed is that of the recorded trial, and all rates share their seeds."""
        record = self.record
        point = record.point.with_values(learning_rate=multiple * self.rate)
        origin = Origin(self.row.study.name, record.number, "same" if seed == 0 else "fresh", multiple)
        schedule = study.schedule.schedule(study.budget.max_train_steps, warmup)
        trial = replace(trial_at(study, number, point, str(origin), schedule), pins=())
        if seed == 0:
            return replace(trial, seed=record.seed, data_seed=record.data_seed)
        fresh = [derived_seed(kind, record.seed, "stability", seed) for kind in ("trial", "data")]
        return replace(trial, seed=fresh[0], data_seed=fresh[1])


def stability_plan(
    session: Session, asked: AskedStability, number: int | None = None, trial: int | None = None
) -> StabilityPlan:
    """What would be trained around a trial; by default around the best one of the last round with a complete trial.

    Raises DeclarationError and StorageError where that is not possible.
    """
    place = _last_concluded(session) if number is None else number
    trial = best_trial(session, place) if trial is None else trial
    row, record = row_of_trial(session.ledger, session.name, place, trial)
    _check(session, row, record)
    return StabilityPlan(row, record, asked, traced=not session.loaded.trains_itself)


def priced_stability(session: Session, plan: StabilityPlan) -> list[Plan]:
    """What it costs: the rates, and all warmups, of which the longer ones are trained only where shorter ones fail."""
    stages = [plan.rates_stage(), *(plan.warmup_stage(steps, plan.asked.above[0]) for steps in plan.warmups)]
    return [plan_study(session, stage.study, stage.trials) for stage in stages]


def train_rates(session: Session, plan: StabilityPlan, *, retry_failed: bool = False) -> StabilityRecords:
    """Train what is left of the rates, and note the study as the newest one; returns its records.

    Warmups that were trained around the same trial stay with it.
    """
    stage = plan.rates_stage()
    _launched(session, stage, retry_failed)
    before = session.ledger.conclusion(session.name, StabilityStudies)
    if before is None or before.rates != stage.study.name:
        session.ledger.conclude(session.name, StabilityStudies(stage.study.name))
    return stability_records(session.ledger, session.name)


def open_warmups(plan: StabilityPlan, records: StabilityRecords) -> tuple[StabilityStage, ...]:
    """The warmups to train, the shortest first; none where no rate is unstable, or where it becomes so too late."""
    row = records.unstable
    if row is None or not records.is_early or records.unfinished:
        return ()
    return tuple(plan.warmup_stage(steps, float(row["multiple"])) for steps in plan.warmups)


def train_warmups(
    session: Session, plan: StabilityPlan, records: StabilityRecords, *, retry_failed: bool = False
) -> StabilityRecords:
    """Train warmups, the shortest first, until one is stable; returns the records with them."""
    tried: list[str] = []
    rates = plan.rates_stage().study.name
    for stage in open_warmups(plan, records):
        _launched(session, stage, retry_failed)
        tried.append(stage.study.name)
        session.ledger.conclude(session.name, StabilityStudies(rates, tuple(tried)))
        records = stability_records(session.ledger, session.name)
        if records.shortest_warmup is not None or records.unfinished:
            break
    return records


def rows_of(session: Session) -> list[StudyRow]:
    """The studies of the newest stability study."""
    concluded = session.ledger.conclusion(session.name, StabilityStudies)
    names = (concluded.rates, *concluded.warmups) if concluded else ()
    return [session.ledger.study(session.name, name) for name in names]


def _launched(session: Session, stage: StabilityStage, retry_failed: bool) -> None:
    origin = BudgetOrigin("stability")
    launch_study(session, stage.study, stage.trials, budget_origin=origin, retry_failed=retry_failed)


def _last_concluded(session: Session) -> int:
    """The last round with a complete trial; the last one where none has."""
    return next(_concluded(session), round_number(session.ledger, session.name, None))


def _concluded(session: Session) -> Iterator[int]:
    for number in reversed(main_rounds(session.ledger, session.name)):
        if len(round_frames(session.ledger, session.name, number).selectable):
            yield number


def _check(session: Session, row: StudyRow, record: TrialRecord) -> None:
    if row.study.source or record.schedule is None:
        raise StorageError(f"trial {record.number} of {row.study.name} was trained elsewhere and cannot go on here")
    owner = type(session.campaign.workload).__name__
    if not known_promises(session, row.study).follows_schedule:
        raise DeclarationError(
            f"{owner} trains at learning rates of its own, so neither a higher rate nor a warmup can be tried; let it "
            "take trial.rate(step) for each step, or look at its own log for steps at which the loss rises (B36)"
        )
    if "learning_rate" not in record.point:
        raise DeclarationError(
            f"trial {record.number} of {row.study.name} has no learning_rate, so there is no rate to raise"
        )
    if session.loaded.trains_itself:
        frames = study_frames(session.ledger, session.name, row.study.name)
        if training_loss(frames)[0] not in frames.metrics:
            raise DeclarationError(
                f"{owner} reports no training loss, in which instability shows ({', '.join(sorted(frames.metrics))}); "
                "report it where trial.evaluates(step), as training/loss"
            )
