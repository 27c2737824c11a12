"""A study: a search space, a budget and a number of points; its trials are compared with each other.

Everything here is plain data, so that a study can be stored, digested and compared with one that was started before.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.budget.schedules import SCHEDULES, SHAPES, ScheduleFamily
from tuner.budget.step_budget import StepBudget, epochs_in_words, steps_in_words
from tuner.design.hyperparameters import Constant, Hyperparameter
from tuner.design.names import Name
from tuner.design.objective import FitCriterion, Objective
from tuner.design.optimizers import is_known, optimizer_of, source_of
from tuner.design.points import Point
from tuner.design.space import SearchSpace
from tuner.registry import Source

UNKNOWN = "–"
StudyKind = Literal["sweep", "round", "adoption", "exploitation", "budget_curve", "stability"]
MOST_TRACED = 5_000  # [P] updates of a trial whose loss and gradient norm are recorded one by one


@dataclass(frozen=True, slots=True)
class Study:
    """What all trials of a study share.

    name: "sweep" or "round-1", unique in its campaign.
    augment: False in a sweep.
    keep_best: so many checkpoints of each trial are kept besides the latest (B44).
    optimizer: None where the search space chooses it.
    scientific: the hyperparameters that the goal is about; all others that vary are nuisances (B10).
    num_examples: of the training split, to show epochs; None where it is not known: a stream, or an older version.
    source: where the trials were run, "" for trials of this program. What is unknown of an imported study is None, or
        0 for `batch_size`.
    start: "scratch" of a control of a stage: its trials start from the model's own initialization; "" as the campaign.
    patience_steps: a trial stops early where its selection metric has not improved for so many steps; 0: never.
    sampler, batch: what proposes the points of an exploitation, and how many at a time; both are empty where points
        are quasi-random or chosen.
    slices: the parts that each batch is cut into. slice_size: examples of a slice, where their number follows from the
        batch size of a trial; 0 otherwise.
    precision: in which the trials compute, a name of `design.precisions`; "" for float32 as torch is set.
    ema_steps: steps over which weights are averaged before they are evaluated; 0: they are not.
    """

    name: str
    kind: StudyKind
    goal: str
    hyperparameters: tuple[Hyperparameter, ...]
    fixed: tuple[tuple[str, Constant], ...]
    budget: StepBudget
    num_trials: int
    objective: Objective
    fitted_when: FitCriterion | None
    optimizer: str | None
    schedule: ScheduleFamily
    warmup_steps: int
    batch_size: int
    seed: int
    keep_best: int = 1
    augment: bool = True
    round: int | None = None
    lineage: tuple[tuple[str, str], ...] = field(default=())
    scientific: tuple[str, ...] = ()
    source: str = ""
    sampler: str = ""
    batch: int = 0
    num_examples: int | None = None
    start: str = ""
    patience_steps: int = 0
    slices: int = 1
    slice_size: int = 0
    precision: str = ""
    ema_steps: int = 0

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of one pass over the training split, without what is left over; None where that is not one number."""
        size = next(iter(self.space.batch_sizes), self.batch_size)
        return self.num_examples // size if self.num_examples and isinstance(size, int) and size else None

    @property
    def traced_every(self) -> int:
        """Loss and gradient norm of every so many-th update are recorded one by one; 0: of none (B36).

        Only trials of a stability study are traced: their question is what happens between evaluations.
        """
        return -(-self.budget.max_train_steps // MOST_TRACED) if self.kind == "stability" else 0

    @property
    def length_in_words(self) -> str:
        """The budget like "1,500 steps (24 epochs)"."""
        return self.in_words(self.budget.max_train_steps)

    @property
    def trains_in_words(self) -> str:
        """How long its trials train: the budget, "at most 1,500 steps" where trials may stop early."""
        return f"at most {self.length_in_words}" if self.patience_steps else self.length_in_words

    @property
    def limit_words(self) -> str:
        """That its trials may stop early, so that planned steps and time are limits; "" where they train all steps."""
        if not self.patience_steps:
            return ""
        return (
            f"{self.name}: steps and time are at most these: a trial stops early where its metric has not improved for "
            f"{self.patience_steps:,} steps"
        )

    def in_words(self, steps: int) -> str:
        """Steps of this study like "1,500 steps (24 epochs)"; steps alone where the length of an epoch is not known."""
        return steps_in_words(steps, self.steps_per_epoch)

    def slices_of(self, point: Point) -> int:
        """The parts that each batch of a trial is cut into."""
        batch_size = point.whole("batch_size", self.batch_size)
        return batch_size // self.slice_size if self.slice_size else self.slices

    @property
    def slice_examples(self) -> int:
        """Examples of a slice of the study's own batches; those of a batch where it is not cut."""
        return self.batch_size // self.slices_of(Point.of({}))

    @property
    def slices_in_words(self) -> str:
        """Like "8 slices of 32 examples", where batches are cut; "" for whole batches."""
        size = next(iter(self.space.batch_sizes), self.batch_size)
        if size is None:  # it is searched
            each = f"slices of {self.slice_size} examples" if self.slice_size else f"{self.slices} slices"
            return each if self.slice_size or self.slices > 1 else ""
        slices = self.slices_of(Point.of({"batch_size": size}))
        return f"{slices} slices of {int(str(size)) // slices} examples" if slices > 1 else ""

    def precision_of(self, point: Point) -> str:
        """The precision of a trial; "" for float32 as torch is set.

        Where only some branches of the space name one, it is float32 in the others, and does not depend on torch.
        """
        return str(point.get("precision") or self.precision or ("float32" if self.declares_precision else ""))

    @property
    def declares_precision(self) -> bool:
        """Whether the precision is declared, for all trials or in the space."""
        names = (*(one.name for one in self.hyperparameters), *(name for name, _ in self.fixed))
        return bool(self.precision) or any(Name.of(name).short == "precision" for name in names)

    def ema_steps_of(self, point: Point) -> int:
        """The steps over which the weights of a trial are averaged; 0: they are not."""
        return point.whole("ema_steps", self.ema_steps) if point.get("ema_steps", 0) is not None else 0

    def in_epochs(self, steps: int) -> str:
        """Like "24", for a column; a dash where the length of an epoch is not known."""
        each = self.steps_per_epoch
        return epochs_in_words(steps, each).split()[0] if each else UNKNOWN

    @property
    def space(self) -> SearchSpace:
        return SearchSpace.of(self.hyperparameters, self.fixed)

    def shape_group(self, point: Point) -> str:
        """The same text for trials that may be trained as one stacked model: those that differ in real numbers alone.

        It names the optimizer, the batch size, the hyperparameters, and the values that are not floats.
        """
        optimizer, batch_size = point.get("optimizer", self.optimizer), point.get("batch_size", self.batch_size)
        words = [str(optimizer), f"batch_size={batch_size}"]
        for text, value in sorted(point.values_by_name):
            name = Name.of(text)
            if name.short not in ("optimizer", "batch_size") and name.is_shown:
                words.append(name.short if isinstance(value, float) else f"{name.short}={value}")
        return " ".join(words)


def records_of_others(study: Study) -> list[tuple[Any, Source]]:
    """The optimizers and the schedule that a study names and that plugins or study files registered, each once."""
    optimizers = [str(name) for name in (study.optimizer, *study.space.optimizers) if is_known(name)]
    found: list[tuple[Any, Source]] = [(optimizer_of(name), source_of(name)) for name in dict.fromkeys(optimizers)]
    found += [(study.schedule.kind, SCHEDULES.source_of(study.schedule.name))]
    found += [(SHAPES.get(study.schedule.decay_shape), SHAPES.source_of(study.schedule.decay_shape))]
    return [(record, source) for record, source in found if not source.is_own]
