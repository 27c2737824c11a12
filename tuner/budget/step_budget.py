"""The number of steps of all trials of a study, and the steps after which the trials are evaluated.

One step is one applied optimizer update (C15, C21): never an epoch, never a micro-batch.
"""

import math
from dataclasses import dataclass, replace

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
        longer = StepBudget.with_evaluations(max_train_steps, evaluations)
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
