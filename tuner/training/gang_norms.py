"""Running statistics of batch norms where ranks share the slices of a batch: updated in the order of the slices.

One process updates them slice by slice, within the forward passes. A rank of a gang takes the statistics of its own
slices only: while it computes them, each batch norm writes into buffers of its own, with a momentum of 1, so that they
are those of one slice. Then all ranks exchange them, and each makes all updates, in the order of the slices and of the
calls within one.

An update is momentum * new + (1 - momentum) * old, and kernels round it in different ways. So where a batch norm sees a
form of input for the first time, its own kernel is compared with the ways that are known, on that input, and the way is
sent along. A kernel that agrees with none is refused.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from tuner.errors import WorkloadError
from tuner.training.compiled import compiled_parts
from tuner.training.gang import Gang

Way = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]  # momentum, new, old -> what is kept
_COMPARED = 128  # numbers of each statistic that a way must agree with
_MANY = 1_024  # channels
_STATISTICS = ("running_mean", "running_var")
_UNTOUCHED = -1.0  # no variance has this value


def _in_own(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """In the numbers of the buffer: means on a CPU."""
    own = _momentum(momentum, old)
    return own * new + (1 - own) * old


def _in_wider(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """One product and the sum in wider numbers: variances on a CPU."""
    own, wide = _momentum(momentum, old), _wider(old)
    return (own.to(wide) * new.to(wide) + ((1 - own) * old).to(wide)).to(old.dtype)


def _all_wider(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """All of it in float64."""
    wide = _momentum(momentum, old.double())
    return (wide * new.double() + (1 - wide) * old.double()).to(old.dtype)


def _added_to_new(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The product with the old is added without being rounded: one instruction of a GPU."""
    own = _momentum(momentum, old)
    return _fused(1 - own, old, own * new)


