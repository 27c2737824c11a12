"""Evaluation of a split by several ranks: each computes some of its batches, and rank 0 puts them together.

What a batch comes to is a function of the model and the batch. So it makes no difference who computes it, and its sums
are added in the order of the split, as one process adds them: the bits are the same, whatever the number of ranks.

Two kinds of metrics are no such function. Some draw random numbers, and those of a batch come after those of the batch
before. Some change the model: a batch that one rank computes is then missing on the others. Both are seen in what a
part left behind, and the whole split is evaluated again: by rank 0 alone, or by every rank (`Sharing`). That has the
bits of one process, and its speed.
"""

import io
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import torch

from tuner.design.workload import Workload
from tuner.errors import StudyChanged, WorkloadError
from tuner.training.batches import Split
from tuner.training.containers import moved
from tuner.training.copy_on_write import same_bits
from tuner.training.engine import Measured
from tuner.training.evaluation import Tally, check_going_on, checked_metrics, sums_of
from tuner.training.extra_state import extra_state_of, set_extra_state
from tuner.training.gang import Gang, MateFailed
from tuner.training.host_generators import HOST
from tuner.training.loss_scale import unchanged_by_half
from tuner.training.precision import computing
from tuner.training.randomness import cuda_generator
from tuner.training.split_metrics import ON_DEVICE
from tuner.training.trial_run import TrialRun

COPIED = 16 * 2**20  # bytes of a buffer up to which it is copied before an evaluation, to be put back where it changed
_CPU = torch.device("cpu")
_log = logging.getLogger(__name__)


class Sharing(StrEnum):
    """Who evaluates a trial. The last one of what the ranks have seen is what they keep to."""

    SHARED = "shared"  # each rank some of the batches
    LEAD = "lead"  # rank 0 all of them, because metrics draw random numbers
    EACH = "each"  # every rank all of them, because metrics change the model


_ORDER = list(Sharing)
_WORDS = {
    Sharing.LEAD: (
        "draws random numbers, so a batch's depend on the batches before it: rank 0 evaluates this trial alone, with "
        "the bits of one process"
    ),
    Sharing.EACH: (
        "changes what the model holds (buffers, extra state), so every rank evaluates all of this trial, with the bits "
        "of one process"
    ),
}


@dataclass(slots=True)
class EvaluatedPart:
    """What a rank computed of a split. Lists have an entry for each of its batches, in their order.

    examples: of the split. numbers: of its batches, from 0 on. counts: how many examples each holds. names: of the
    metrics that are averaged. sums: float64 [all names of all batches], on the CPU once it is sent. kept: the values of
    each example that `split_metrics` is given. sharing: how the split has to be evaluated, as far as is seen here.
    """

    examples: int
    numbers: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    sums: Any = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    sharing: str = Sharing.SHARED.value


def mine(  # noqa: PLR0913 - keywords with defaults
    workload: Workload,
    model: torch.nn.Module,
    split: Split,
    *,
    batch_size: int,
    rank: int,
    world: int,
    stop: Callable[[], bool] = lambda: False,
) -> EvaluatedPart:
    """Batches `rank`, `rank + world`, ... of a split, in eval mode; those of all ranks are the whole split.

    The model is left as it was found, but in eval mode. Raises Interrupted as `evaluate` does, and WorkloadError for
    metrics that change what is too large to be copied.
    """
    model.eval()
    keeps = workload.declares("split_metrics")
    before = _Surroundings(model, split.device)
    part, num_bytes = EvaluatedPart(split.size), 0
    with torch.no_grad():
        for place, (batch, count) in enumerate(split.in_order(batch_size, rank, world)):
            check_going_on(stop)
            metrics = checked_metrics(workload, model, batch, count)
            sums = sums_of({name: one for name, one in metrics.items() if name not in workload.not_averaged})
            part.numbers.append(rank + place * world)
            part.counts.append(count)
            part.names.append(list(sums))
            part.sums += sums.values()
            kept = {name: _packed(one) for name, one in metrics.items()} if keeps else {}
            num_bytes += sum(_num_bytes(one) for one in kept.values())
            part.kept.append(moved(kept, _CPU) if num_bytes > ON_DEVICE else kept)
    part.kept = moved(part.kept, _CPU)
    part.sums = torch.stack(part.sums).cpu() if part.sums else torch.empty(0, dtype=torch.float64)
    part.sharing = before.sharing(workload).value
    return part


