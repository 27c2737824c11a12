"""What a loop reports, held against what was agreed: which metrics, after which updates."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

from tuner.delegated.setup import LoopSetup
from tuner.errors import WorkloadError

SPLITS = ("training", "validation")
ALL_STEPS = (
    "trains all of its steps (A11), without early stopping, and its best weights are kept: for step in trial.steps(): "
    "...; where its data ended (zip with a loader ends with "
    "it), trial.batches(loader) begins them again: zip(trial.steps(), trial.batches(loader)); to give up a "
    "point, trial.infeasible('why')"
)


class Reports:
    """The reports of one trial, after the `begun` updates that it goes on from.

    `diverged`: why the trial has no result, once the selection metric is no number.
    """

    def __init__(self, setup: LoopSetup, due: tuple[int, ...], begun: int) -> None:
        self.name = type(setup.workload).__name__
        self.study = setup.study
        self.due = frozenset(due)
        self._coming = [step for step in due if step > begun]  # those that the loop has not arrived at
        self.next_due: float = self._coming[0] if self._coming else math.inf
        self.last = begun  # the newest update that was reported of
        self.reported: set[str] = set()  # there
        self.diverged = ""

    def checked(self, step: int, values: Mapping[str, Any]) -> dict[str, float]:
        """The metrics as numbers. Raises WorkloadError where they are not what was agreed."""
        if not isinstance(values, Mapping):
            raise WorkloadError(
                f"trial.report takes metrics by name, not {type(values).__name__}: "
                "if trial.evaluates(step): trial.report({'validation/loss': value})"
            )
        self._check_step(step)
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

    def _check_step(self, step: int) -> None:
        if step < self.last:
            raise WorkloadError(f"{self.name}.train reports step {step} after step {self.last}: reports go forward")
        if step not in self.due:
            following = min((one for one in self.due if one > step), default=None)
            comes = "the trial ends after" if following is None else "the next one is after"
            raise WorkloadError(
                f"{self.name}.train reports after {step} updates, where no evaluation is due ({comes} "
                f"{following or max(self.due)}): trials of a study are compared at the same steps; report where "
                "trial.evaluates(step)"
            )
        if step > self.next_due:
            raise WorkloadError(
                f"{self.name}.train reports after {step} updates and has not said that the {self.next_due:g} before "
                "them are made: for step in trial.steps(), or trial.stepped(n) after update n"
            )

    def _number(self, name: str, value: Any) -> float:
        split, _, metric = str(name).partition("/")
        if split not in SPLITS or not metric:
            raise WorkloadError(
                f"{self.name}.train reports {name!r}, and a metric is named by split and name, like 'validation/loss' "
                "or 'training/error_rate'; the test split never selects anything (D31)"
            )
        try:
            number = value.item() if callable(getattr(value, "item", None)) else value
        except (RuntimeError, ValueError):
            number = None
        if not isinstance(number, Real):
            raise WorkloadError(
                f"{self.name}.train reports {name} = {repr(value)[:200]}, which is no number; report one number a "
                "metric, of a tensor its mean"
            )
        return float(number)

    def refuse_missing(self, step: int) -> None:
        """Raise WorkloadError where an evaluation was due and the metrics that are read were not reported."""
        if step < self.next_due:
            return
        due = self._coming[0]
        if self.last != due:
            raise WorkloadError(
                f"{self.name}.train made {step} updates and reported nothing after {due}, where an evaluation is due: "
                "if trial.evaluates(step): trial.report({...})"
            )
        if step > due:
            raise WorkloadError(
                f"{self.name}.train says that {step} updates are made, and has not said so of {due}, where an "
                "evaluation is due: trial.stepped(n) after each update"
            )
        self._check_read("select_by", self.study.objective.metric)
        if self.study.fitted_when is not None and self.study.kind == "sweep":
            self._check_read("fitted_when", self.study.fitted_when.metric)
        del self._coming[0]
        self.next_due = self._coming[0] if self._coming else math.inf

    def _check_read(self, reader: str, wanted: str) -> None:
        """Raise WorkloadError where a metric that the study reads was not reported."""
        if wanted in self.reported:
            return
        near = get_close_matches(wanted, sorted(self.reported), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise WorkloadError(
            f"{self.name}.{reader} reads {wanted!r}, and {self.name}.train reports "
            f"{', '.join(map(repr, sorted(self.reported))) or 'nothing'}{hint}"
        )

    def returned_early(self, step: int) -> str:
        """What to say of a loop that ended before its trial."""
        return (
            f"{self.name}.train returned after {step:,} of {self.study.budget.max_train_steps:,} updates; a trial "
            f"{ALL_STEPS}"
        )
