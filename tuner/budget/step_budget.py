"""The number of steps of all trials of a study, and the steps after which the trials are evaluated.

One step is one applied optimizer update (C15, C21): never an epoch, never a micro-batch. A study file may write a
number of steps as `epochs(10)` or `examples(50_000)`; it becomes steps as soon as the data are known, and steps are
what is stored, compared and trained.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, cast

from tuner.errors import DeclarationError

MINIMUM_EVALUATIONS = 20  # fewer cannot resolve the first 10 % of a run (D14)
MOST_EVALUATIONS = 10_000_000  # of a trial: their steps are listed in memory


@dataclass(frozen=True, slots=True)
class StepBudget:
    """`max_train_steps`, evaluated every `evaluate_every` steps and always at the last one (B40).

    `early`: the evaluations of the shorter budgets that this one lengthens, each as (last step, distance in steps). So
    a trial that continues a shorter one has measurements exactly where it would have them alone.
    """

    max_train_steps: int
    evaluate_every: int
    early: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.max_train_steps < 1:
            raise DeclarationError(f"max_train_steps must be at least 1, got {self.max_train_steps}")
        if not 1 <= self.evaluate_every <= self.max_train_steps:
            raise DeclarationError(
                f"evaluate_every must lie in 1..{self.max_train_steps} (max_train_steps), got {self.evaluate_every}"
            )
        if self.max_train_steps // self.evaluate_every > MOST_EVALUATIONS:
            raise DeclarationError(
                f"{self.max_train_steps:,} steps evaluated every {self.evaluate_every:,} make "
                f"{self.max_train_steps // self.evaluate_every:,} evaluations, and at most {MOST_EVALUATIONS:,} are "
                "possible; correct max_train_steps (for an import: the highest step), or evaluate less often"
            )
        ends = [0, *(until for until, _ in self.early), self.max_train_steps]
        if ends != sorted(set(ends)) or any(every < 1 for _, every in self.early):
            raise DeclarationError(
                f"early holds (last step, distance) of shorter budgets, the shortest first, all below "
                f"{self.max_train_steps} (max_train_steps), got {self.early}"
            )

    @classmethod
    def with_evaluations(cls, max_train_steps: int, evaluations: int) -> "StepBudget":
        """A budget with at least `evaluations` evaluations at equal distances."""
        if evaluations < 1:
            raise DeclarationError(f"evaluations must be at least 1, got {evaluations}")
        return cls(max_train_steps, max(1, max_train_steps // evaluations))

    @property
    def even_steps(self) -> tuple[int, ...]:
        """The steps of evaluations at equal distances over the whole run and at its end, without the early ones."""
        return (*range(self.evaluate_every, self.max_train_steps, self.evaluate_every), self.max_train_steps)

    def lengthened(self, max_train_steps: int, evaluations: int) -> "StepBudget":
        """A longer budget with the evaluations of this one, and then about `evaluations` over the whole length."""
        if max_train_steps <= self.max_train_steps:
            raise DeclarationError(
                f"a budget of {self.max_train_steps:,} steps is lengthened to more steps, got {max_train_steps:,}"
            )
        return self.lengthened_to(StepBudget.with_evaluations(max_train_steps, evaluations))

    def lengthened_to(self, longer: "StepBudget") -> "StepBudget":
        """A longer budget that is also evaluated where this one is."""
        return replace(longer, early=(*self.early, (self.max_train_steps, self.evaluate_every)))

    def shortened(self, max_train_steps: int) -> "StepBudget":
        """A budget that ends earlier, with the evaluations of this one up to there, and one at its end."""
        if not 1 <= max_train_steps <= self.max_train_steps:
            raise DeclarationError(
                f"a budget of {self.max_train_steps:,} steps is shortened to 1..{self.max_train_steps:,} steps, "
                f"got {max_train_steps}"
            )
        parts = (*self.early, (self.max_train_steps, self.evaluate_every))
        every = next(distance for until, distance in parts if max_train_steps <= until)
        early = tuple(part for part in self.early if part[0] < max_train_steps)
        return StepBudget(max_train_steps, min(every, max_train_steps), early)

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """The steps after which the model is evaluated, ascending; the last one is `max_train_steps`."""
        steps: list[int] = [0]
        for until, every in (*self.early, (self.max_train_steps, self.evaluate_every)):
            first = (steps[-1] // every + 1) * every
            steps += [*range(first, until, every), until]
        return tuple(steps[1:])


def rounded_up(steps: float) -> int:
    """A number of steps rounded up to two leading digits: in doubt, longer (A9)."""
    unit: int = 10 ** max(0, math.floor(math.log10(max(steps, 1.0))) - 1)
    return math.ceil(steps / unit) * unit


@dataclass(frozen=True, slots=True)
class TrainingLength:
    """A number of steps before the data are known: `count` epochs or examples."""

    count: float
    unit: Literal["epochs", "examples"]

    def __post_init__(self) -> None:
        number = isinstance(self.count, int | float) and not isinstance(self.count, bool)
        if not number or not 0 < self.count < math.inf or (self.unit == "examples" and self.count != int(self.count)):
            kind = "number" if self.unit == "epochs" else "whole number"
            raise DeclarationError(f"{self.unit} takes a {kind} above 0, got {self.unit}({self.count!r})")

    def __str__(self) -> str:
        return f"{self.unit}({self.count:{',' if self.unit == 'examples' else ''}})".replace(",", "_")

    __repr__ = __str__  # as it is written, also in a message about a place that takes none

    def steps(self, num_examples: int | None, batch_size: int) -> int:
        """The steps that train so long: what is left over at the end of an epoch is dropped (C15), so 1,000 examples
        in batches of 64 are 15 steps an epoch. A part of a step counts as a whole one (A9).

        num_examples: of the training split; None for a stream. Raises DeclarationError where the length is less than
        one step, and for epochs of a stream.
        """
        if self.unit == "examples":
            steps, needed = self.count / batch_size, f"batches have {batch_size:,} examples"
        else:
            if num_examples is None:
                raise DeclarationError(
                    f"{self} has no meaning here: the training split is a stream, which has no epochs; write a number "
                    f"of steps, or examples(...)"
                )
            if num_examples < batch_size:
                raise DeclarationError(
                    f"{self} has no step: batch_size {batch_size:,} is larger than the training split of "
                    f"{num_examples:,} examples; make the batches smaller"
                )
            each = num_examples // batch_size
            steps, needed = self.count * each, f"an epoch has {each:,} steps"
        if steps < 1:
            raise DeclarationError(f"{self} is less than one step: {needed}; write at least 1 step")
        return math.ceil(steps - 1e-9 * steps)


def epochs(count: float) -> int:
    """So many passes over the training split, where a study file takes a number of steps: `epochs(90)`.

    It becomes steps when the data are known, and steps are stored. The examples that are left over at the end of an
    epoch are dropped; 1,000 examples in batches of 64 are 15 steps an epoch. Refused where the batch size is searched,
    because each trial would train another number of steps (A11), and for a stream.
    """
    return cast(int, TrainingLength(count, "epochs"))  # an int for all that reads a resolved declaration


def examples(count: int) -> int:
    """So many training examples, where a study file takes a number of steps: `examples(50_000)`.

    It becomes steps when the batch size is known, rounded up (A9), and steps are stored.
    """
    return cast(int, TrainingLength(count, "examples"))


def steps_in_words(steps: int, steps_per_epoch: int | None) -> str:
    """Like "1,500 steps (24 epochs)"; steps alone where the length of an epoch is not known."""
    words = f"{steps:,} step{'' if steps == 1 else 's'}"
    return words if not steps_per_epoch else f"{words} ({epochs_in_words(steps, steps_per_epoch)})"


def epochs_in_words(steps: int, steps_per_epoch: int) -> str:
    """Like "24 epochs", "2.5 epochs" and "0.04 epochs"."""
    count = steps / steps_per_epoch
    digits = (
        f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.1f}" if count >= 1 else f"{count:.2g}"
    )
    return f"{digits} epoch{'' if digits == '1' else 's'}"
