"""Values in the data that are not finite: looked for before they spoil a study, and named where a trial diverges.

A NaN in an input or a label need not be wrong: a loss may mask it. Only a loss or metric that is not finite proves it.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tuner.design.trial import Trial
from tuner.errors import WorkloadError
from tuner.training.batches import Split
from tuner.training.denormals import denormals_as_zero
from tuner.training.evaluation import checked_metrics
from tuner.training.randomness import callers_generators_restored, epoch_order, seed_global_generators, step_seed
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun, build_model
from tuner.training.whole_update import stage

logger = logging.getLogger(__name__)
SLOW_LOOK = 3.0  # seconds; a look at a whole split that takes longer says so before
CHUNK = 64 * 2**20  # bytes of a split that are looked at once
DEPTH = 4  # so deep tensors are looked for in a batch


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Examples that hold values which are not finite: how many, the first (its index in the split), and what it holds.

    `what`: "nan in tensor 1", or the name under which a batch has it.
    """

    count: int
    first: int
    what: str


def check_validation(setting: TrainingSetup, trial: Trial, most_seconds: float | None = None) -> bool:
    """Evaluate the selection metric of an untrained model on every validation example, once. Writes nothing.

    Returns False, and says what it would take, where that is more than `most_seconds`. Raises WorkloadError where an
    example has no value: its mean over the split could then never be finite, and no checkpoint be selected.
    """
    name, split = type(setting.workload).__name__, setting.data.validation
    metric = setting.study.objective.measured.name
    with callers_generators_restored(setting.device), denormals_as_zero(setting.device):
        model = build_model(setting, trial).eval()
        seed_global_generators(step_seed(trial.seed ^ 2, 0), setting.device)
        with torch.no_grad(), stage(f"{name}.metrics"):
            bad, nan = _not_finite(setting, model, metric, most_seconds)
    if bad is None:
        return False
    if bad:
        held = spoiled_in(split.take(torch.tensor(bad[:1])), torch.tensor(bad[:1]))
        words = (
            f"{setting.study.objective.metric!r} is not finite for {len(bad):,} of {split.num_examples:,} validation "
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
    setting: TrainingSetup, model: torch.nn.Module, metric: str, most_seconds: float | None
) -> tuple[list[int] | None, bool]:
    """Indices of the examples without a finite value, and whether one is NaN; None where it would take too long."""
    split, size = setting.data.validation, setting.evaluation_batch_size
    bad: list[int] = []
    nan, seen, began = False, 0, time.perf_counter()
    for batch, count in split.in_order(size):
        values = checked_metrics(setting.workload, model, batch, count).get(metric)
        if values is not None and (values.is_floating_point() or values.is_complex()):
            bad += (seen + (~torch.isfinite(values)).nonzero().flatten()).tolist()
            nan = nan or bool(torch.isnan(values).any())
        if not seen:
            seconds = (time.perf_counter() - began) * split.num_examples / count
            if seconds > SLOW_LOOK:
                logger.warning(_PRICE, split.num_examples, seconds)
            if most_seconds is not None and seconds > most_seconds:
                return None, False
        seen += count
    return bad, nan


_PRICE = "a launch looks once at all %s validation examples, about %.0f s here; it is remembered for these data"


def warn_of_training(setting: TrainingSetup, trial: Trial) -> None:
    """Say which training examples in memory spoil a loss: a batch that holds the first of them is tried.

    Of a dataset the first batch alone is looked at. Writes nothing.
    """
    found = spoiled_examples(setting.data.training)
    if found is None:
        return
    with callers_generators_restored(setting.device), denormals_as_zero(setting.device), torch.no_grad():
        run = TrialRun(setting, trial)
        others = torch.arange(min(run.batches.batch_size, setting.data.training.num_examples))
        batch = setting.data.training.take(torch.cat([torch.tensor([found.first]), others[others != found.first]]))
        seed_global_generators(step_seed(trial.seed, 0), setting.device)
        loss = setting.workload.loss(run.model.train(), batch, run.point)
    if torch.isfinite(loss):
        return
    logger.warning(
        "the loss of a batch with training example %d (counted from 0) is %s: it holds %s; %s of %s examples hold "
        "values that are not finite, and every trial that meets one diverges: mend them or leave them out in %s.data",
        found.first, float(loss), found.what, f"{found.count:,}", f"{setting.data.training.num_examples:,}",
        type(setting.workload).__name__,
    )  # fmt: skip


def spoiled_examples(split: Split) -> Spoiled | None:
    """Examples of a split in memory, or among the first of a dataset, that hold what is not finite."""
    total, found = 0, None
    for indices in _looked_at(split):
        here = spoiled_in(split.take(indices), indices)
        if here is not None:
            total, found = total + here.count, found or here
    return found and Spoiled(total, found.first, found.what)


def _looked_at(split: Split) -> Iterator[torch.Tensor]:
    """Indices of the examples that are looked at, some at a time."""
    if split.tensors is None:
        yield torch.arange(min(split.num_examples, 2))
        return
    if all(_is_finite(tensor) for tensor in split.tensors):
        return
    rows = max(1, CHUNK * split.num_examples // max(1, split.num_bytes or 1))
    yield from torch.split(torch.arange(split.num_examples), rows)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are surely finite: then their sum is, and it takes no memory."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(torch.isfinite(tensor.sum(dtype=torch.complex128 if tensor.is_complex() else torch.float64)))


def spoiled_in(batch: Any, indices: torch.Tensor) -> Spoiled | None:
    """Which of the examples of a batch, at `indices` of its split, hold values that are not finite; None for none."""
    count = len(indices)
    spoiled, first, what = torch.zeros(count, dtype=torch.bool), count, ""
    for name, tensor in _named_tensors(batch, "tensor"):
        if tensor.dim() == 0 or len(tensor) != count or tensor.layout is not torch.strided or _is_finite(tensor):
            continue
        values = tensor.detach().reshape(count, -1)
        rows = (~torch.isfinite(values)).any(1).cpu()
        place = int(rows.nonzero()[0]) if rows.any() else count
        if place < first:
            first, what = place, f"{'nan' if torch.isnan(values[place]).any() else 'inf'} in {name}"
        spoiled |= rows
    return Spoiled(int(spoiled.sum()), int(indices[first]), what) if what else None


def _named_tensors(batch: Any, name: str, depth: int = DEPTH) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a batch of any form, by their place in it."""
    if isinstance(batch, torch.Tensor):
        yield name, batch
    elif not depth:
        return
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _named_tensors(value, f"{name} {key!r}", depth - 1)
    elif isinstance(batch, tuple | list):
        for place, value in enumerate(batch):
            yield from _named_tensors(value, f"{name} {place}", depth - 1)
    elif hasattr(batch, "__dict__"):
        yield from _named_tensors(vars(batch), name, depth - 1)


def what_spoiled(run: TrialRun, step: int) -> str:
    """What the batch of update number `step` (from 1) holds that is not finite, in words; empty for nothing."""
    batches = run.batches
    epoch, position = divmod(step - 1, batches.batches_per_epoch)
    order = epoch_order(batches.data_seed, epoch, batches.split.num_examples)
    indices = order[position * batches.batch_size : (position + 1) * batches.batch_size]
    try:
        found = spoiled_in(batches.fetched(step - 1), indices)
    except Exception:  # it is told beside the real reason, and may not take its place
        return ""
    return f"; its batch holds training example {found.first}, which has {found.what}" if found else ""