def _added_to_old(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The product with the new is added without being rounded."""
    own = _momentum(momentum, old)
    return _fused(own, new, (1 - own) * old)


def _moved(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Old plus a share of the difference."""
    return old + _momentum(momentum, old) * (new - old)


def _moved_fused(momentum: Any, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The same, with the product added without being rounded."""
    return _fused(_momentum(momentum, old), new - old, old)


WAYS: tuple[Way, ...] = (_in_own, _in_wider, _all_wider, _added_to_new, _added_to_old, _moved, _moved_fused)


def _momentum(momentum: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(momentum, dtype=torch.float64).to(like)


def _wider(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype in (torch.float32, torch.float64) else torch.float32


def _fused(one: torch.Tensor, other: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """`one * other + added`, rounded once. float64 holds the product of two float32."""
    return (one.double() * other.double() + added.double()).to(added.dtype)


@dataclass(slots=True)
class _Taken:
    """The statistics of one call of a batch norm. ways: of mean and variance, as places in WAYS."""

    norm: int
    ways: tuple[int, int]
    mean: torch.Tensor
    variance: torch.Tensor

    @property
    def is_wide(self) -> bool:
        """Whether the variance is in float64, whatever the mean is in."""
        return self.variance.dtype == torch.float64


class RankNorms:
    """The batch norms of a model whose running statistics a training step updates."""

    SAID = 9  # bytes of `said`

    def __init__(self, model: torch.nn.Module) -> None:
        found = [(name, one) for name, one in model.named_modules() if isinstance(one, _BatchNorm) and _keeps(one)]
        self.names = [name for name, _ in found]
        self.norms = [one for _, one in found]
        self._refuse(model)
        self._slices: list[list[_Taken]] = []
        self._momenta: tuple[list[Any], torch.Tensor] = [], torch.empty(0)

    def _refuse(self, model: torch.nn.Module) -> None:
        for name, norm in zip(self.names, self.norms, strict=True):
            if type(norm).forward is not _BatchNorm.forward or "forward" in vars(norm):
                raise WorkloadError(
                    f"{name} is a {type(norm).__name__}, whose running statistics a gang cannot keep in the order of "
                    "the slices, as one process does: write BatchNorm1d, 2d or 3d, or a norm without running "
                    "statistics (GroupNorm, LayerNorm), or train it without a gang"
                )
        compiled = next((part for part, _ in compiled_parts(model)), None) if self.norms else None
        if compiled:
            raise WorkloadError(
                f"{compiled} is compiled, and the model has batch norms ({self.names[0]}), whose running statistics a "
                "gang takes out of each forward pass: leave out torch.compile, or write a norm without running "
                "statistics (GroupNorm, LayerNorm), or train it without a gang"
            )

    @contextmanager
    def of_slice(self) -> Iterator[None]:
        """Within the block a slice is computed, forward and backward: its statistics are taken."""
        taken: list[_Taken] = []
        self._slices.append(taken)
        try:
            for number, norm in enumerate(self.norms):
                vars(norm)["forward"] = _Taking(self, number, norm, taken)
            yield
        finally:
            for norm in self.norms:
                vars(norm).pop("forward", None)

    def forget(self) -> None:
        """What was taken for an update that is not made."""
        self._slices = []

    def said(self) -> torch.Tensor:
        """What a rank says of its statistics: uint8 [9], alike on ranks whose slices called the same norms alike."""
        if not self.norms:
            return torch.zeros(self.SAID, dtype=torch.uint8)
        kinds = [repr([(one.norm, one.ways, one.is_wide) for one in taken]) for taken in self._slices]
        alike = len(set(kinds)) == 1
        digest = torch.tensor([zlib.crc32(kinds[0].encode())]).view(torch.uint8)
        return torch.cat([torch.tensor([1 + alike], dtype=torch.uint8), digest])

    def update(self, gang: Gang, said: torch.Tensor, rows_of_all: Callable[[Gang, torch.Tensor], torch.Tensor]) -> None:
        """Make all updates of the batch. said: of each rank, uint8 [world, >= 9]."""
        if not self.norms:
            return
        slices, self._slices = self._slices, []
        said = said[:, : self.SAID]
        alike = bool((said[:, 0] == 2).all()) and bool((said == said[0]).all())
        with torch.no_grad():
            found = _exchanged_alike(gang, slices, rows_of_all) if alike else _exchanged(gang, slices, self)
            if alike and self._can_together(found[0]):
                self._update_together(found)
                return
            for one in (one for taken in found for one in taken):
                self._update(one)

    def _can_together(self, taken: Sequence[_Taken]) -> bool:
        """Whether all norms that a slice calls can be updated by the same operations on one tensor."""
        alike = len({(one.ways, one.mean.dtype, one.is_wide) for one in taken}) == 1
        once = len({one.norm for one in taken}) == len(taken)
        return alike and once and all(self.norms[one.norm].momentum is not None for one in taken)

    def _update_together(self, slices: Sequence[Sequence[_Taken]]) -> None:
        """As `_update` of each: the same operations on each number, in fewer calls."""
        norms = [self.norms[one.norm] for one in slices[0]]
        means, variances = ([_there(getattr(one, name)) for one in norms] for name in _STATISTICS)
        momentum = self._momentum(norms, means)
        for number, kept in enumerate((means, variances)):
            way, total = WAYS[slices[0][0].ways[number]], torch.cat(kept)
            for taken in slices:
                total = way(momentum, torch.cat([_parts(one)[number] for one in taken]), total)
            torch._foreach_copy_(kept, list(torch.split(total, [len(one) for one in kept])))
        counters = [one.num_batches_tracked for one in norms if one.num_batches_tracked is not None]
        if counters:
            torch._foreach_add_(counters, len(slices))

    def _momentum(self, norms: Sequence[_BatchNorm], means: Sequence[torch.Tensor]) -> torch.Tensor:
        """That of each channel, float64."""
        each = [(norm.momentum, norm.num_features) for norm in norms]
        if each != self._momenta[0]:
            momenta = [momentum for momentum, channels in each for _ in range(channels)]
            self._momenta = each, torch.tensor(momenta, dtype=torch.float64, device=means[0].device)
        return self._momenta[1]

    def _update(self, taken: _Taken) -> None:
        norm = self.norms[taken.norm]
        mean, variance = _there(norm.running_mean), _there(norm.running_var)
        momentum = norm.momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        momentum = 0.0 if momentum is None else momentum
        mean.copy_(WAYS[taken.ways[0]](momentum, taken.mean, mean))
        variance.copy_(WAYS[taken.ways[1]](momentum, taken.variance, variance))


def _keeps(norm: _BatchNorm) -> bool:
    return norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None


class _Taking:
    """In place of the forward method of a batch norm: the same output, with the statistics taken."""

    def __init__(self, norms: RankNorms, number: int, norm: _BatchNorm, taken: list[_Taken]) -> None:
        self.name = norms.names[number]
        self.number = number
        self.norm = norm
        self.taken = taken

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        if not (norm.training and _keeps(norm)):
            return type(norm).forward(norm, given)
        buffers = norm._buffers
        before = {name: buffers[name] for name in (*_STATISTICS, "num_batches_tracked")}
        momentum = norm.momentum
        mean = torch.full_like(_there(before["running_mean"]), -0.0)  # x * 1 + -0.0 * 0 is x, for zeros too
        variance = torch.full_like(_there(before["running_var"]), _UNTOUCHED)
        buffers |= {"running_mean": mean, "running_var": variance, "num_batches_tracked": None}
        norm.momentum = 1.0
        is_done = False
        try:
            output = type(norm).forward(norm, given)
            is_done = True
        finally:
            buffers |= before
            norm.momentum = momentum
            # Recomputing for a checkpointed backward pass may leave by an exception after the kernel.
            if is_done or not bool((variance == _UNTOUCHED).all()):
                variance = _as_kept(given.detach(), mean, variance)
                ways = _ways_of(norm, self.name, given.detach(), (mean, variance))
                self.taken.append(_Taken(self.number, ways, mean, variance))
        return output


def _there(buffer: torch.Tensor | None) -> torch.Tensor:
    """A buffer that `_keeps` has seen."""
    return cast("torch.Tensor", buffer)


def _as_kept(given: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """The variance as the kernel has it when it updates the running one.

    Where dimensions lie in memory in an order of their own, torch's kernel on a CPU has it in float64, and adds up the
    squares one by one in the order of the memory (batch_norm_cpu_update_stats_template in Normalization.cpp).
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    usual = given.is_contiguous() or (
        given.dim() in formats and given.is_contiguous(memory_format=formats[given.dim()])
    )
    if usual or given.device.type != "cpu" or given.dtype != torch.float32:
        return variance
    strides = given.stride()
    rest = sorted((one for one in range(given.dim()) if one != 1), key=lambda one: -strides[one])
    apart = given.permute(1, *rest).reshape(given.shape[1], -1).double() - mean.double()[:, None]
    sums = (apart * apart).cumsum(1)[:, -1]
    return sums / (apart.shape[1] - 1)


_KNOWN: WeakKeyDictionary[torch.nn.Module, dict[object, tuple[int, int]]] = WeakKeyDictionary()


def _ways_of(
    norm: _BatchNorm, name: str, given: torch.Tensor, new: tuple[torch.Tensor, torch.Tensor]
) -> tuple[int, int]:
    """The ways in which its kernel updates mean and variance for an input of this form. Raises WorkloadError."""
    known = _KNOWN.setdefault(norm, {})
    form = (given.shape, given.stride(), given.dtype, given.device, norm.momentum)
    if form not in known:
        known[form] = _compared(norm, name, given, new)
    return known[form]


def _compared(
    norm: _BatchNorm, name: str, given: torch.Tensor, new: tuple[torch.Tensor, torch.Tensor]
) -> tuple[int, int]:
    momentum = 1.0 / 3.0 if norm.momentum is None else norm.momentum
    rounds = max(1, -(-_COMPARED // norm.num_features))
    fitting = _fitting(given, new, momentum, rounds, (norm.weight, norm.bias))
    if not all(fitting):
        raise WorkloadError(
            f"a gang cannot update the running statistics of {name} (a {type(norm).__name__}, input "
            f"{list(given.shape)} with strides {given.stride()}) to the bits of one process: no known formula is that "
            "of its kernel. Write .contiguous() behind its input, or a norm without running statistics (GroupNorm, "
            "LayerNorm), or train it without a gang"
        )
    # Numbers of a few channels may leave a choice, which those of many do not.
    strides = given.stride()
    order = tuple(sorted(range(given.dim()), key=lambda dimension: -strides[dimension]))
    clear = _fitting_many(given, new[0].dtype, order, momentum, norm.weight is not None)
    mean, variance = (min(here & many or here) for here, many in zip(fitting, clear, strict=True))
    return mean, variance


def _fitting_many(
    like: torch.Tensor, kept: torch.dtype, order: tuple[int, ...], momentum: float, is_affine: bool
) -> list[set[int]]:
    """The ways that fit for an input of many channels, with its dimensions in this order in memory."""
    generator = torch.Generator().manual_seed(1)
    shape = [4, _MANY, *[3] * (len(order) - 2)]
    drawn = torch.randn([shape[dimension] for dimension in order], generator=generator) * 3 + 1
    given = drawn.to(like).permute([order.index(dimension) for dimension in range(len(order))])
    new = tuple(torch.full((_MANY,), value, dtype=kept, device=like.device) for value in (-0.0, _UNTOUCHED))
    one = torch.ones(_MANY, dtype=kept, device=like.device) if is_affine else None
    F.batch_norm(given, new[0], new[1], one, one, True, 1.0)
    return _fitting(given, (new[0], _as_kept(given, *new)), momentum, 1, (one, one))


@torch.no_grad()
def _fitting(
    given: torch.Tensor,
    new: Sequence[torch.Tensor],
    momentum: float,
    rounds: int,
    affine: Sequence[torch.Tensor | None],
) -> list[set[int]]:
    """The ways of mean and variance that give what the kernel does, of this input, whose statistics are `new`."""
    generator = torch.Generator().manual_seed(0)
    fitting = [set(range(len(WAYS))), set(range(len(WAYS)))]
    for _ in range(rounds):
        drawn = [0.25 + 2 * torch.rand(one.shape, generator=generator) for one in new]
        old = [(one * factor.to(one)).to(new[0].dtype) for one, factor in zip(new, drawn, strict=True)]
        kernels = [one.clone() for one in old]
        F.batch_norm(given, kernels[0], kernels[1], affine[0], affine[1], True, momentum)
        for which, one in enumerate(new):
            fitting[which] = {
                way for way in fitting[which] if _same(WAYS[way](momentum, one, old[which]), kernels[which])
            }
    return fitting


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def _exchanged_alike(
    gang: Gang, slices: Sequence[Sequence[_Taken]], rows_of_all: Callable[[Gang, torch.Tensor], torch.Tensor]
) -> list[list[_Taken]]:
    """The statistics of all slices, in their order, where all called the same norms in the same order."""
    first = slices[0]
    new: list[list[torch.Tensor]] = [[torch.empty(0)] * (2 * len(first)) for _ in range(gang.world * len(slices))]
    flat = [[part for one in taken for part in _parts(one)] for taken in slices]
    for dtype in dict.fromkeys(part.dtype for part in flat[0]):
        places = [place for place, part in enumerate(flat[0]) if part.dtype == dtype]
        lengths = [len(flat[0][place]) for place in places]
        mine = torch.cat([parts[place] for parts in flat for place in places])
        for row, found in zip(rows_of_all(gang, mine).view(len(new), -1), new, strict=True):
            for place, part in zip(places, torch.split(row, lengths), strict=True):
                found[place] = part
    return [[_Taken(one.norm, one.ways, *found[2 * at : 2 * at + 2]) for at, one in enumerate(first)] for found in new]


def _parts(taken: _Taken) -> tuple[torch.Tensor, torch.Tensor]:
    return taken.mean, taken.variance


def _exchanged(gang: Gang, slices: Sequence[Sequence[_Taken]], norms: RankNorms) -> list[list[_Taken]]:
    """The same where slices called other norms: a network of random depth, say."""
    heads = [len(slices)]
    content = b""
    for taken in slices:
        heads += [len(taken), *(value for one in taken for value in (one.norm, *one.ways, int(one.is_wide)))]
        content += b"".join(_bytes(part) for one in taken for part in _parts(one))
    head = torch.tensor(heads).numpy().tobytes()
    found: list[list[_Taken]] = []
    for data, numbers in zip(gang.all_of(content), gang.all_of(head), strict=True):
        found += _read(bytearray(data), torch.frombuffer(bytearray(numbers), dtype=torch.int64).tolist(), norms)
    return found


def _read(data: bytearray, heads: Sequence[int], norms: RankNorms) -> Iterator[list[_Taken]]:
    read, numbers = 0, iter(heads)
    for _ in range(next(numbers)):
        taken = []
        for _ in range(next(numbers)):
            norm, ways, is_wide = next(numbers), (next(numbers), next(numbers)), next(numbers)
            like = _there(norms.norms[norm].running_mean)
            parts = []
            for dtype in (like.dtype, torch.float64 if is_wide else like.dtype):
                size = len(like) * dtype.itemsize
                part = torch.frombuffer(data[read : read + size], dtype=torch.uint8).clone()
                parts.append(part.view(dtype).to(like.device))
                read += size
            taken.append(_Taken(norm, ways, parts[0], parts[1]))
        yield taken


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().view(torch.uint8).numpy().tobytes()
