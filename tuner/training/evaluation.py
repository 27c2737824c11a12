"""Evaluation of a split: per-example metrics, averaged over examples and not over batches (B41, D6).

Metrics of the whole split are made of what was kept for each example (`split_metrics`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tuner.design.objective import Metric
from tuner.design.workload import Workload
from tuner.errors import Interrupted, WorkloadError
from tuner.training.batches import Split
from tuner.training.split_metrics import Gathered, split_measured, with_values


def evaluate(
    workload: Workload,
    model: torch.nn.Module,
    split: Split,
    *,
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Every metric of the split, in eval mode, named "split/metric": means over the examples, then `split_metrics`.

    Sums are kept in float64 on the device and read back once. The model is left in eval mode. Raises Interrupted where
    `stop()`, called before each batch, is true.
    """
    return tallied(workload, model, split, batch_size=batch_size, stop=stop).measured()


def tallied(
    workload: Workload,
    model: torch.nn.Module,
    split: Split,
    *,
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> "Tally":
    """The sums of the metrics over the split, and what is kept of each example; called like `evaluate`."""
    model.eval()
    tally = Tally(workload, split)
    with torch.no_grad():
        for batch, count in split.in_order(batch_size):
            check_going_on(stop)
            tally.add(checked_metrics(workload, model, batch, count), count)
    return tally


class Tally:
    """The metrics of a split, added up batch by batch. `each`: what is kept for `split_metrics`, by name."""

    def __init__(self, workload: Workload, split: Split) -> None:
        self.workload = workload
        self.split = split
        self.total = 0
        self.each: dict[str, Any] = {}
        self.gathered = gathering(workload, split)
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, metrics: Mapping[str, Any], count: int) -> None:
        """Add the metrics of a batch of so many examples."""
        averaged = {name: one for name, one in metrics.items() if name not in self.workload.not_averaged}
        self.add_sums(sums_of(averaged), metrics if self.gathered is not None else {}, count)

    def add_sums(self, sums: Mapping[str, torch.Tensor], kept: Mapping[str, Any], count: int) -> None:
        """The same, given the sums [] of those that are averaged, and the values of those that are kept."""
        for name, part in sums.items():
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        if self.gathered is not None:
            for name, values in kept.items():
                self.gathered.add(name, values)
        self.total += count

    @property
    def averaged(self) -> list[str]:
        """Names of the metrics that are means over the examples."""
        return list(self._sums)

    def measured(self) -> dict[str, float]:
        """The metrics by "split/metric"; one that has no value is left out. Raises the errors of `split_metrics`."""
        names = self.averaged
        means = (torch.stack([self._sums[name] for name in names]) / self.total).tolist() if names else []
        found = dict(zip(names, means, strict=True)) | with_values(self.of_split())
        return {str(Metric(self.split.name, name)): value for name, value in found.items()}

    def of_split(self) -> dict[str, float | None]:
        """The metrics of the whole split, by name; none where the workload has no such metrics."""
        if self.gathered is None:
            return {}
        self.each = self.gathered.whole(self.total)
        return split_measured(self.workload, self.each, self.averaged)


def sums_of(metrics: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The sums of a batch's metrics over its examples: float64 [], on the device, by name."""
    return {name: values.detach().to(torch.float64).sum() for name, values in metrics.items()}


def gathering(workload: Workload, split: Split, trials: int = 1) -> Gathered | None:
    """Where the values of each example are kept, for a workload that has metrics of the whole split."""
    if not workload.declares("split_metrics"):
        return None
    kept_on = split.device if workload.split_metrics_device == "same" else torch.device("cpu")
    return Gathered(type(workload).__name__, kept_on, split.size, trials)


def check_going_on(stop: Callable[[], bool]) -> None:
    """Raise Interrupted in the midst of an evaluation that is to stop: it is made again where training goes on."""
    if stop():
        raise Interrupted("stopped within an evaluation; run the same command again to go on")


def checked_metrics(workload: Workload, model: torch.nn.Module, batch: Any, num_examples: int) -> dict[str, Any]:
    """The workload's metrics of a batch, each a tensor [num_examples]. Raises WorkloadError otherwise.

    Those that are `not_averaged` are tensors [num_examples, ...], or lists of a tensor for each example.
    """
    metrics = workload.metrics(model, batch)
    owner = f"{type(workload).__name__}.metrics"
    if not isinstance(metrics, dict) or not metrics:
        raise WorkloadError(f"{owner} must return a dict of tensors, got {type(metrics).__name__}")
    for name, values in metrics.items():
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        if name in workload.not_averaged:
            if not _is_of_each(values, num_examples):
                raise WorkloadError(
                    f"{owner} must return a value of any shape for each example: {name!r} should have the shape "
                    f"({num_examples}, ...), or be a list of {num_examples} tensors, got {shape}"
                    f"{f' of {len(values)}' if isinstance(values, list | tuple) else ''}"
                )
        elif shape != (num_examples,):
            raise WorkloadError(
                f"{owner} must return one value per example: {name!r} should have the shape ({num_examples},), "
                f"got {shape}; use reduction='none' and average over everything but the examples. A metric of the "
                "whole split (AUC, F1, R2) is computed in split_metrics, from values that not_averaged names"
            )
    return metrics


def _is_of_each(values: object, num_examples: int) -> bool:
    if isinstance(values, torch.Tensor):
        return values.dim() > 0 and len(values) == num_examples
    if not isinstance(values, list | tuple):
        return False
    return len(values) == num_examples and all(isinstance(each, torch.Tensor) for each in values)
