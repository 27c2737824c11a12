"""The lines that a program writes for us, held against what is due; and reports that wait for a checkpoint.

A line is one JSON object: {"step": 100, "validation/loss": 0.31, "training/error_rate": 0.0}. `step` counts the updates
made. {"step": 100, "checkpoint": "path"} announces a whole checkpoint, {"infeasible": "why"} gives up the point, and
{"step": 100} alone says how far it is.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from tuner.errors import WorkloadError
from tuner.shown import quoted

SPLITS = ("training", "validation")
PLACE, GIVEN_UP = "checkpoint", "infeasible"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SaidLine:
    """One line of ours. place: the path of a checkpoint. others: the names of numbers that are no metrics."""

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    place: str = ""
    others: tuple[str, ...] = ()
    infeasible: str = ""


def said_by(line: bytes, program: str, *, always: bool) -> SaidLine | None:
    """What a line says; None for output of another kind. always: every line is ours, as in a file of metrics.

    Raises WorkloadError for a line of ours that is broken.
    """
    text = line.strip()
    if not text.startswith(b"{") and not always:
        return None
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not always and b'"step"' not in text and b'"infeasible"' not in text:
            return None
        raise WorkloadError(
            f"{program} wrote a line that is no JSON ({error}): {quoted(text.decode('utf-8', 'backslashreplace'))}; "
            "write one whole object a line, from one process only, and flush it"
        ) from error
    if not isinstance(found, dict) or not ({"step", GIVEN_UP} & found.keys()):
        if always:
            raise WorkloadError(
                f"{program} wrote {quoted(text.decode('utf-8', 'backslashreplace'))} into its file of metrics; a line "
                'is {"step": 100, "validation/loss": 0.3}'
            )
        return None
    return _said(found, program)


def _said(found: dict[str, Any], program: str) -> SaidLine:
    if GIVEN_UP in found:
        return SaidLine(infeasible=str(found[GIVEN_UP]) or "the program gave no reason")
    step, place = found["step"], found.get(PLACE, "")
    if isinstance(step, bool) or not isinstance(step, int | float) or step != step // 1 or step < 0:
        raise WorkloadError(
            f'{program} wrote "step": {quoted(step)}; it is the number of updates made, a whole number from 0'
        )
    if not isinstance(place, str) or (PLACE in found and (not place or "\0" in place)):
        raise WorkloadError(f'{program} wrote "{PLACE}": {quoted(place)}; it is the path of a file or a folder')
    metrics = {name: _number(name, value, program) for name, value in found.items() if "/" in name}
    others = (name for name, value in found.items() if name not in metrics and name != "step")
    return SaidLine(int(step), metrics, place, tuple(name for name in others if type(found[name]) in (int, float)))


def _number(name: str, value: object, program: str) -> float:
    split, _, metric = name.partition("/")
    if split not in SPLITS or not metric:
        raise WorkloadError(
            f"{program} reports {quoted(name)}, and a metric is named by split and name, like 'validation/loss' or "
            "'training/error_rate'; the test split never selects anything (D31)"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WorkloadError(f"{program} reports {name} = {quoted(value)}, which is no number")
    try:
        return float(value)
    except OverflowError:
        raise WorkloadError(f"{program} reports {name} = {quoted(value)}, which is too large") from None


class HeldReports:
    """The reports of a trial that a kill would take back: they wait until a checkpoint is whole, or for the end.

    due: after which updates evaluations are due, ascending. begun: the updates that the program goes on from. wanted:
    metrics that have to be there, first the one that is selected by. newest: the farthest step that was named.
    """

    def __init__(self, program: str, due: Sequence[int], begun: int, wanted: Sequence[str]) -> None:
        self.program, self.wanted = program, tuple(wanted)
        self.due = tuple(step for step in due if step > begun)
        self.last = due[-1]
        self.begun = self.newest = begun
        self.values: dict[int, dict[str, float]] = {}  # by step, not delivered yet
        self.reported: set[int] = set()
        self._others: dict[int, tuple[str, ...]] = {}  # by step: what was reported there, and is no metric
        self._told = False

    def take(self, said: SaidLine) -> None:
        """Check a line, and hold its metrics. Raises WorkloadError where it is not what is due."""
        step = said.step
        self._check_order(step, bool(said.metrics))
        self.newest = max(self.newest, step)
        if said.others:
            self._others[step] = said.others
        if not said.metrics or step <= self.begun:
            return
        if step not in self.due:
            if not self._told:
                self._told = True
                logger.warning(
                    "%s reports after %d updates, where no evaluation is due: such lines are left out, because trials "
                    "of a study are compared at the same steps", self.program, step,
                )  # fmt: skip
            return
        if step in self.reported:
            raise WorkloadError(f"{self.program} reports step {step} twice; put all metrics of a step into one line")
        for lacking in [name for name in self.wanted if name not in said.metrics]:
            near = get_close_matches(lacking, sorted(said.metrics), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise WorkloadError(
                f"{self.program} reports {', '.join(map(repr, sorted(said.metrics)))} at step {step}, and "
                f"{'select_by' if lacking == self.wanted[0] else 'fitted_when'} reads {lacking!r}{hint}"
            )
        self.reported.add(step)
        self.values[step] = said.metrics

    def _check_order(self, step: int, measured: bool) -> None:
        if step > self.last:
            raise WorkloadError(
                f"{self.program} names step {step}, and its trial ends after {self.last} updates: it has to end by "
                "itself after {max_train_steps}"
            )
        if step < self.begun and self.newest == self.begun and measured:
            raise WorkloadError(
                f"{self.program} was started with a checkpoint of step {self.begun} in its folder and reports step "
                f"{step} again: read {{checkpoint}} and go on after it, or announce no checkpoints"
            )
        if step < self.newest:
            raise WorkloadError(f"{self.program} names step {step} after step {self.newest}: steps go forward")
        missing = self.first_missing(step)
        if missing is not None:
            self.refuse_others(missing)
            raise WorkloadError(
                f"{self.program} names step {step}, and an evaluation was due after {missing} updates, of which it "
                f"reported nothing: report after each of {{evaluation_steps}}, or every {{evaluate_every}} updates"
            )

    def refuse_others(self, missing: int | None) -> None:
        """Raise WorkloadError where something was reported after so many updates, and none of it is a metric."""
        names = () if missing is None else self._others.get(missing)
        if names:
            raise WorkloadError(
                f"{self.program} reports {', '.join(map(quoted, names))} after {missing} updates, where an evaluation "
                f"is due, and select_by reads {self.wanted[0]!r}: a metric is named by split and name"
            )

    def first_missing(self, step: int) -> int | None:
        """The first evaluation due before this step that was not reported."""
        return next((one for one in self.due if one < step and one not in self.reported), None)

    @property
    def diverged_at(self) -> int | None:
        """The step that ends the trial, because what is selected by is no number there."""
        return next((step for step, values in self.values.items() if math.isnan(values[self.wanted[0]])), None)

    @property
    def all_there(self) -> bool:
        """Whether every evaluation was reported."""
        return len(self.reported) == len(self.due)

    def deliverable(self, step: int) -> bool:
        """Whether all that was due up to this step was reported."""
        return self.first_missing(step + 1) is None

    def until(self, step: int) -> list[tuple[int, dict[str, float]]]:
        """Take out the reports up to a step, in order."""
        return [(one, self.values.pop(one)) for one in sorted(self.values) if one <= step]
