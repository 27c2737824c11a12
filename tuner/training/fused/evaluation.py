"""Evaluating all trials of a group at once, where that gives the bits of evaluating each for itself."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tuner.errors import NotFusible
from tuner.training.batches import Split
from tuner.training.fused.graph import check_graph, simplify
from tuner.training.fused.group import Group
from tuner.training.fused.noise import Sites
from tuner.training.fused.operations import Operations
from tuner.training.fused.quick_kernels import quickened
from tuner.training.fused.recording import Batch
from tuner.training.fused.rules_python import DropoutOfSharedValues
from tuner.training.fused.tape import Tape
from tuner.training.fused.trial_tensor import TrialTensor

SAMPLE = 8  # trials whose first evaluation is compared
Measured = dict[str, float]
Sums = dict[str, list[torch.Tensor]]


class GroupEvaluation:
    """Runs the metrics on the stacked model. Trusted only after a comparison with the ordinary evaluation."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.refused = ""  # why each trial is evaluated for itself
        self._alone: float | None = None  # seconds of a trial's own evaluation
        self._recordings: dict[object, tuple[Any, list[str]]] = {}

    def of(self, trials: Sequence[int]) -> dict[int, Measured]:
        """What each of these trials would measure; empty where they had better be evaluated one by one."""
        if self.refused or 2 * len(trials) < len(self.group.runs):
            return {}
        began = time.perf_counter()
        try:
            measured = self._measured()
        except Exception as error:  # whatever it is, the ordinary evaluation will show it
            self.refused = f"{type(error).__name__}: {error}"
            return {}
        if self._alone is None:
            return self._compared(trials, measured)
        if time.perf_counter() - began > len(trials) * self._alone:
            self.refused = "not faster than each trial alone"
        return {trial: measured[trial] for trial in trials}

    def _compared(self, trials: Sequence[int], measured: list[Measured]) -> dict[int, Measured]:
        """The measurements, if some of the trials measure the same for themselves."""
        sample = trials[:: -(-len(trials) // SAMPLE)]
        began = time.perf_counter()
        alone = [self.group.runs[trial].evaluate() for trial in sample]
        self._alone = (time.perf_counter() - began) / len(sample)
        if any(repr(one) != repr(measured[trial]) for trial, one in zip(sample, alone, strict=True)):
            self.refused = "other bits than those of each trial alone"
            return {}
        return {trial: measured[trial] for trial in trials}

    def _measured(self) -> list[Measured]:
        setting = self.group.setting
        size, limit = setting.evaluation_batch_size, setting.workload.training_evaluation_examples
        first = self._of_split(setting.data.training, size, limit)
        second = self._of_split(setting.data.validation, size, None)
        return [one | other for one, other in zip(first, second, strict=True)]

    def _of_split(self, split: Split, size: int, limit: int | None) -> list[Measured]:
        """The means of all metrics over a split, for each trial, added up as `evaluate` does."""
        sums: Sums = {}
        total = 0
        with torch.no_grad():
            for batch, count in split.in_order(size, limit):
                for name, values in self._metrics(Batch.shared(batch), count).items():
                    parts = [row.sum() for row in values.to(torch.float64).unbind(0)]
                    known = sums.get(name)
                    sums[name] = parts if known is None else [a + b for a, b in zip(known, parts, strict=True)]
                total += count
        means = (torch.stack([torch.stack(parts) for parts in sums.values()], dim=1) / total).tolist()
        return [{f"{split.name}/{name}": mean for name, mean in zip(sums, row, strict=True)} for row in means]

    def _metrics(self, batch: Batch, count: int) -> dict[str, torch.Tensor]:
        """Metrics by name, [K, examples]."""
        if batch.signature not in self._recordings:
            self._recordings[batch.signature] = self._recorded(batch, count)
        replay, names = self._recordings[batch.signature]
        with torch.inference_mode():
            return dict(zip(names, replay(*self._inputs(), *batch.leaves), strict=True))

    def _inputs(self) -> list[torch.Tensor]:
        model = self.group.model
        return [*model.parameters.values(), *model.buffers.values(), *(values for _, _, values in model.settings)]

    def _recorded(self, batch: Batch, count: int) -> tuple[Any, list[str]]:
        model, runs, task = self.group.model, self.group.runs, self.group.task
        inputs = [tensor.detach() for tensor in self._inputs()]
        tape = Tape([*inputs, *batch.leaves])
        operations = Operations(len(runs), task.rules, Sites(tape.add_input), care=task.care)
        named = dict(zip([*model.parameters, *model.buffers], inputs, strict=False))
        own = [TrialTensor(values, operations, is_number=True) for values in inputs[len(named) :]]
        model.install({name: operations.trial(tensor) for name, tensor in named.items()}, own)
        model.template.eval()
        with tape, DropoutOfSharedValues(operations):
            given = pytree.tree_unflatten(list(batch.leaves), batch.form)
            metrics = self.group.setting.workload.metrics(model.template, given)
        for name, values in metrics.items():
            if not isinstance(values, TrialTensor) or tuple(values.shape) != (count,):
                raise NotFusible(f"the metric {name!r} is not one value for each example of each trial")
        graph = tape.finished([values.stacked for values in metrics.values()])
        check_graph(graph, 0)
        simplify(graph)
        return quickened(graph).forward, list(metrics)
