"""What a loop reports, held against what was agreed: which metrics, after which updates."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

from tuner.delegated.setup import LoopSetup
from tuner.errors import WorkloadError

SPLITS = ("training", "validation")


class Reports:
    """The reports of one trial, after the `begun` updates that it goes on from.

    `diverged`: why the trial has no result, once the selection metric is no number.
    """

    def __init__(self, setup: LoopSetup, due: tuple[int, ...], begun: int) -> None:
        self.name = type(setup.workload).__name__
        self.study = setup.study
        self.due = frozenset(due)
        self.begun = begun
        self.last = begun  # the newest update that was reported of
        self.reported: set[str] = set()  # there
        self.diverged = ""

    def checked(self, step: int, values: Mapping[str, Any]) -> dict[str, float]:
        """The metrics as numbers. Raises WorkloadError where they are not what was agreed."""
        if step < self.last:
            raise WorkloadError(f"{self.name}.train reports step {step} after step {self.last}: reports go forward")
        if step not in self.due:
            following = min((one for one in self.due if one > step), default=max(self.due))
            raise WorkloadError(
                f"{self.name}.train reports after {step} updates, where no evaluation is due (the next one is after "
                f"{following}): trials of a study are compared at the same steps; report where trial.evaluates(step)"
            )
        if step > self.last:
            self.last, self.reported = step, set()
        measured = {name: self._number(name, value) for name, value in values.items() if value is not None}
        twice = self.reported & measured.keys()
        if twice:
            raise WorkloadError(f"{self.name}.train reports {', '.join(sorted(twice))} twice after {step} updates")
        self.reported |= measured.keys()
        value = measured.get(self.study.objective.metric, 0.0)
        if math.isnan(value):
            self.diverged = f"diverged: {self.study.objective.metric} is {value} at step {step}"
        return measured

    def _number(self, name: str, value: Any) -> float:
        split, _, metric = str(name).partition("/")
        if split not in SPLITS or not metric:
            raise WorkloadError(
                f"{self.name}.train reports {name!r}, and a metric is named by split and name, like 'validation/loss' "
                "or 'training/error_rate'; the test split never selects anything (D31)"
            )
        number = value.item() if callable(getattr(value, "item", None)) else value
        if not isinstance(number, Real):
            raise WorkloadError(f"{self.name}.train reports {name} = {value!r}, which is no number")
        return float(number)

    def refuse_missing(self, step: int) -> None:
        """Raise WorkloadError where an evaluation was due and the metrics that are read were not reported."""
        if step not in self.due or step <= self.begun:
            return
        if self.last != step:
            raise WorkloadError(
                f"{self.name}.train made {step} updates and reported nothing, and an evaluation is due there: "
                "if trial.evaluates(step): trial.report({...})"
            )
        wanted = self.study.objective.metric
        if wanted not in self.reported:
            near = get_close_matches(wanted, sorted(self.reported), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise WorkloadError(
                f"{self.name}.select_by reads {wanted!r}, and {self.name}.train reports "
                f"{', '.join(map(repr, sorted(self.reported)))}{hint}"
            )

    def returned_early(self, step: int) -> str:
        """What to say of a loop that ended before its trial."""
        return (
            f"{self.name}.train returned after {step:,} of {self.study.budget.max_train_steps:,} updates; a trial "
            "trains all of its steps (A11): for step in trial.steps(); to give up a point, trial.infeasible('why')"
        )