def put_together(workload: Workload, split: Split, parts: Sequence[EvaluatedPart], batch_size: int) -> Tally:
    """What the parts of all ranks come to: the sums, and what is kept of each example, as one process has them.

    Raises StudyChanged where ranks have different splits.
    """
    sizes = {part.examples for part in parts} | {split.size}
    numbers = sorted(number for part in parts for number in part.numbers)
    if len(sizes) > 1 or numbers != list(range(math.ceil(split.size / batch_size))):
        raise StudyChanged(
            f"the {split.name} split has {' and '.join(f'{size:,}' for size in sorted(sizes))} examples on different "
            f"ranks of the gang, and {len(numbers)} batches of it were evaluated: give all ranks the same data"
        )
    batches = [batch for part in parts for batch in _batches_of(part, split.device)]
    tally = Tally(workload, split)
    for _, sums, kept, count in sorted(batches, key=lambda batch: batch[0]):
        tally.add_sums(sums, kept, count)
    return tally


_Batch = tuple[int, dict[str, torch.Tensor], dict[str, Any], int]


def _batches_of(part: EvaluatedPart, device: torch.device) -> list[_Batch]:
    """Each batch of a part: its number, its sums on the device, what is kept of it, how many examples it holds."""
    sums, found = iter(part.sums.to(device)), list[_Batch]()
    for number, names, kept, count in zip(part.numbers, part.names, part.kept, part.counts, strict=True):
        values = {name: _unpacked(one) for name, one in kept.items()}
        found.append((number, {name: next(sums) for name in names}, values, count))
    return found


def _packed(values: Any) -> Any:
    """A copy of what metrics returned of a batch: a workload may use its memory again.

    Of a list one tensor, where they have one type: each tensor takes its time to be sent.
    """
    if isinstance(values, torch.Tensor):
        return _copied(values)
    if len({(one.dtype, one.device) for one in values}) != 1:
        return [_copied(one) for one in values]
    return {
        "flat": torch.cat([_copied(one).flatten() for one in values]),
        "shapes": [list(one.shape) for one in values],
    }


def _copied(values: torch.Tensor) -> torch.Tensor:
    return values.detach().as_subclass(torch.Tensor).clone(memory_format=torch.contiguous_format)


def _num_bytes(packed: Any) -> int:
    if isinstance(packed, torch.Tensor):
        return packed.nbytes
    return sum(map(_num_bytes, packed)) if isinstance(packed, list) else _num_bytes(packed["flat"])


def _unpacked(packed: Any) -> Any:
    if not isinstance(packed, dict):
        return packed
    shapes = packed["shapes"]
    flat = packed["flat"].split([math.prod(shape) for shape in shapes])
    return [one.view(shape) for one, shape in zip(flat, shapes, strict=True)]


class _Surroundings:
    """What metrics may change besides what they return: the global generators, and what the model holds."""

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._drawn = _generators(device)
        self._whole = {name: _version(one) for name, one in model.named_parameters()}
        self._copies: list[tuple[dict[str, Any], str, torch.Tensor, torch.Tensor]] = []
        for name, module in model.named_modules():
            for key, one in module._buffers.items():
                if one is None:
                    continue
                if one.layout is torch.strided and not one.is_quantized and one.nbytes <= COPIED:
                    self._copies.append((module._buffers, key, one, one.detach().clone()))
                else:
                    self._whole[f"{name}.{key}".lstrip(".")] = _version(one)
        self._buffers = [name for name, _ in model.named_buffers()]
        self._extra = extra_state_of(model)

    def sharing(self, workload: Workload) -> Sharing:
        """How the split has to be evaluated; what changed in the model is put back."""
        owner = type(workload).__name__
        now = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        for name, version in self._whole.items():
            if name not in now or _version(now[name]) != version:
                raise WorkloadError(
                    f"{owner}.metrics changes {name} of the model, which is too large to be copied before each "
                    "evaluation, so ranks that share an evaluation cannot keep to one model: change it in loss(), or "
                    "train without a gang"
                )
        if [name for name, _ in self._model.named_buffers()] != self._buffers:
            raise WorkloadError(
                f"{owner}.metrics gives the model other buffers, so ranks that share an evaluation cannot keep to one "
                "model: register them in model(), or train without a gang"
            )
        if self._put_back():
            return Sharing.EACH
        return Sharing.SHARED if _generators(self._device) == self._drawn else Sharing.LEAD

    def _put_back(self) -> bool:
        """Whether anything in the model had changed."""
        changed = False
        for held, key, one, copy in self._copies:
            if held[key] is not one or not same_bits(one.contiguous(), copy.contiguous()):
                held[key], changed = one, True
                with torch.no_grad():
                    one.copy_(copy)
        extra = extra_state_of(self._model)
        if any(not torch.equal(one, extra[name]) for name, one in self._extra.items()):
            set_extra_state(self._model, self._extra, self._device)
            changed = True
        return changed


