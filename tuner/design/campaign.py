"""What a study file declares: one workload, its sweep and its rounds."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal, Self, cast, get_args

from tuner.budget.by_share import declared_schedule
from tuner.budget.families import OWN, constant, constant_then_decay
from tuner.budget.schedules import ScheduleFamily
from tuner.budget.step_budget import StepBudget
from tuner.design.hyperparameters import Choice, Range, Value, log_grid
from tuner.design.names import Name
from tuner.design.objective import HOW_TO_DECLARE_A_FIT
from tuner.design.optimizers import OPTIMIZERS, optimizer_named, optimizer_of
from tuner.design.other_words import refuse_unknown
from tuner.design.own_loop import OwnLoop
from tuner.design.round import Round, check_stopping, checked_steps, is_open
from tuner.design.space import SearchSpace
from tuner.design.stages import StartFrom, rounds_with_start
from tuner.design.update_words import check_updates, check_updates_in, refuse_decay
from tuner.design.words import check_campaign, meant_as
from tuner.design.workload import Trainable
from tuner.design.workload_checks import check_count, check_names, check_workload_declared
from tuner.errors import DeclarationError

LONGEST_WARMUP = 0.20  # [P] of round 1; a longer one has to be written in steps (C9)
DEFAULT_OPTIMIZER = "adamw"
EVALUATIONS = 50  # of each trial, unless a campaign says otherwise
_LENGTHS_OF_A_CAMPAIGN = ("production_steps", "warmup_steps", "evaluate_every", "ema_steps")
_LENGTHS_OF_A_SWEEP = ("start_steps", "max_steps")
_LENGTHS_OF_A_ROUND = ("max_train_steps", "patience_steps")
OtherNumerics = Literal["mark", "refuse"]
Regime = Literal["compute_bound", "not_compute_bound", "undecided"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The constant-learning-rate study that suggests a step budget (A18-A26).

    learning_rate: the grid, ascending; `log_grid` makes one of 3 values a decade.
    optimizer: the optimizer of the sweep, given as that of a campaign, which is the default.
    values: values of hyperparameters of the first round's space; without one the sweep takes the middle of a range.
    start_steps: the number of steps at which the search begins; it doubles until the training set is fitted.
    max_steps: the number of steps at which the search ends without a result.
    seeds: how often the best rate is trained again with new seeds, to measure the spread of the steps to fit.
    margin: the budget of round 1 is this many times the steps to fit (in doubt longer, A9).
    """

    learning_rate: tuple[float, ...] = field(default_factory=lambda: log_grid(1e-4, 1.0))
    optimizer: Any = None
    start_steps: int = 250
    max_steps: int = 16_000
    seeds: int = 5
    margin: float = 2.0
    values: Mapping[str, Value] = field(default_factory=dict)

    def __new__(cls, *_: object, **words: object) -> Self:
        refuse_unknown(cls, words)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, tuple | list):
            raise DeclarationError(
                f"a sweep's learning_rate is a grid, like log_grid(1e-4, 1.0), got {self.learning_rate!r}"
            )
        object.__setattr__(self, "learning_rate", tuple(self.learning_rate))
        if self.optimizer is not None:
            object.__setattr__(self, "optimizer", optimizer_named(self.optimizer))
        grid = self.learning_rate
        usable = all(rate > 0 and math.isfinite(rate) for rate in grid)
        if not usable or len(grid) < 3 or list(grid) != sorted(set(grid)):
            raise DeclarationError(
                f"a sweep needs at least 3 positive learning rates in ascending order, got {list(grid)}"
            )
        check_count("seeds", self.seeds)
        lengths = [checked_steps(name, getattr(self, name)) for name in _LENGTHS_OF_A_SWEEP]
        if not any(map(is_open, lengths)) and self.start_steps > self.max_steps:
            raise DeclarationError(f"start_steps must lie in 1..max_steps, got {self.start_steps} and {self.max_steps}")
        if not (math.isfinite(self.margin) and self.margin >= 1):
            raise DeclarationError(f"margin must be a number of at least 1 (in doubt longer, A9), got {self.margin}")


