"""One whole update of a throw-away trial, its state saved and loaded again: what training does, before anything trains.

The live copy makes two updates and is saved; a fresh one loads what was saved; then both make one more update from the
same batch. Where they differ, something that decides the bits is not in the checkpoint, and a resumed trial would
silently be another than one that ran through. Costs two models, at most four updates and one checkpoint in memory.
"""

import copy
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

from tuner.errors import TunerError, WorkloadError
from tuner.training.batches import TrainingBatches
from tuner.training.best import snapshot
from tuner.training.checkpoints import state_in, weights_as_file, weights_in, write_state_to
from tuner.training.endings import before_training, first_line
from tuner.training.extra_state import as_bytes, extra_state_of, state_dict_of, tensors_of, value_of
from tuner.training.first_loss import left_as_it_was
from tuner.training.host_generators import HOST
from tuner.training.memory import free_bytes
from tuner.training.numerics import is_repeatable
from tuner.training.optimizers import OptimizerNotMade, settle_sparse
from tuner.training.python_state import remembered
from tuner.training.saving import num_bytes
from tuner.training.slices_look import check_slice_weights
from tuner.training.stability import clip_gradients, diverged_weights
from tuner.training.trial_run import TrialRun
from tuner.training.update import Update

logger = logging.getLogger(__name__)
UPDATES = 2  # before the state is saved: what the first one leaves behind, the second one may read
ROOM = 4  # a state is tried only where so many times its bytes are free
COPIED = 1 << 20  # elements of a tensor that stands in an attribute, up to which it is compared
NAMED = 3  # of what differs, so many are named
_CLOSE = (
    "register_buffer for tensors, get_extra_state and set_extra_state of the module for anything else, and self.state "
    "for what an optimizer keeps"
)


