"""The memory that a trial takes: measured in an update, or worked out from two portions of a batch before one is made.

The gradient of a whole batch takes what the portions show on a straight line; where it grows faster (a loss that
compares all examples of a batch with each other) only a whole update shows it.
"""

import gc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import torch

from tuner.records import StepMemory
from tuner.training.allocations import allocated, bytes_of
from tuner.training.averages import Averages
from tuner.training.batches import TrainingBatches
from tuner.training.best import snapshot_bytes
from tuner.training.containers import leaves, taken_apart
from tuner.training.first_loss import left_as_it_was
from tuner.training.gang import Gang
from tuner.training.gang_sums import exchange_bytes
from tuner.training.memory import free_bytes, reachable_bytes
from tuner.training.optimizers import kept_bytes, state_bytes
from tuner.training.randomness import callers_generators_restored
from tuner.training.saving import BACKGROUND_BYTES
from tuner.training.setup import TrainingSetup
from tuner.training.update import Update, UpdateRule

PORTION = 8  # of so many parts of a batch, one and two are tried
FEWEST = 2  # examples of a portion: batch norms and losses that compare examples take no single one


class Measurable(Protocol):
    """What is read of a trial; a `TrialRun` has it."""

    setup: TrainingSetup
    rule: UpdateRule
    point: Mapping[str, Any]
    model: torch.nn.Module
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    batches: TrainingBatches
    averages: Averages | None
    step: int
    draws: bool
    gang: Gang | None

    @property
    def rates(self) -> Sequence[float]: ...

    def batch_at(self, step: int) -> Any: ...


def memory_of_update(run: Measurable) -> StepMemory:
    """Make an update of a throw-away trial, and the loss of a slice once more, and see what they take.

    To be called after a first update, which makes what stays: the optimizer's state, the workspaces of libraries.
    """
    update, step = _update_of(run), min(run.step, len(run.rates) - 1)
    batch = run.batch_at(step)
    _clear(run)
    with allocated(run.setup.device) as whole:
        update.make(batch, run.point, step, host_draws=run.draws)
    gradients = bytes_of([one.grad for one in run.parameters if one.grad is not None])
    size = run.batches.batch_size
    examples = size // run.rule.slices
    part = batch if run.rule.slices == 1 else run.setup.data.training.some(examples)[0]
    _clear(run)
    activations = _of_loss(run, update, part)
    return _memory(run, batch, (gradients, activations, whole.peak), examples)