@dataclass(frozen=True, slots=True)
class Campaign:
    """One workload, its sweep and its rounds.

    optimizer: unless a search space chooses it, "adamw" by default: a name; a class, torch.optim.RMSprop, which is
        called with what the point has of its keywords; or a function of (groups, point) that returns a
        torch.optim.Optimizer. Afterwards it is the name that the study is stored with; None of an own loop, which
        makes its own.
    schedule: the learning rate schedule of every round's trials, or a function of the share of training; by default
        `constant_then_decay()`, "own" where the workload trains by rates of its own, and `constant()` where it trains
        at a constant one, or by an optimizer that takes no other.
    warmup_steps: the warmup of every round's trials, in steps (D18).
    warmup: the warmup as a share of the steps of round 1, like 0.05; it becomes steps there, and later rounds keep
        those steps (C9).
    production_steps: the full length of a compute-bound workload; None where the sweep finds the budget.
    regime: declared by the user; None: decided from the evidence (A1).
    evaluations: evaluations of each trial, at equal distances in steps (B40); below 20 verdicts are refused (D14).
    evaluate_every: the distance of evaluations in steps, in place of their number; a sweep has its own distances.
    start_from: the weights that all trials start from, `best_of(...)` an earlier stage; None: the model's own.
    keep_best: checkpoints kept of each trial, besides the latest (B44).
    precision: in which trials compute, "bf16", "fp16", "tf32" or "float32", unless a search space chooses it; None:
        float32 as torch is set.
    shard: "fsdp2" where the model does not fit one device: the processes that train a trial together (`--gang`) each
        have a part of it; "": each has it whole.
    ema_steps: exponential averages of the weights over about so many steps are evaluated, selected and exported, in
        place of the weights that are trained, but in a sweep; None: the weights themselves.
    other_numerics: what a round does where a machine has other Numerics (versions, processor class, GPU, driver) than
        the one that began it: "mark" the trials that it trains, or "refuse" to train any there.
    name: how the storage knows it; by default the study file's name.

    Numbers of steps may be written as `epochs(...)` or `examples(...)`; `in_steps` makes steps of them.
    """

    workload: Trainable
    rounds: tuple[Round, ...] | list[Round]
    optimizer: Any = None
    schedule: ScheduleFamily | Callable[[float], float] | None = None
    warmup_steps: int = 0
    sweep: Sweep | None = None
    production_steps: int | None = None
    regime: Regime | None = None
    evaluations: int = EVALUATIONS
    keep_best: int = 1
    seed: int = 0
    name: str | None = None
    warmup: float | None = None
    evaluate_every: int | None = None
    start_from: StartFrom | None = None
    precision: str | None = None
    shard: str = ""
    ema_steps: int | None = None
    other_numerics: OtherNumerics = "mark"

    def __new__(cls, *_: object, **words: object) -> Self:
        refuse_decay(words)
        refuse_unknown(cls, words)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        check_workload_declared(self.workload)
        if not isinstance(self.rounds, tuple | list) or not all(isinstance(one, Round) for one in self.rounds):
            raise DeclarationError(f"rounds is a list of Round(...), got {self.rounds!r}")
        object.__setattr__(self, "rounds", tuple(self.rounds))
        if not self.rounds:
            raise DeclarationError("a campaign needs at least one round: rounds=[Round('...', trials=32, space=...)]")
        if self.rounds[0].space is None:
            raise DeclarationError("the first round has no round before it to promote from; give it a space")
        check_names(self.workload, sorted(self._names_in_spaces()))
        object.__setattr__(self, "rounds", rounds_with_start(self.start_from, tuple(self.rounds)))
        if isinstance(self.workload, OwnLoop):
            self._check_words(self.workload)
        else:
            self._check_optimizers()
        object.__setattr__(self, "schedule", declared_schedule(self.schedule or self._usual_schedule()))
        if self.regime is not None and self.regime not in get_args(Regime):
            raise DeclarationError(f"regime is one of {', '.join(get_args(Regime))}, got {self.regime!r}")
        self._check_counts()
        check_stopping(self.rounds, self.production_steps if self.sweep is None else None, self._distance)
        check_updates(self, self._names_in_spaces())
        self._check_schedule()
        for space in (one.space for one in self.rounds if one.space is not None):
            check_updates_in(space, self.workload)
        if self.sweep is not None:
            self._check_sweep(self.sweep)

    def _check_counts(self) -> None:
        self._check_rule()
        check_count("evaluations", self.evaluations)
        check_count("keep_best", self.keep_best)
        checked_steps("warmup_steps", self.warmup_steps, at_least=0)
        self._check_warmup()
        check_count("seed", self.seed, at_least=0)
        if self.evaluate_every is not None:
            checked_steps("evaluate_every", self.evaluate_every)
            if self.evaluations != EVALUATIONS:
                raise DeclarationError(
                    f"evaluations = {self.evaluations} and evaluate_every = {self.evaluate_every} both say how often a "
                    "trial is evaluated; give one of them"
                )
        if self.production_steps is not None:
            checked_steps("production_steps", self.production_steps)
            self._check_production(self.production_steps)

    def _check_rule(self) -> None:
        if self.shard not in ("", "fsdp2"):
            raise DeclarationError(f'shard is "fsdp2", or "" for whole models, got {self.shard!r}')
        if self.other_numerics not in get_args(OtherNumerics):
            raise DeclarationError(
                f'other_numerics is "mark" (train where Numerics differ, and mark the trials) or "refuse" (train '
                f"nothing there), got {self.other_numerics!r}"
            )

    def _check_warmup(self) -> None:
        if self.warmup is None:
            return
        if isinstance(self.warmup, bool) or not isinstance(self.warmup, int | float) or not 0.0 < self.warmup < 1.0:
            raise DeclarationError(
                f"warmup is a share of the steps of round 1, between 0 and 1, like 0.05, got {self.warmup!r}; a number "
                "of steps is warmup_steps"
            )
        if self.warmup > LONGEST_WARMUP:
            raise DeclarationError(
                f"warmup = {self.warmup:g} is {self.warmup:.0%} of round 1, and more than {LONGEST_WARMUP:.0%} leaves "
                "too little training at the full rate (C9); write a smaller share, or, if you mean it, "
                "warmup_steps, a number of steps"
            )
        if self.warmup_steps or "warmup_steps" in self._names_in_spaces():
            steps = f" = {self.warmup_steps}" if self.warmup_steps else " of a search space"
            raise DeclarationError(
                f"warmup = {self.warmup:g} and warmup_steps{steps} both say how long the warmup is; give one of them"
            )

    def _names_in_spaces(self) -> set[str]:
        """The short names of everything that the rounds search or fix."""
        spaces = (one.space for one in self.rounds if one.space is not None)
        return {Name.of(name).short for space in spaces for name in (*dict(space.fixed), *(one.name for one in space))}

    def _check_production(self, production_steps: int) -> None:
        for number, one in enumerate(self.rounds, 1):
            if one.max_train_steps is None or is_open(one.max_train_steps) or is_open(production_steps):
                continue
            if one.max_train_steps > production_steps:
                raise DeclarationError(
                    f"round {number} declares {one.max_train_steps:,} steps, more than production_steps = "
                    f"{production_steps:,}; the production length is that of the longest, final runs (A28)"
                )

    def _check_sweep(self, sweep: Sweep) -> None:
        if not isinstance(sweep, Sweep):
            raise DeclarationError(f"sweep is made by Sweep(...), got {sweep!r}")
        if self.workload.fitted_when is None:
            found = meant_as(self.workload, "fitted_when")
            instead = f", in place of {found}" if found else ""
            raise DeclarationError(
                f"a sweep asks when the training set is fitted, and {type(self.workload).__name__} does not say; write "
                f"fitted_when = {HOW_TO_DECLARE_A_FIT}, in the class{instead}. For a language model, or labels that "
                "are partly wrong, leave the sweep out and declare production_steps, or max_train_steps on the first "
                "round"
            )
        for one in self.rounds:
            if one.space is not None:
                one.space.off_values()

    def _check_words(self, workload: OwnLoop) -> None:
        """Refuse what says nothing to a training that is not ours. Raises DeclarationError."""
        standard = {one.name: None if one.default is MISSING else one.default for one in fields(self)}
        own = ScheduleFamily(OWN.name)
        given = {name: value for name in standard if (value := getattr(self, name)) not in (standard[name], own)}
        given |= {"optimizer": self.sweep.optimizer} if isinstance(self.sweep, Sweep) and self.sweep.optimizer else {}
        transfers = [one.transfer for one in self.rounds if one.transfer]
        given |= {"transfer": transfers[0]} if transfers else {}
        stopping = [one.patience_steps for one in self.rounds if one.patience_steps is not None]
        given |= {"patience_steps": stopping[0]} if stopping else {}
        check_campaign(workload, given, self._names_in_spaces())
        if workload.follows_schedule is False:
            object.__setattr__(self, "schedule", own)
        elif workload.constant_rate:
            object.__setattr__(self, "schedule", constant())
        arms = [one for one in self.rounds if tuple(one.rate_arms) != (1.0,)]
        if arms and "learning_rate" not in self._names_in_spaces():
            raise DeclarationError(
                f"rate_arms of round {arms[0].goal!r} are multiples of learning_rate (D20), which no search space has; "
                "declare it in the space, or leave rate_arms out"
            )

    def _check_optimizers(self) -> None:
        if self.optimizer is None:
            object.__setattr__(self, "optimizer", DEFAULT_OPTIMIZER)
        object.__setattr__(self, "optimizer", optimizer_named(self.optimizer))
        for space in (one.space for one in self.rounds if one.space is not None):
            for optimizer in space.optimizers:
                OPTIMIZERS.get(optimizer)
            _check_settings(space, self.optimizer)
            _check_clip_norm(space)

    def _usual_schedule(self) -> ScheduleFamily:
        alone = self.optimizer is not None and optimizer_of(self.optimizer).only_constant
        return constant() if alone else constant_then_decay()

    def _check_schedule(self) -> None:
        """Raise DeclarationError for an optimizer of ours that does not go with the schedule."""
        if isinstance(self.workload, OwnLoop):
            return  # whatever it calls an optimizer is its own
        chosen = [str(name) for one in self.rounds if one.space is not None for name in one.space.optimizers]
        for name in (self.optimizer, *chosen):
            if name is not None:
                optimizer_of(name).check_schedule(self.schedule_family.name, self._names_in_spaces())

    def round(self, number: int) -> Round:
        """Round `number`, counted from 1. Raises DeclarationError for one that is not declared."""
        if not 1 <= number <= len(self.rounds):
            raise DeclarationError(f"there is no round {number}; this campaign declares 1..{len(self.rounds)}")
        return self.rounds[number - 1]

    def round_before(self, number: int) -> int | None:
        """The last round before round `number` that starts as the campaign does: controls are passed over (C5)."""
        return next((one for one in range(number - 1, 0, -1) if self.rounds[one - 1].start is None), None)

    @property
    def main_rounds(self) -> tuple[int, ...]:
        """The numbers of the rounds that follow from each other, which are all but the controls of a stage."""
        return tuple(number for number, one in enumerate(self.rounds, 1) if one.start is None)

    @property
    def without_controls(self) -> "Campaign":
        """The same with the rounds alone that follow from each other."""
        return replace(self, rounds=tuple(self.rounds[number - 1] for number in self.main_rounds))

    @property
    def schedule_family(self) -> ScheduleFamily:
        """The schedule, a function as the curve that it was measured as."""
        return cast(ScheduleFamily, self.schedule)

    @property
    def warmup_in_words(self) -> str:
        """The warmup as it is declared: "50", or "0.05 of round 1"."""
        return f"{self.warmup_steps}" if self.warmup is None else f"{self.warmup:g} of round 1"

    def with_warmup(self, first_steps: int) -> "Campaign":
        """The same with the warmup in steps, where it is a share of the `first_steps` of round 1 (C9, D18)."""
        if self.warmup is None:
            return self
        return replace(self, warmup=None, warmup_steps=max(1, round(self.warmup * first_steps)))

    def budget(self, max_train_steps: int) -> StepBudget:
        """So many steps with the declared evaluations."""
        if self.evaluate_every is None:
            return StepBudget.with_evaluations(max_train_steps, self.evaluations)
        return StepBudget(max_train_steps, min(self.evaluate_every, max_train_steps))

    def _distance(self, max_train_steps: int | None) -> int | None:
        """The steps from one evaluation to the next in a trial of so many steps; None where that is not known yet."""
        if self.evaluate_every is not None:
            return None if is_open(self.evaluate_every) else self.evaluate_every
        return None if max_train_steps is None else self.budget(max_train_steps).evaluate_every

    @property
    def is_in_steps(self) -> bool:
        """Whether no length is written in epochs or examples."""
        return not any(True for _ in self._open_lengths())

    def _open_lengths(self) -> Iterator[str]:
        """Where lengths are written in epochs or examples."""
        for holder in (self, self.sweep, *self.rounds):
            for name in _LENGTHS_OF_A_CAMPAIGN + _LENGTHS_OF_A_SWEEP + _LENGTHS_OF_A_ROUND:
                if is_open(getattr(holder, name, None)):
                    yield f"{name} = {getattr(holder, name)}"

    def in_steps(self, num_examples: int | None) -> "Campaign":
        """The same with every length in steps. num_examples: of the training split; None for a stream.

        Raises DeclarationError where a length is less than a step, for epochs of a stream, and where the batch size
        is searched, because trials would then train for different numbers of steps (A11).
        """
        if self.is_in_steps:
            return self
        batch_size = self._one_batch_size()
        if num_examples is None and isinstance(self.workload, OwnLoop):
            epochs = next((one for one in self._open_lengths() if "epochs" in one), "")
            if epochs:
                raise DeclarationError(
                    f"{epochs} needs the number of training examples, which only {type(self.workload).__name__} knows: "
                    "write num_examples = 50_000, say, in the class, or a number of steps"
                )

        def resolved(holder: Any, names: tuple[str, ...]) -> Any:
            lengths = {name: getattr(holder, name) for name in names}
            steps = {name: one.steps(num_examples, batch_size) for name, one in lengths.items() if is_open(one)}
            return replace(holder, **steps) if steps else holder

        sweep = None if self.sweep is None else resolved(self.sweep, _LENGTHS_OF_A_SWEEP)
        rounds = tuple(resolved(one, _LENGTHS_OF_A_ROUND) for one in self.rounds)
        whole: Campaign = resolved(replace(self, sweep=sweep, rounds=rounds), _LENGTHS_OF_A_CAMPAIGN)
        return whole

    def _one_batch_size(self) -> int:
        """The batch size of all trials. Raises DeclarationError where they differ."""
        found: set[Value] = set()
        for space in (one.space for one in self.rounds if one.space is not None):
            found |= set(space.batch_sizes) or {self.workload.batch_size}
            if len(found) > 1 or None in found:
                raise DeclarationError(
                    f"{next(self._open_lengths())} would give trials of different batch sizes different numbers of "
                    "steps, and batch_size differs between trials here: one study has one number of steps (A11, B6); "
                    "write a number of steps"
                )
        batch_size = found.pop()
        if batch_size == 0 and isinstance(self.workload, OwnLoop):
            raise DeclarationError(
                f"{next(self._open_lengths())} needs the number of examples in an update, which only "
                f"{type(self.workload).__name__} knows: write batch_size = 64, say, in the class, or a number of steps"
            )
        check_count("batch_size", batch_size)
        return cast(int, batch_size)