def _version(tensor: torch.Tensor) -> object:
    """Another one where a tensor was written into, or another tensor is in its place."""
    return id(tensor), None if tensor.is_inference() else tensor._version


def _generators(device: torch.device) -> tuple[object, ...]:
    """Where the global generators stand, to be compared."""
    generators = [torch.default_generator, *([cuda_generator(device)] if device.type == "cuda" else [])]
    return HOST.mark(), *(one.get_state().numpy().tobytes() for one in generators)


@contextmanager
def _left_together(gang: Gang, own: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Gives what says stop within a command: `own`, or by MateFailed that another rank has left it by an error.

    An error of the block has the others leave, too: within a second, or after the batch under way.
    """
    left = gang.left_by_others()

    def stop() -> bool:
        if left():
            raise MateFailed("another rank of the gang has left the evaluation")
        return own()

    try:
        yield stop
    except MateFailed:
        raise
    except BaseException:
        gang.leave()
        raise


def part_of_evaluation(run: TrialRun, gang: Gang) -> bytes:
    """What this rank computes of an evaluation of a trial, for rank 0; see `joined_evaluation`."""
    setup, parts, before = run.setup, [], 0
    size, world = setup.evaluation_batch_size, gang.world
    run.seed_evaluation()
    left, shown = _left_together(gang, setup.stop), run.shown()
    with left as stop, shown, unchanged_by_half(run.model), computing(run.rule.precision, setup.device):
        for split in (setup.data.training_sample, setup.data.validation):
            rank = (gang.rank - before) % world  # batches are dealt out on from split to split
            part = mine(setup.workload, run.model, split, batch_size=size, rank=rank, world=world, stop=stop)
            parts.append({each.name: getattr(part, each.name) for each in fields(part)})
            before += math.ceil(split.size / size)
    file = io.BytesIO()
    torch.save(parts, file)
    return file.getvalue()


def whole_evaluation(run: TrialRun, gang: Gang) -> tuple[Measured, list[Tally]]:
    """What `TrialRun.evaluated` gives, where every rank evaluates all."""
    with _left_together(gang, run.setup.stop) as stop:
        return TrialRun.evaluated(run, stop)


def joined_evaluation(run: TrialRun, said: Sequence[bytes]) -> tuple[Sharing, tuple[Measured, list[Tally]] | None]:
    """At rank 0, of the parts of all ranks: how the trial has to be evaluated, then what `TrialRun.evaluated` gives.

    None where it may not be SHARED: then it is to be evaluated again. Raises the errors of `split_metrics`.
    """
    setup, size = run.setup, run.setup.evaluation_batch_size
    of_ranks = [torch.load(io.BytesIO(data), weights_only=True) for data in said]
    found = [[EvaluatedPart(**part) for part in parts] for parts in of_ranks]
    sharing = max((Sharing(part.sharing) for parts in found for part in parts), key=_ORDER.index)
    if sharing is not Sharing.SHARED:
        _log.warning("%s.metrics %s", type(setup.workload).__name__, _WORDS[sharing])
        return sharing, None
    measured: Measured = {}
    tallies = []
    run.seed_evaluation()  # `split_metrics` may draw, too
    splits = (setup.data.training_sample, setup.data.validation)
    for split, parts in zip(splits, zip(*found, strict=True), strict=True):
        tallies.append(put_together(setup.workload, split, parts, size))
        measured |= tallies[-1].measured()
    return sharing, (measured, tallies)
