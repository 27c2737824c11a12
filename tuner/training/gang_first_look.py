"""The first look with a gang: what would make a trial of several processes another than that of one.

A rank computes the losses of its own slices alone. So whatever the loss of a slice leaves behind for the next one (a
queue, a teacher that follows, the vectors of a spectral norm, a codebook, a counter in Python) would be another thing
on each rank. Statistics of batch norms are the exception: ranks exchange them, and update them in the slices' order.
"""

import copy
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from tuner.errors import WorkloadError
from tuner.training.endings import is_out_of_memory
from tuner.training.first_loss import left_as_it_was
from tuner.training.gang_look import changed_by_loss
from tuner.training.numerics import is_repeatable
from tuner.training.trial_run import TrialRun
from tuner.training.update import Update
from tuner.training.whole_update import changed_names, same_values, values_held

logger = logging.getLogger(__name__)
NAMED = 3  # of what is named in a row
ALONE = "train it without a gang"
# Kinds of what a model keeps, by words in its names, with what may be written instead.
_KINDS = (
    (("queue", "bank", "ptr", "pointer"), "a queue of earlier examples", "larger slices give a loss more to compare"),
    (("teacher", "momentum", "target", "ema"), "a teacher that follows", "ema_steps averages weights after each step"),
    (("weight_u", "weight_v", "._u", "._v"), "a spectral norm", "weight_norm keeps nothing"),
    (("codebook", "embed", "cluster", "code"), "a codebook", "let the loss train it as a parameter"),
)
_OF_TORCH_DISTRIBUTED = str(Path(torch.__file__).parent / "distributed")
_OF_TORCH = str(Path(torch.__file__).parent)
_HARMLESS = frozenset({"is_available", "<module>", "<lambda>"})


def look_at_gang(run: TrialRun, model: torch.nn.Module, ranks: int) -> None:
    """Raise WorkloadError, naming it, for what ranks would not train to the bits of one process.

    model: a fresh one; it stays as it is. Costs the gradients of a few slices, on copies of the model; nothing for one
    rank.
    """
    if ranks == 1:
        return
    _refuse_synced_norms(run, model)
    try:
        with left_as_it_was(run.setup.workload), _calls_of_distributed() as called:
            _look_at_order(run, model, run.rule.slices // ranks)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        logger.info("the model does not fit into memory twice, so it is not looked at what slices leave behind in it")
    _refuse_exchanges(run, called)


def _refuse_synced_norms(run: TrialRun, model: torch.nn.Module) -> None:
    synced = [name for name, one in model.named_modules() if isinstance(one, torch.nn.SyncBatchNorm)]
    if synced:
        raise WorkloadError(
            f"{type(run.setup.workload).__name__}.model has SyncBatchNorm ({_some(synced)}), which takes its "
            "statistics from all processes, so that what a trial becomes would depend on their number: write BatchNorm "
            "with statistics of each slice, in one process as in a gang, or GroupNorm or LayerNorm"
        )


@dataclass(frozen=True, slots=True)
class _Computed:
    """The loss of a slice and its gradients, the names of what it changed in Python, and the model afterwards."""

    model: torch.nn.Module
    tensors: Sequence[torch.Tensor | None]
    changed: Sequence[str]

    def equals(self, other: "_Computed") -> bool:
        return all(map(same_values, self.tensors, other.tensors))


def _look_at_order(run: TrialRun, model: torch.nn.Module, second: int) -> None:
    """Raise WorkloadError where a slice is another after the first one than by itself, as the next rank computes it."""
    name, after = type(run.setup.workload).__name__, _computed(run, model, (0, second))
    # Of a model that has seen a slice: what the first one made, and no later one changes, is no harm.
    _refuse_changed(name, changed_by_loss(run, after.model))
    if not is_repeatable(run.setup.device):
        return
    alone = _computed(run, model, (second,))
    if after.equals(alone):
        if after.changed:
            logger.warning(
                "the loss of %s changes what Python holds (%s): each rank of a gang computes its own slices only, and "
                "has its own; nothing that is recorded may depend on it", name, _some(after.changed),
            )  # fmt: skip
        return
    if not after.changed and not alone.equals(_computed(run, model, (second,))):
        return  # it draws from what nothing seeds, which the look at saving names
    raise WorkloadError(
        f"the loss of {name} is another one for a slice after the slice before it than for the same slice by itself, "
        f"so it keeps something from slice to slice{_named(after.changed)}. Each rank of a gang computes its own "
        f"slices only: let the loss depend on the weights and its own batch alone, or {ALONE}"
    )


def _refuse_changed(name: str, changed: Sequence[str]) -> None:
    """Raise WorkloadError where the loss of a slice changes the model, besides running statistics."""
    if not changed:
        return
    text = " ".join(changed).lower()
    found = ((kind, way) for words, kind, way in _KINDS if any(word in text for word in words))
    kind, way = next(found, ("state of a module", "let it depend on the weights alone"))
    raise WorkloadError(
        f"the loss of {name} changes the model, slice by slice ({_some(changed)}): {kind}. Each rank of a gang "
        f"computes its own slices only, so it would be another one on each rank; {ALONE}, or do without ({way})"
    )


def _computed(run: TrialRun, model: torch.nn.Module, parts: Sequence[int]) -> _Computed:
    """The loss and gradients of the last of these slices of the first batch, computed one after the other."""
    workload, copied = run.setup.workload, copy.deepcopy(model)
    parameters = [one for one in copied.parameters() if one.requires_grad]
    update = Update(run.setup, run.rule, copied, parameters, run.optimizer)
    before: dict[str, object] = {}
    for part in parts:
        before = values_held(workload, copied)  # the first slice may leave caches, which is no harm
        batch = run.slice_at(0, part)
        update.prepare(0, host_draws=True, part=part)
        loss = update.loss(copied, batch, run.point)
        loss.backward()
    changed = changed_names(before, values_held(workload, copied)) if len(parts) > 1 else ()
    return _Computed(copied, [loss.detach(), *(one.grad for one in parameters)], changed)


@contextmanager
def _calls_of_distributed() -> Iterator[dict[str, str]]:
    """What code that is not torch's calls of torch.distributed within the block: by function, the file that calls."""
    found: dict[str, str] = {}
    before = sys.getprofile()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code, caller = frame.f_code, frame.f_back
        if event != "call" or caller is None or not code.co_filename.startswith(_OF_TORCH_DISTRIBUTED):
            return
        asked_by = caller.f_code.co_filename
        if not asked_by.startswith(_OF_TORCH) and code.co_name not in _HARMLESS:
            found.setdefault(code.co_name, asked_by)

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _refuse_exchanges(run: TrialRun, called: Mapping[str, str]) -> None:
    """Raise WorkloadError where the loss itself asks torch.distributed for processes; warn of installed packages."""
    name = type(run.setup.workload).__name__
    for function, file in called.items():
        asks = f"the loss of {name} calls torch.distributed ({function}, in {Path(file).name})"
        if {"site-packages", "dist-packages"} & set(Path(file).parts):
            logger.warning(
                "%s: in a gang it sees the ranks that train a trial together, and must not make it depend on them", asks
            )
            continue
        raise WorkloadError(
            f"{asks}: what a trial becomes would depend on the number of its processes. A gang adds up the gradients "
            f"of the slices itself, in one process as in several: leave out what gathers or reduces, or {ALONE}"
        )


def _named(names: Sequence[str]) -> str:
    return f" ({_some(names)})" if names else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