def _check_settings(space: SearchSpace, optimizer: str) -> None:
    """Raise DeclarationError for a setting that no optimizer of the space reads, and for one given in two ways.

    A setting that only optimizers of plugins have may be the name of something else in a workload: it is let pass.
    """
    used = [str(one) for one in space.optimizers] or [optimizer]
    names = [hyperparameter.name for hyperparameter in space] + [name for name, _ in space.fixed]
    for name in map(Name.of, names):
        trained = [name.branch] if name.branch in OPTIMIZERS else used
        specs = [optimizer_of(each) for each in trained]
        if any(spec.reads_point or (spec.made_of and spec.setting(name.short)) for spec in specs):
            continue
        readers = [spec.name for spec in OPTIMIZERS if spec.setting(name.short)]
        if any(spec.name in readers for spec in OPTIMIZERS.own) and not set(trained) & set(readers):
            raise DeclarationError(
                f"{name} would change nothing: it is read by {', '.join(readers)} only, and the trials train with "
                f"{', '.join(trained)}; leave it out, or give it another name if the workload reads it"
            )
        for setting in (spec.setting(name.short) for spec in specs):
            other = str(Name(name.branch, setting.same_as)) if setting and setting.same_as else ""
            if other in names:
                raise DeclarationError(f"{other} and {name} say the same of one optimizer; declare one of them")


def _check_clip_norm(space: SearchSpace) -> None:
    """Raise DeclarationError for a clip_norm under which nothing is trained: 0, or one that turns gradients around."""
    values = [(name, constant.value) for name, constant in space.fixed]
    for hyperparameter in space:
        domain = hyperparameter.domain
        above = (domain.high,) if isinstance(domain, Range) and domain.low >= 0.0 else ()
        found = domain.choices if isinstance(domain, Choice) else above or (domain.low,)
        values += [(hyperparameter.name, value) for value in found]
    for name, value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if Name.of(name).short == "clip_norm" and value is not None and not (number and cast(float, value) > 0.0):
            raise DeclarationError(
                f"{name} is the largest norm of a gradient, a number above 0, got {value!r}; "
                "leave it out, or write None among its choices, where nothing is to be clipped"
            )
