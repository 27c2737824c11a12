"""Values in the data that are not finite: looked for before they spoil a study, and named where a trial diverges.

A NaN in an input or a label need not be wrong: a loss may mask it. Only a loss or metric that is not finite proves it.
"""

import logging
import math
import time
from collections.abc import Collection, Mapping
from functools import partial

import torch

from tuner.design.objective import Metric
from tuner.design.trial import Trial
from tuner.errors import WorkloadError
from tuner.training.batches import Split
from tuner.training.denormals import denormals_as_zero
from tuner.training.evaluation import Tally, checked_metrics, tallied
from tuner.training.models import build_model
from tuner.training.precision import computing
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.setup import TrainingSetup
from tuner.training.spoiled import spoiled_examples, spoiled_in
from tuner.training.trial_run import TrialRun
from tuner.training.update import Draws, draw_seed
from tuner.training.whole_update import stage

logger = logging.getLogger(__name__)
SLOW_LOOK = 3.0  # seconds; a look at a whole split that takes longer is announced


def check_validation(setup: TrainingSetup, trial: Trial, most_seconds: float | None = None) -> bool:
    """Evaluate the selection metric of an untrained model on every validation example, once. Writes nothing.

    Returns False, and logs how long it would take, where that exceeds `most_seconds`. Raises WorkloadError where an
    example has no value: its mean over the split could then never be finite, and no checkpoint be selected. The same
    where a metric of the whole split has no value, the fit criterion on the training split included.
    """
    name, split = type(setup.workload).__name__, setup.data.validation
    with callers_generators_restored(setup.device), denormals_as_zero(setup.device):
        model = build_model(setup, trial).eval()
        seed_global_generators(draw_seed(Draws.EVALUATION, trial.seed, 0), setup.device)
        tally = Tally(setup.workload, split)
        in_precision = partial(computing, setup.precision_of(trial), setup.device)
        with torch.no_grad(), in_precision(), stage(f"{name}.metrics"):
            bad, nan = _not_finite(setup, model, tally, most_seconds)
        if bad is None:
            return False
        _check_split_metrics(setup, tally, setup.study.objective.measured)
        criterion = setup.study.fitted_when
        if criterion is not None and _fits_by_split(setup, tally):
            size = setup.evaluation_batch_size
            with in_precision(), stage(f"{name}.metrics"):
                fitted = tallied(setup.workload, model, setup.data.training_sample, batch_size=size)
            _check_split_metrics(setup, fitted, criterion.measured)
    if bad:
        first = torch.tensor(bad[:1])
        held = spoiled_in(split.take(first), first) if split.count is None else None
        words = (
            f"{setup.study.objective.metric!r} is not finite for {len(bad):,} of {split.size:,} validation "
            f"examples of an untrained model, the first of them example {bad[0]} (counted from 0)"
            f"{f', which holds {held.what}' if held else ''}"
        )
        if nan or held:
            raise WorkloadError(
                f"{words}; its mean over the split could never be finite and select a checkpoint: mend these examples "
                f"or leave them out in {name}.data"
            )
        logger.warning("%s; a trial that never gets a finite mean will be infeasible", words)
    return True


def _not_finite(
    setup: TrainingSetup, model: torch.nn.Module, tally: Tally, most_seconds: float | None
) -> tuple[list[int] | None, bool]:
    """Indices of the examples without a finite value, and whether one is NaN; None where it would take too long.

    Adds all metrics to `tally`.
    """
    split, size, metric = setup.data.validation, setup.evaluation_batch_size, setup.study.objective.measured.name
    bad: list[int] = []
    nan, seen, began = False, 0, time.perf_counter()
    for batch, count in split.in_order(size):
        metrics = checked_metrics(setup.workload, model, batch, count)
        tally.add(metrics, count)
        values = metrics.get(metric)
        if values is not None and (values.is_floating_point() or values.is_complex()):
            bad += (seen + (~torch.isfinite(values)).nonzero().flatten()).tolist()
            nan = nan or bool(torch.isnan(values).any())
        if not seen:
            fitted = setup.data.training_sample.size if _fits_by_split(setup, tally) else 0
            seconds = (time.perf_counter() - began) * (split.size + fitted) / max(1, count)
            if seconds > SLOW_LOOK:
                also = f" and {fitted:,} training" if fitted else ""
                logger.warning(_PRICE, split.size, also, seconds)
            if most_seconds is not None and seconds > most_seconds:
                return None, False
        seen += count
    return bad, nan


def _number_of(split: Split) -> str:
    return "its" if split.num_examples is None else f"{split.num_examples:,}"


_PRICE = "a launch looks once at all %s validation%s examples, about %.0f s here; it is remembered for these data"


