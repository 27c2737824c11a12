"""What a study file declares: one workload, its sweep and its rounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tuner.budget.families import constant_then_decay
from tuner.budget.schedules import ScheduleFamily, Transfer
from tuner.design.hyperparameters import Value, log_grid
from tuner.design.names import Name
from tuner.design.objective import HOW_TO_DECLARE_A_FIT, FitCriterion, Objective
from tuner.design.optimizers import OPTIMIZERS
from tuner.design.space import SearchSpace
from tuner.design.workload import Workload
from tuner.errors import DeclarationError

Regime = Literal["compute_bound", "not_compute_bound", "undecided"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The constant-learning-rate study that suggests a step budget (A18-A26).

    learning_rate: the grid, ascending; `log_grid` makes one of 3 values a decade.
    optimizer: the optimizer of the sweep; by default the campaign's.
    values: values of hyperparameters of the first round's space; without one the sweep takes the middle of a range.
    start_steps: the number of steps at which the search begins; it doubles until the training set is fitted.
    max_steps: the number of steps at which the search ends without a result.
    seeds: how often the best rate is trained again with new seeds, to measure the spread of the steps to fit.
    margin: the budget of round 1 is this many times the steps to fit (in doubt longer, A9).
    """

    learning_rate: tuple[float, ...] = field(default_factory=lambda: log_grid(1e-4, 1.0))
    optimizer: str | None = None
    start_steps: int = 250
    max_steps: int = 16_000
    seeds: int = 5
    margin: float = 2.0
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, tuple | list):
            raise DeclarationError(
                f"a sweep's learning_rate is a grid, like log_grid(1e-4, 1.0), got {self.learning_rate!r}"
            )
        object.__setattr__(self, "learning_rate", tuple(self.learning_rate))
        grid = self.learning_rate
        usable = all(rate > 0 and math.isfinite(rate) for rate in grid)
        if not usable or len(grid) < 3 or list(grid) != sorted(set(grid)):
            raise DeclarationError(
                f"a sweep needs at least 3 positive learning rates in ascending order, got {list(grid)}"
            )
        for name, count in (("start_steps", self.start_steps), ("max_steps", self.max_steps), ("seeds", self.seeds)):
            _check_count(name, count)
        if self.start_steps > self.max_steps:
            raise DeclarationError(f"start_steps must lie in 1..max_steps, got {self.start_steps} and {self.max_steps}")
        if not (math.isfinite(self.margin) and self.margin >= 1):
            raise DeclarationError(f"margin must be a number of at least 1 (in doubt longer, A9), got {self.margin}")


