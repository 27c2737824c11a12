"""Evaluation of a split: per-example metrics, averaged over examples and not over batches (B41, D6)."""

from collections.abc import Callable
from typing import Any

import torch

from tuner.design.objective import Metric
from tuner.design.workload import Workload
from tuner.errors import Interrupted, WorkloadError
from tuner.training.batches import Split


def evaluate(
    workload: Workload,
    model: torch.nn.Module,
    split: Split,
    *,
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Mean of every metric over the split, in eval mode, named "split/metric".

    Sums are kept in float64 on the device and read back once. The model is left in eval mode. Raises Interrupted where
    `stop()`, called before each batch, is true.
    """
    model.eval()
    sums: dict[str, torch.Tensor] = {}
    total = 0
    with torch.no_grad():
        for batch, count in split.in_order(batch_size):
            check_going_on(stop)
            for name, values in checked_metrics(workload, model, batch, count).items():
                part = values.detach().to(torch.float64).sum()
                sums[name] = sums[name] + part if name in sums else part
            total += count
    names = list(sums)
    means = (torch.stack([sums[name] for name in names]) / total).tolist()
    return {str(Metric(split.name, name)): mean for name, mean in zip(names, means, strict=True)}


def check_going_on(stop: Callable[[], bool]) -> None:
    """Raise Interrupted in the midst of an evaluation that is to stop: it is made again where training goes on."""
    if stop():
        raise Interrupted("stopped within an evaluation; run the same command again to go on")


def checked_metrics(
    workload: Workload, model: torch.nn.Module, batch: Any, num_examples: int
) -> dict[str, torch.Tensor]:
    """The workload's metrics of a batch, each a tensor [num_examples]. Raises WorkloadError otherwise."""
    metrics = workload.metrics(model, batch)
    owner = f"{type(workload).__name__}.metrics"
    if not isinstance(metrics, dict) or not metrics:
        raise WorkloadError(f"{owner} must return a dict of tensors, got {type(metrics).__name__}")
    for name, values in metrics.items():
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        if shape != (num_examples,):
            raise WorkloadError(
                f"{owner} must return one value per example: {name!r} should have the shape ({num_examples},), "
                f"got {shape}; use reduction='none' and average over everything but the examples"
            )
    return metrics