def _fits_by_split(setup: TrainingSetup, tally: Tally) -> bool:
    """Whether the fit criterion reads a metric of the whole split."""
    criterion = setup.study.fitted_when
    return criterion is not None and tally.gathered is not None and criterion.measured.name not in tally.averaged


def _check_split_metrics(setup: TrainingSetup, tally: Tally, metric: Metric) -> None:
    """Raise WorkloadError for NaN over the whole split, and where `metric` has no value there."""
    name, split = type(setup.workload).__name__, tally.split
    with stage(f"{name}.split_metrics"):
        found = tally.of_split()
    if metric.name not in tally.averaged:
        check_read(setup, metric, tally.averaged, found)
    where = f"over all {split.size:,} {split.name} examples of an untrained model"
    for one, value in found.items():
        if value is not None and math.isnan(value):
            raise WorkloadError(
                f"{name}.split_metrics returns nan for {one!r} {where}{_spoiled_value(tally)}; return None where it "
                "has no value"
            )
    if metric.name in found and found[metric.name] is None:
        raise WorkloadError(
            f"{name}.split_metrics returns None for {metric.name!r} {where}, and {str(metric)!r} is to be read; where "
            f"a class is missing in {name}.data, mend the split; where it is the model that leaves it without a value, "
            "return the worst one"
        )
    if metric.name in found and not math.isfinite(found[metric.name] or 0.0):
        logger.warning("%r is %s %s; a trial that never gets a finite value will be infeasible", str(metric),
                       found[metric.name], where)  # fmt: skip


def _spoiled_value(tally: Tally) -> str:
    """The first value of an example that is not finite, in words; "" where there is none."""
    for name, values in tally.each.items():
        if not isinstance(values, torch.Tensor) or not values.is_floating_point():
            continue
        bad = (~torch.isfinite(values)).flatten(1 if values.dim() > 1 else 0)
        rows = (bad.any(1) if bad.dim() > 1 else bad).nonzero().flatten()
        if len(rows):
            first = int(rows[0])
            held = spoiled_in(tally.split.take(rows[:1].cpu()), rows[:1].cpu()) if tally.split.count is None else None
            return (
                f" ({name!r} is not finite for {len(rows):,} of them, the first of them example {first}, counted from 0"
                f"{f', which holds {held.what}' if held else ''})"
            )
    return ""


def check_read(
    setup: TrainingSetup, metric: Metric, averaged: Collection[str], of_split: Mapping[str, float | None]
) -> None:
    """Raise WorkloadError for a metric that is to be read, and that the workload does not measure."""
    name = type(setup.workload).__name__
    if metric.name in averaged or metric.name in of_split:
        return
    raised = f"{str(metric)!r} is to be read, but"
    if metric.name in setup.workload.not_averaged:
        raise WorkloadError(f"{raised} {name}.not_averaged names it: it has no mean; name another one")
    also = f", and {name}.split_metrics {', '.join(map(repr, of_split)) or 'nothing'}"
    if str(metric) in averaged or str(metric) in of_split:
        raise WorkloadError(
            f"{raised} {name} returns {str(metric)!r}, which is recorded for each split, as "
            f"'{metric.split}/{metric}': return {metric.name!r}"
        )
    raise WorkloadError(
        f"{raised} {name}.metrics returns only {', '.join(map(repr, averaged)) or 'what is not averaged'}"
        f"{also if setup.workload.declares('split_metrics') else ''}; return it, or name one of these"
    )


def warn_of_training(setup: TrainingSetup, trial: Trial) -> None:
    """Say which training examples in memory spoil a loss: a batch that holds the first of them is tried.

    Of a dataset the first batch alone is looked at. Writes nothing.
    """
    found = spoiled_examples(setup.data.training)
    if found is None:
        return
    with callers_generators_restored(setup.device), denormals_as_zero(setup.device), torch.no_grad():
        run = TrialRun(setup, trial)
        others = torch.arange(setup.data.training.up_to(run.batches.slice_size))
        batch = setup.data.training.take(torch.cat([torch.tensor([found.first]), others[others != found.first]]))
        seed_global_generators(draw_seed(Draws.LOSS, trial.seed, 0), setup.device)
        with computing(run.rule.precision, setup.device):
            loss = setup.workload.loss(run.model.train(), batch, run.point)
    if torch.isfinite(loss):
        return
    logger.warning(
        "the loss of a batch with training example %d (counted from 0) is %s: it holds %s; %s of %s examples hold "
        "values that are not finite, and every trial that meets one diverges: mend them or leave them out in %s.data",
        found.first, float(loss), found.what, f"{found.count:,}", _number_of(setup.data.training),
        type(setup.workload).__name__,
    )  # fmt: skip