@dataclass(frozen=True, slots=True)
class Round:
    """One goal, and the study that answers it.

    goal: the question, in words (B9).
    trials: how many points are searched. With promote=N they lie around the winner: values that transfer to longer
        training are fixed, ranges that may transfer are narrowed, and the schedule is tuned again (A36).
    space: what varies; None for a round that takes its points, or its space, from the round before.
    promote: how many of the best points of the round before are trained in this one.
    max_train_steps: the budget in steps; None: from the sweep, the round before, or the production length.
    scientific: names of the hyperparameters that the goal is about; all others that vary are nuisances, tuned so that
        the comparison is fair (B10). Empty: the goal is the best configuration.
    fresh: how many promoted points, best first, are trained a second time with new seeds; None: two, the winner and a
        rival (A32). The first training of a point continues from the shared steps before the decay, so it has the luck
        of the seeds of the round before. In a round that is no longer than the one before, every training has new
        seeds: promote=3, fresh=2 trains three points with one new seed each, and the best two with a second one.
    transfer: how schedules are carried over from the round before: "hold_then_decay", "rescale" or "retune"; None: by
        the rule of their family. A family without a rule raises an error (A40-A43).
    rate_arms: multiples of the base rate at which the winner is trained, because the best rate falls with the length of
        training (D20).
    """

    goal: str
    trials: int | None = None
    space: SearchSpace | None = None
    promote: int | None = None
    max_train_steps: int | None = None
    scientific: tuple[str, ...] = ()
    fresh: int | None = None
    transfer: Transfer | None = None
    rate_arms: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.goal.strip():
            raise DeclarationError("a round needs a goal in words (B9): the one question it answers")
        if (self.space is None) == (self.promote is None):
            raise DeclarationError(
                f"round {self.goal!r} needs either a space (new points) or promote=N (the best points of the "
                "round before), and not both"
            )
        for name in ("trials", "promote", "max_train_steps"):
            if getattr(self, name) is not None:
                _check_count(f"{name} of round {self.goal!r}", getattr(self, name))
        if self.space is not None:
            self._check_space(self.space)
        check_promoting(self)

    @property
    def num_fresh(self) -> int:
        """How many promoted points are trained again with new seeds, where their first training has the old ones."""
        promoted = self.promote or 0
        return min(2, promoted) if self.fresh is None else self.fresh

    def _check_space(self, space: SearchSpace) -> None:
        if not isinstance(space, SearchSpace):
            raise DeclarationError(f"the space of round {self.goal!r} must be a SearchSpace(...), got {space!r}")
        if self.trials is None:
            raise DeclarationError(f"round {self.goal!r} has a space but no number of trials; give trials=32, say")
        if len(space) == 0:
            raise DeclarationError(f"the space of round {self.goal!r} varies nothing; give at least one range")
        self._check_roles(space)

    def _check_roles(self, space: SearchSpace) -> None:
        if isinstance(self.scientific, str):
            raise DeclarationError(
                f"scientific is a tuple of names, got {self.scientific!r}; write ({self.scientific!r},)"
            )
        object.__setattr__(self, "scientific", tuple(self.scientific))
        known = [hyperparameter.name for hyperparameter in space]
        unknown = [name for name in self.scientific if name not in known]
        if unknown or len(set(self.scientific)) < len(self.scientific):
            raise DeclarationError(
                f"scientific names {', '.join(map(str, unknown)) or 'one twice'} in round {self.goal!r}, and each "
                f"must be a hyperparameter that varies there, once: {', '.join(known)} (B10)"
            )