def foreseen_memory(run: Measurable) -> StepMemory:
    """What an update of a whole batch will probably take, from the loss and gradient of two portions of one.

    Raises what the loss raises; what it leaves in the model (running means) stays there.
    """
    update, size = _update_of(run), run.batches.batch_size // run.rule.slices
    split = run.setup.data.training
    small = min(size, max(FEWEST, size // PORTION))
    large = min(2 * small, size)
    _tried(run, update, _cut_off(split.some(small)[0]))  # makes what stays
    one, other = (_tried(run, update, _cut_off(split.some(count)[0])) for count in (small, large))
    gradients = _gradient_bytes(run)
    activations, working = (
        _on_a_line((small, mine), (large, more), size) for mine, more in zip(one, other, strict=True)
    )
    batch = split.some(small)[0]
    grown = run.batches.batch_size / small
    peak = max(working, activations) + gradients * (1 if size == run.batches.batch_size else 2)
    found = _memory(run, batch, (gradients, activations, peak), size, grown)
    _clear(run)
    return found


def _cut_off(batch: Any) -> Any:
    """The batch without the graphs that its tensors may hang on: the first update reports those, and needs them."""
    if not any(isinstance(one, torch.Tensor) and one.requires_grad for one in leaves(batch)):
        return batch
    parts, form = taken_apart(batch)
    return form.filled(iter([one.detach() if isinstance(one, torch.Tensor) else one for one in parts]))


def is_too_much(run: Measurable, memory: StepMemory) -> bool:
    """Whether it is sure that an update needs more memory than there is, with swap space and all that can be freed.

    Copies that are kept do not count: a short trial may end before the one of a state that is saved is made.
    """
    if memory.fits:
        return False
    free = free_bytes(run.setup.device)
    more = max(0, reachable_bytes(run.setup.device) - free)
    return not replace(memory, kept=0, free=memory.free + more).fits


def _on_a_line(first: tuple[int, int], second: tuple[int, int], size: int) -> int:
    """What `size` examples take, by what two numbers of examples take."""
    (few, low), (many, high) = first, second
    if many == few:
        return high
    # Never above what is in proportion to the examples: a line that rises faster is one of two portions that are padded
    # to different lengths, or of what was made for the second one and stays.
    return max(low, round(min(low + (high - low) / (many - few) * (size - few), high / many * size)))


def _gradient_bytes(run: Measurable) -> int:
    """Of the gradients that are there, sparse ones as they are, and of parameters that had none yet."""
    there = [one.grad for one in run.parameters if one.grad is not None]
    return bytes_of(there) + bytes_of([one for one in run.parameters if one.grad is None])


def _tried(run: Measurable, update: Update, batch: object) -> tuple[int, int]:
    """Bytes that the loss of a batch holds, and the most that its gradient takes besides the gradients themselves."""
    _clear(run)
    update.prepare(0, host_draws=False)
    device = run.setup.device
    with allocated(device) as forward:
        loss = update.loss(run.model, batch, run.point)
    with allocated(device) as backward:
        loss.backward()
    del loss
    gradients = bytes_of([one.grad for one in run.parameters if one.grad is not None])
    return forward.left, max(forward.peak, forward.left + backward.peak - gradients)


def _of_loss(run: Measurable, update: Update, batch: object) -> int:
    update.prepare(0, host_draws=False)
    with allocated(run.setup.device) as forward:
        loss = update.loss(run.model, batch, run.point)
    del loss
    return forward.left


def _memory(
    run: Measurable, batch: object, measured: tuple[int, int, int], examples: int, grown: float = 1.0
) -> StepMemory:
    """`measured`: gradients, activations of so many examples, and the peak of an update.

    grown: a whole batch is so many times the one that is given; 1 where a whole one was trained on.
    """
    gradients, activations, peak = measured
    parameters, buffers = bytes_of(list(run.model.parameters())), bytes_of(list(run.model.buffers()))
    there = kept_bytes(run.optimizer)
    optimizer = there or state_bytes(run.optimizer)
    exchange = 0 if run.gang is None else exchange_bytes(gradients)
    return StepMemory(
        parameters=parameters, gradients=gradients, optimizer=optimizer, buffers=buffers,
        batch=round(grown * _batch_bytes(batch)), activations=activations, examples=examples,
        batch_size=run.batches.batch_size, peak=peak, kept=_kept_bytes(run, optimizer),
        free=free_bytes(run.setup.device) + parameters + buffers + there + _bytes_of_averages(run), whole=grown == 1.0,
        weights=sum(one.numel() for one in run.parameters), exchange=exchange,
    )  # fmt: skip


def _batch_bytes(batch: object) -> int:
    """Of its tensors, which may be parts of a larger memory."""
    return sum(one.numel() * one.element_size() for one in leaves(batch) if isinstance(one, torch.Tensor))


def _kept_bytes(run: Measurable, optimizer: int) -> int:
    """Best weights, averages, and on the CPU the copy of a large state that is saved in the background."""
    model, averages = snapshot_bytes(run.model), _bytes_of_averages(run)
    state = model + optimizer + averages
    saved = state if run.setup.device.type == "cpu" and state >= BACKGROUND_BYTES else 0
    return run.setup.study.keep_best * model + averages + saved


def _bytes_of_averages(run: Measurable) -> int:
    return 0 if run.averages is None else run.averages.num_bytes


def _update_of(run: Measurable) -> Update:
    return Update(run.setup, run.rule, run.model, run.parameters, run.optimizer)


def _clear(run: Measurable) -> None:
    for parameter in run.parameters:
        parameter.grad = None


def out_of_memory_words(run: Measurable) -> str:
    """What an update of a trial needs, how much is free, and what to write; "" where that cannot be found out.

    To be called once nothing holds the tensors of the update that failed.
    """
    workload = run.setup.workload
    _clear(run)
    gc.collect()
    with suppress(Exception), callers_generators_restored(run.setup.device), left_as_it_was(workload):
        return foreseen_memory(run).advice(type(workload).__name__)
    return ""