@contextmanager
def stage(what: str, point: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Whatever goes wrong within is a WorkloadError that names this stage.

    `point`: what user code is given; a KeyError for a name that it lacks is reported as such.
    """
    try:
        yield
    except (TunerError, torch.OutOfMemoryError):
        raise
    except OptimizerNotMade as error:
        raise WorkloadError(str(error)) from error
    except Exception as error:
        if isinstance(error, KeyError) and point is not None and error.args and error.args[0] not in point:
            owner = what.partition(".")[0]
            raise WorkloadError(
                f"{owner} asks its point for {error}, which the search space does not declare; there are: "
                f"{', '.join(point)}"
            ) from error
        raise WorkloadError(f"{what} failed with {type(error).__name__}: {first_line(error)}") from error


def try_update(run: TrialRun) -> None:
    """The first update of a fresh trial, in the order of `Update.make`; WorkloadError names the stage that failed."""
    setup, workload, point = run.setup, run.setup.workload, run.point
    name = type(workload).__name__
    with stage("the first batch of the training split"):
        batch = run.batches.at(0)
    if setup.study.augment and workload.augments:
        with stage(f"{name}.augment", point):
            batch = run.slice_at(0)
    update = Update(setup, run.rule, run.model, run.parameters, run.optimizer)
    update.prepare(0, host_draws=False)
    with _without_kernel(run), stage(f"{name}.loss", point):
        loss = update.loss(run.model, batch, point)
    _check_loss(loss, name)
    with stage("the backward pass of the loss"):
        loss.backward()
    if run.rule.slices > 1:
        slices = run.batch_at(0)
        with stage(f"{name}.weight of a slice", point):
            check_slice_weights(run, slices)
        with stage("the slices of the first batch", point):
            loss = update.by_slices(slices, point, 0)
    with stage("the optimizer's step"):
        settle_sparse(run.optimizer, run.parameters)
    if run.rule.clip_norm is not None:
        with stage("clipping the gradient by clip_norm"):
            run.norms.append(clip_gradients(run.parameters, run.rule.clip_norm))
    with stage("the optimizer's step"):
        update.apply(0)
    with stage("the norm of gradient and weights"):
        diverged_weights(run.read_gradient_norm(), run.parameters, 1)
    run.draws = run.draws or HOST.touched
    run.losses.append(loss.detach())
    run.moved()


@contextmanager
def _without_kernel(run: TrialRun) -> Iterator[None]:
    """Say the way out where it is likely that torch has no kernel for recurrent layers in fp16 on a CPU."""
    try:
        yield
    except WorkloadError as error:
        recurrent = [type(one).__name__ for one in run.model.modules() if isinstance(one, torch.nn.RNNBase)]
        if not (recurrent and run.rule.precision == "fp16" and run.setup.device.type == "cpu"):
            raise
        raise WorkloadError(
            f'{error}; torch may have no kernel for {recurrent[0]} in fp16 on this CPU: write precision="bf16" or '
            '"float32", or train on a GPU'
        ) from error


def _check_loss(loss: object, name: str) -> None:
    if not isinstance(loss, torch.Tensor) or loss.dim() != 0:
        got = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise WorkloadError(f"{name}.loss must return a scalar tensor, got {got}; average or sum over the batch")
    if not loss.requires_grad:
        raise WorkloadError(f"{name}.loss does not depend on the model's parameters; is it computed under no_grad?")


def check_saving(run: TrialRun) -> None:
    """Save a trial that has made its first update, load it into a fresh one, and compare how both go on.

    Raises WorkloadError for what cannot be saved, and for what changes in training and is not saved.
    """
    with left_as_it_was(run.setup.workload):
        before = values_held(run.setup.workload, run.model)
        run.batches = _Kept(run.batches)
        _advance(run, min(UPDATES, len(run.rates) - 1))
        _check_entries(run)
        _check_weights(run)
        if ROOM * num_bytes(run.state()) > free_bytes(run.setup.device):
            logger.warning("the model is too large for a second one in memory: whether it can be resumed is not tried")
            return
        saved, held = _saved(run), values_held(None, run.model)
        extra = {name: one.clone() for name, one in extra_state_of(run.model).items()}
        moved = changed_names(before, values_held(run.setup.workload, run.model))
        _go_on(run)
    restored = _restored(run, saved)
    _check_loaded(restored, saved)
    if run.step == restored.step or not is_repeatable(run.setup.device):
        return  # a trial of one update; a device on which nothing is the same twice
    lost = changed_names(values_held(None, restored.model), held)
    lost += [f"the extra state of {name}" for name, one in extra.items() if not _equal_extra(one, restored, name)]
    with left_as_it_was(run.setup.workload):
        _go_on(restored)
    difference = _difference(run, restored)
    if difference:
        _refuse(run, restored, saved, difference, lost or moved)


def _check_entries(run: TrialRun) -> None:
    """Raise WorkloadError for an entry of the state dict that is no tensor and could not be read again."""
    with stage("the model's state_dict"):
        entries = run.model.state_dict()
    for name, value in entries.items():
        if isinstance(value, torch.Tensor):
            continue
        try:
            value_of(as_bytes(value), run.setup.device)
        except Exception as error:
            raise WorkloadError(
                f"{name!r} in the model's state_dict cannot be saved ({type(error).__name__}: it holds more than plain "
                f"values): {str(value)[:60]}; return numbers, texts, lists, dicts, sets or tensors from get_extra_state"
            ) from error


def _check_weights(run: TrialRun) -> None:
    """The weights as the best checkpoint would hold them, written and read in memory."""
    with stage("saving the weights, which the best checkpoint holds,"):
        read = weights_in(weights_as_file(snapshot(run.model)))
    _check_same_bits(state_dict_of(run.model), read, "its weights, saved and read,")


def _saved(run: TrialRun) -> dict[str, Any]:
    """The state of a trial, written and read as a checkpoint is."""
    file = io.BytesIO()
    with stage("saving the state of a trial"):
        state = run.state()
        write_state_to(file, state)
        read = state_in(file.getvalue())
    _check_same_bits(state, read, "its state, saved and read,")
    return read


def _check_same_bits(before: object, after: object, what: str) -> None:
    if not _same_bits(before, after):
        raise WorkloadError(f"{what} does not have the same bits; a tensor of a type that cannot be saved exactly?")


def _same_bits(one: Any, other: Any) -> bool:
    """Whether two states are equal bit for bit, containers and numbers too."""
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        mine, theirs = (each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
        return torch.equal(mine, theirs)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same_bits(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same_bits, one, other))
    return repr(one) == repr(other)


def _restored(run: TrialRun, saved: Mapping[str, Any]) -> TrialRun:
    """A fresh trial that went on from a saved state, with the batches that the live one had."""
    with stage("loading a saved state into a fresh model"):
        fresh = TrialRun(run.setup, run.trial)
        fresh.load(copy.deepcopy(dict(saved)))
        fresh.batches = run.batches
    return fresh


def _check_loaded(restored: TrialRun, saved: Mapping[str, Any]) -> None:
    now = restored.state()
    for part in ("model", "optimizer", "losses", *({"averages"} & saved.keys())):
        _check_same_bits(saved[part], now[part], f"the {part} of a loaded state")


def _go_on(run: TrialRun) -> None:
    """One more update with the same random numbers for every run: only the state can differ."""
    if run.step < len(run.rates):
        _advance(run, run.step + 1)


def _advance(run: TrialRun, step: int) -> None:
    """The updates up to `step`. Raises WorkloadError for what the first one did not show."""
    with before_training(f"update {run.step + 1}"):
        run.advance(step)


def _difference(live: TrialRun, restored: TrialRun) -> str:
    one, other = live.losses[-1], restored.losses[-1]
    if not same_values(one, other):
        return f"the loss of its next update is {float(other)!r} instead of {float(one)!r}"
    mine, theirs = _trained(live), _trained(restored)
    first = next((name for name, value in mine.items() if not same_values(value, theirs.get(name))), "")
    return first and f"{first} is another after its next update"


def _trained(run: TrialRun) -> dict[str, torch.Tensor]:
    averages = {} if run.averages is None else run.averages.state()
    return tensors_of(run.model) | {f"the average of {name}": value for name, value in averages.items()}


def _refuse(live: TrialRun, restored: TrialRun, saved: Mapping[str, Any], difference: str, suspects: list[str]) -> None:
    """Raise, unless the same state goes on in two ways by itself: then it is no matter of what was saved."""
    if not suspects:
        again = _restored(live, saved)
        with left_as_it_was(live.setup.workload):
            _go_on(again)
        if _difference(restored, again):
            logger.warning("the same state and batch do not give the same update twice: something draws at random")
            return
    named = f" ({', '.join(suspects[:NAMED])})" if suspects else ""
    raise WorkloadError(
        f"a trial that is saved after {live.step - 1} updates and resumed is another than one that runs through: "
        f"{difference}; something changes in training that no checkpoint holds{named}: use {_CLOSE}"
    )


def values_held(owner: object, model: torch.nn.Module) -> dict[str, object]:
    """What is `remembered`, with copies of the tensors; large ones are left out, and what a look at a group left."""
    held = remembered(owner, model)
    small = {name: one for name, one in held.items() if not isinstance(one, torch.Tensor) or _is_compared(one)}
    return {name: one.detach().clone() if isinstance(one, torch.Tensor) else one for name, one in small.items()}


def _is_compared(tensor: torch.Tensor) -> bool:
    """Whether a tensor is small and has one value: code may have kept the point of a group, whose numbers have many."""
    return type(tensor).__module__.partition(".")[0] != "tuner" and tensor.numel() <= COPIED


def changed_names(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Names of what is new or another than before."""
    return [name for name, value in after.items() if name not in before or not same_values(value, before[name])]


def same_values(one: object, other: object) -> bool:
    """Equal bits, but that any NaN is as good as another."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if (one.shape, one.dtype, one.layout) != (other.shape, other.dtype, other.layout):
            return False
        if one.layout is not torch.strided:
            return bool(torch.equal(one.to_dense(), other.to_dense()))
        return bool(torch.equal(one.detach().nan_to_num(7e33), other.detach().nan_to_num(7e33)))
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    return bool(one == other) or (one != one and other != other)


def _equal_extra(saved: torch.Tensor, restored: TrialRun, name: str) -> bool:
    """Whether a module has the same extra state as before; True where they cannot be compared."""
    device = restored.setup.device
    with suppress(Exception):
        return same_values(value_of(saved, device), value_of(extra_state_of(restored.model)[name], device))
    return True


class _Kept(TrainingBatches):
    """The batches of a trial, read from the data once; each run that trains on them gets a copy."""

    def __init__(self, batches: TrainingBatches) -> None:
        vars(self).update(vars(batches))
        self._batches = batches
        self._known: dict[tuple[int, int], Any] = {}

    def at(self, step: int, part: int = 0) -> Any:
        key = step, part
        if key not in self._known:
            self._known[key] = self._batches.at(step, part)
        try:
            return copy.deepcopy(self._known[key])
        except Exception:  # an object of the user's that cannot be copied
            return self._known[key]