@dataclass(frozen=True, slots=True)
class Campaign:
    """One workload, its sweep and its rounds.

    optimizer: the name of an optimizer, unless a search space chooses it; an unknown one is refused with all names.
    schedule, warmup_steps: the learning rate schedule of every round's trials, the warmup in steps (D18).
    production_steps: the full length of a compute-bound workload; None where the sweep finds the budget.
    regime: declared by the user; None: decided from the evidence (A1).
    evaluations: evaluations of each trial, at equal distances in steps (B40); below 20 verdicts are refused (D14).
    keep_best: checkpoints kept of each trial, besides the latest (B44).
    name: how the storage knows it; by default the study file's name.
    """

    workload: Workload
    rounds: tuple[Round, ...] | list[Round]
    optimizer: str = "adamw"
    schedule: ScheduleFamily = field(default_factory=constant_then_decay)
    warmup_steps: int = 0
    sweep: Sweep | None = None
    production_steps: int | None = None
    regime: Regime | None = None
    evaluations: int = 50
    keep_best: int = 1
    seed: int = 0
    name: str | None = None

    def __post_init__(self) -> None:
        _check_workload(self.workload)
        if not isinstance(self.rounds, tuple | list) or not all(isinstance(one, Round) for one in self.rounds):
            raise DeclarationError(f"rounds is a list of Round(...), got {self.rounds!r}")
        object.__setattr__(self, "rounds", tuple(self.rounds))
        if not self.rounds:
            raise DeclarationError("a campaign needs at least one round: rounds=[Round('...', trials=32, space=...)]")
        if self.rounds[0].space is None:
            raise DeclarationError("the first round has no round before it to promote from; give it a space")
        self._check_optimizers()
        if not isinstance(self.schedule, ScheduleFamily):
            raise DeclarationError(f"schedule is made by constant(), linear(), cosine(), ..., got {self.schedule!r}")
        if self.regime is not None and self.regime not in get_args(Regime):
            raise DeclarationError(f"regime is one of {', '.join(get_args(Regime))}, got {self.regime!r}")
        self._check_counts()
        if self.sweep is not None:
            self._check_sweep(self.sweep)

    def _check_counts(self) -> None:
        _check_count("evaluations", self.evaluations)
        _check_count("keep_best", self.keep_best)
        _check_count("warmup_steps", self.warmup_steps, at_least=0)
        _check_count("seed", self.seed, at_least=0)
        if self.production_steps is not None:
            _check_count("production_steps", self.production_steps)
            self._check_production(self.production_steps)

    def _check_production(self, production_steps: int) -> None:
        for number, one in enumerate(self.rounds, 1):
            if one.max_train_steps is not None and one.max_train_steps > production_steps:
                raise DeclarationError(
                    f"round {number} declares {one.max_train_steps:,} steps, more than production_steps = "
                    f"{production_steps:,}; the production length is that of the longest, final runs (A28)"
                )

    def _check_sweep(self, sweep: Sweep) -> None:
        if not isinstance(sweep, Sweep):
            raise DeclarationError(f"sweep is made by Sweep(...), got {sweep!r}")
        if sweep.optimizer is not None:
            OPTIMIZERS.get(sweep.optimizer)
        if self.workload.fitted_when is None:
            raise DeclarationError(
                f"a sweep asks when the training set is fitted, and {type(self.workload).__name__} does not say; write "
                f"fitted_when = {HOW_TO_DECLARE_A_FIT}, in the class. For a language model, or labels that are partly "
                "wrong, leave the sweep out and declare production_steps, or max_train_steps on the first round"
            )
        for one in self.rounds:
            if one.space is not None:
                one.space.off_values()

    def _check_optimizers(self) -> None:
        OPTIMIZERS.get(self.optimizer)
        for space in (one.space for one in self.rounds if one.space is not None):
            for optimizer in space.optimizers:
                OPTIMIZERS.get(optimizer)
            _check_settings(space, self.optimizer)

    def round(self, number: int) -> Round:
        """Round `number`, counted from 1. Raises DeclarationError for one that is not declared."""
        if not 1 <= number <= len(self.rounds):
            raise DeclarationError(f"there is no round {number}; this campaign declares 1..{len(self.rounds)}")
        return self.rounds[number - 1]


def _check_settings(space: SearchSpace, optimizer: str) -> None:
    """Raise DeclarationError for a setting that no optimizer of the space reads, and for one given in two ways.

    A setting that only optimizers of plugins have may be the name of something else in a workload: it is let pass.
    """
    used = [str(one) for one in space.optimizers] or [optimizer]
    names = [hyperparameter.name for hyperparameter in space] + [name for name, _ in space.fixed]
    for name in map(Name.of, names):
        trained = [name.branch] if name.branch in OPTIMIZERS else used
        readers = [spec.name for spec in OPTIMIZERS if spec.setting(name.short)]
        if any(spec.name in readers for spec in OPTIMIZERS.own) and not set(trained) & set(readers):
            raise DeclarationError(
                f"{name} would change nothing: it is read by {' and '.join(readers)} only, and the trials train with "
                f"{', '.join(trained)}; leave it out, or give it another name if the workload reads it"
            )
        for setting in (OPTIMIZERS.get(each).setting(name.short) for each in trained):
            other = str(Name(name.branch, setting.same_as)) if setting and setting.same_as else ""
            if other in names:
                raise DeclarationError(f"{other} and {name} say the same of one optimizer; declare one of them")


def check_promoting(declared: Round) -> None:
    """Raise DeclarationError for arguments that need promote=N where it is missing, and for values out of range."""
    where = f"round {declared.goal!r}"
    if declared.promote is None:
        given = [name for name, value in (("fresh", declared.fresh), ("transfer", declared.transfer)) if value]
        given += ["rate_arms"] if tuple(declared.rate_arms) != (1.0,) else []
        if given:
            raise DeclarationError(
                f"{where} has {' and '.join(given)}, which say how points of the round before are carried over, but "
                "it promotes none; give promote=N, or leave them out"
            )
        return
    if declared.fresh is not None:
        _check_count(f"fresh of {where}", declared.fresh, at_least=0)
        if declared.fresh > declared.promote:
            raise DeclarationError(
                f"{where} wants {declared.fresh} promoted points with fresh seeds and promotes {declared.promote}; "
                "give fresh of at most promote"
            )
    if declared.transfer is not None and declared.transfer not in get_args(Transfer):
        raise DeclarationError(f"transfer is one of {', '.join(get_args(Transfer))}, got {declared.transfer!r}")
    _check_arms(where, declared.rate_arms)


def _check_arms(where: str, arms: object) -> None:
    usable = isinstance(arms, tuple | list) and all(isinstance(arm, int | float) for arm in arms)
    values = [float(arm) for arm in arms] if usable else []  # type: ignore[attr-defined]
    if (
        not usable
        or 1.0 not in values
        or len(set(values)) < len(values)
        or not all(0 < arm < math.inf for arm in values)
    ):
        raise DeclarationError(
            f"rate_arms of {where} are different positive multiples of the base rate, 1 among them, like (1.0, 0.5); "
            f"got {arms!r} (D20)"
        )


def _check_count(name: str, count: object, at_least: int = 1) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < at_least:
        raise DeclarationError(f"{name} must be a whole number of at least {at_least}, got {count!r}")


def _check_workload(workload: Workload) -> None:
    name = type(workload).__name__
    if not isinstance(workload, Workload):
        raise DeclarationError(f"a campaign needs an instance of a Workload subclass, like Digits(), got {workload!r}")
    for attribute, example in (("batch_size", "64"), ("select_by", 'minimize("validation/loss")')):
        if not hasattr(workload, attribute):
            raise DeclarationError(f"{name} declares no {attribute}; write {attribute} = {example} in the class")
    _check_count(f"{name}.batch_size", workload.batch_size)
    _check_count(f"{name}.evaluation_batch_size", workload.evaluation_batch_size)
    if workload.training_evaluation_examples is not None:
        _check_count(f"{name}.training_evaluation_examples", workload.training_evaluation_examples)
    if not isinstance(workload.select_by, Objective):
        raise DeclarationError(
            f'{name}.select_by is made by minimize("validation/loss") or maximize(...), got {workload.select_by!r}'
        )
    if workload.fitted_when is not None and not isinstance(workload.fitted_when, FitCriterion):
        raise DeclarationError(
            f'{name}.fitted_when is made by at_most("training/error_rate", 0.0), got {workload.fitted_when!r}'
        )
    _check_not_averaged(workload)


def _check_not_averaged(workload: Workload) -> None:
    name, apart = type(workload).__name__, workload.not_averaged
    if not isinstance(apart, tuple | list) or not all(isinstance(one, str) for one in apart):
        example = repr((apart,)) if isinstance(apart, str) else '("score", "positive")'
        raise DeclarationError(f"{name}.not_averaged is a tuple of names of metrics, like {example}, got {apart!r}")
    if apart and not workload.declares("split_metrics"):
        raise DeclarationError(
            f"{name}.not_averaged names {', '.join(map(repr, apart))}, which nothing would read: declare "
            "split_metrics(self, each), or leave it out"
        )
    if workload.split_metrics_device not in ("cpu", "same"):
        raise DeclarationError(
            f"{name}.split_metrics_device is 'cpu', or 'same' for the device where the models train, got "
            f"{workload.split_metrics_device!r}"
        )
    for declared, metric in (("select_by", workload.select_by), ("fitted_when", workload.fitted_when)):
        if metric is not None and metric.measured.name in apart:
            raise DeclarationError(
                f"{name}.{declared} reads {metric.metric!r}, but not_averaged names {metric.measured.name!r}: it has "
                "no mean and no curve; name a metric that split_metrics returns, or one that is averaged"
            )
