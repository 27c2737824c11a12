"""The sum of all slices of a batch, of which each rank of a gang has computed its own.

The sum of a rank is a subtree of `tree_sum`; the rest of the tree is made here, on equal shards: each rank gets the
same shard of all ranks, adds these up in the order of the tree, and all get the sums of all shards. So each byte is
sent as often as by a ring (but of few bytes all get all), and the order of the additions does not depend on the number
of ranks. Every addition has the bits of `WeightedSum.plus`: for each number it is the same one, of the same two.

A parameter on which the slices of one rank do not depend is -0.0 there: x + -0.0 is x, whatever x is, and for the two
zeros too. Complex numbers have no such zero, because torch multiplies what is added by 1 + 0i. Those gradients, and
sparse ones, are sent whole to all ranks, and each adds them up as one process does.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist

from tuner.errors import GangLost
from tuner.training.gang import Gang, all_gather
from tuner.training.gang_norms import RankNorms
from tuner.training.slices import WeightedSum
from tuner.training.tree_sum import tree_sum

BUCKET = 1 << 25  # bytes of gradients that are exchanged at a time
SMALL = 1 << 14  # [P] bytes that all get whole: one exchange takes less time than two, whatever is sent
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128)
_ABSENT, _SPARSE, _DENSE = 0, 1, 2  # what a rank says of a gradient; _DENSE and more: and which dtype it has
_COMPLEX = _DENSE + _DTYPES.index(torch.complex64)  # and beyond
_PIECE = struct.Struct("<qqq")  # of a gradient that is sent whole: its dtype, sparse dimensions, rows


def payload_of(parameters: int, slices_of_rank: int) -> int:
    """The most bytes that a rank says in a control exchange."""
    return max(parameters + 1 + RankNorms.SAID, 1 + 8 * slices_of_rank)


def all_weights(gang: Gang, weights: Sequence[Any] | None) -> list[Any] | None:
    """The weight of each slice of the batch, from those of each rank's own.

    Numbers, and tensors on the CPU, as numbers. Where one is on a GPU, all become float64 tensors [] there, without
    waiting for it, unless what is sent goes through the memory of the CPU.
    """
    if weights is None:
        return None
    on_device = any(isinstance(weight, torch.Tensor) and weight.device.type != "cpu" for weight in weights)
    said = torch.zeros(1 + 8 * len(weights), dtype=torch.uint8)
    if on_device:
        said[0] = 1
    else:
        said[1:] = torch.tensor([float(weight) for weight in weights], dtype=torch.float64).view(torch.uint8)
    rows = gang.exchanged(gang.wish(), said)[:, : len(said)]
    if not rows[:, 0].any():
        return rows[:, 1:].contiguous().view(torch.float64).flatten().tolist()
    mine = torch.stack([torch.as_tensor(weight, dtype=torch.float64, device=gang.device) for weight in weights])
    return list(rows_of_all(gang, mine).flatten())


def rows_of_all(gang: Gang, mine: torch.Tensor) -> torch.Tensor:
    """What each rank has: [world, length], where all have as many numbers [length] of one dtype."""
    sent = mine.contiguous().view(torch.uint8)
    through_host = _goes_through_host(gang)
    sent = sent.cpu() if through_host else sent
    said = torch.empty(gang.world * len(sent), dtype=torch.uint8, device=sent.device)
    with gang.exchanging():
        all_gather(said, sent, group=gang.large)
    return said.to(mine.device).view(mine.dtype).view(gang.world, len(mine))


def _goes_through_host(gang: Gang) -> bool:
    """Whether the tensors of a GPU are copied for the exchange: gloo sends from the memory of the CPU."""
    return gang.device.type != "cpu" and dist.get_backend(gang.large) == "gloo"


def exchange_bytes(gradients: int) -> int:
    """What the buffers of an exchange take on the device, where the gradients take so many bytes."""
    return 2 * min(BUCKET, gradients)


class TreeReduction:
    """Adds up tensors over the ranks, in the order of the tree, a bucket at a time; the buckets' memory is kept.

    That is two buckets on the device and, where what is sent goes through the memory of the CPU, two more there.
    """

    def __init__(self, gang: Gang, bucket: int = BUCKET) -> None:
        self.gang = gang
        self.bucket = bucket
        self._device: list[torch.Tensor] = []
        self._host: list[torch.Tensor] = []

    def reserve(self, tensors: Sequence[torch.Tensor]) -> None:
        """Have the memory for buckets of such tensors."""
        largest: dict[torch.dtype, int] = {}
        for tensor in tensors:
            largest[tensor.dtype] = largest.get(tensor.dtype, tensor.element_size()) + tensor.nbytes  # and the loss
        for dtype, size in largest.items():
            numbers = max(1, min(self.bucket, size) // dtype.itemsize)
            self._rooms(-(-numbers // self.gang.world) * self.gang.world, dtype)

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one dtype, whose memory has no gaps, by their sums; the same forms on all ranks."""
        if not tensors:
            return
        pieces = [_flat(tensor) for tensor in tensors]
        world, each = self.gang.world, pieces[0].element_size()
        size = max(1, min(self.bucket, sum(piece.nbytes for piece in pieces)) // each)
        size = -(-size // world) * world  # numbers in a bucket
        filled, room = [], size
        for piece in pieces:
            while len(piece):
                part, piece = piece[:room], piece[room:]
                filled.append(part)
                room -= len(part)
                if not room:
                    self._add_up_bucket(filled)
                    filled, room = [], size
        if filled:
            self._add_up_bucket(filled)

    def _add_up_bucket(self, parts: list[torch.Tensor]) -> None:
        world, lengths = self.gang.world, [len(part) for part in parts]
        length = sum(lengths)
        padded = -(-length // world) * world
        sent, got = self._rooms(padded, parts[0].dtype)
        torch.cat(parts, out=sent[:length])
        sent[length:].zero_()
        if sent.nbytes <= SMALL:
            rows = rows_of_all(self.gang, sent)
            total = tree_sum(lambda rank: rows[rank], range(world), _added)
            torch._foreach_copy_(parts, list(torch.split(total[:length], lengths)))
            return
        self._exchange(dist.all_to_all_single, got, sent)
        rows = got.view(world, -1)
        total = tree_sum(lambda rank: rows[rank], range(world), _added)
        self._exchange(all_gather, sent, total)
        torch._foreach_copy_(parts, list(torch.split(sent[:length], lengths)))

    def _exchange(self, collective: Any, into: torch.Tensor, of: torch.Tensor) -> None:
        """As bytes, which each backend can send."""
        into, of = into.view(torch.uint8), of.view(torch.uint8)
        with self.gang.exchanging():
            if not self._host:
                collective(into, of, group=self.gang.large)
                return
            here, there = (self._host[which][: len(one)] for which, one in enumerate((of, into)))
            here.copy_(of)
            collective(there, here, group=self.gang.large)
            into.copy_(there)

    def _rooms(self, length: int, dtype: torch.dtype) -> list[torch.Tensor]:
        needed = length * dtype.itemsize
        if not self._device or len(self._device[0]) < needed:
            self._device = [torch.empty(needed, dtype=torch.uint8, device=self.gang.device) for _ in range(2)]
            if _goes_through_host(self.gang):
                self._host = [torch.empty(needed, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        return [room[:needed].view(dtype) for room in self._device]


class GangSums:
    """What the updates of one trial exchange between the ranks: gradients, losses, and statistics of batch norms."""

    def __init__(self, gang: Gang, model: torch.nn.Module, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.gang = gang
        self.parameters = parameters
        self.norms = RankNorms(model)
        self._reduction = TreeReduction(gang)
        self._reduction.reserve(parameters)  # where there is no room, all ranks are told before they meet in it

    def whole(self, mine: WeightedSum) -> WeightedSum:
        """The loss and gradients of the whole batch, from those of each rank's slices; the same bits on all ranks.

        The gradients are in the memory of those of this rank, and running statistics are updated. Raises MateFailed
        where another rank has failed in this update.
        """
        tensors = [mine.loss, *(_settled(gradient) for gradient in mine.gradients)]
        kinds = torch.tensor([_kind(tensor) for tensor in tensors], dtype=torch.uint8)
        rows = self.gang.exchanged(self.gang.wish(), torch.cat([kinds, self.norms.said()]))
        kinds_of_all = rows[:, : len(kinds)]
        largest = kinds_of_all.max(dim=0).values
        joins = (kinds_of_all == _ABSENT) & (largest < _COMPLEX)  # who has none takes part all the same
        by_all = torch.where(joins, largest, kinds_of_all)
        alike = (by_all == largest).all(dim=0) & (largest != _SPARSE)
        with _ends_the_gang():
            found = self._summed(tensors, largest.tolist(), alike.tolist())
            self.norms.update(self.gang, rows[:, len(kinds) :], rows_of_all)
        return WeightedSum(cast("torch.Tensor", found[0]), found[1:])

    def _summed(
        self, tensors: list[torch.Tensor | None], largest: Sequence[int], alike: Sequence[bool]
    ) -> list[torch.Tensor | None]:
        """largest: of each tensor, the kind that it has somewhere. alike: whether it has that wherever it is."""
        found = list(tensors)
        for number, kind in enumerate(largest):
            if alike[number] and kind != _ABSENT and found[number] is None:
                found[number] = _negative_zeros(self.parameters[number - 1], _DTYPES[kind - _DENSE])
        for kind in range(_DENSE, _DENSE + len(_DTYPES)):
            of_kind = [one for one, its, same in zip(found, largest, alike, strict=True) if same and its == kind]
            self._reduction.add_up([one for one in of_kind if one is not None])
        whole = [number for number, same in enumerate(alike) if not same]
        if whole:
            for number, total in zip(whole, self._sums_of_whole([found[one] for one in whole], whole), strict=True):
                found[number] = total
        return found

    def _sums_of_whole(self, tensors: Sequence[torch.Tensor | None], numbers: Sequence[int]) -> list[Any]:
        """Of tensors that are sparse on some rank, say: each rank sends its own to all."""
        sent = b"".join(_as_bytes(tensor) for tensor in tensors)
        branches = []
        for data in self.gang.all_of(sent):
            read, found = 0, []
            for number in numbers:
                like = self.parameters[number - 1] if number else cast("torch.Tensor", tensors[0])
                tensor, used = _from_bytes(memoryview(data)[read:], like)
                read += used
                found.append(tensor)
            branches.append(WeightedSum(torch.zeros(()), found))
        return tree_sum(branches.__getitem__, range(len(branches)), WeightedSum.plus).gradients


def _added(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """As `WeightedSum.plus` adds."""
    torch._foreach_add_([left], [right])
    return left


@contextmanager
def _ends_the_gang() -> Iterator[None]:
    """An error within an exchange of gradients: the others wait there, so this rank cannot tell them, and goes."""
    try:
        yield
    except GangLost:
        raise
    except Exception as error:
        raise GangLost(f"an exchange of gradients failed: {type(error).__name__}: {str(error)[:200]}") from error


def _kind(tensor: torch.Tensor | None) -> int:
    if tensor is None:
        return _ABSENT
    return _SPARSE if tensor.is_sparse else _DENSE + _DTYPES.index(tensor.dtype)


def _settled(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """With memory of its own, as large as its numbers."""
    if gradient is None or gradient.is_sparse:
        return gradient
    plain = gradient.resolve_conj().resolve_neg()
    return plain if _is_dense(plain) else plain.contiguous()


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether its numbers are in one piece of memory, in any order of the dimensions."""
    if tensor.is_contiguous():
        return True
    reached = 1
    for stride, size in sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != reached:
            return False
        reached *= size
    return True


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor in the order of its memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _negative_zeros(parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A gradient that changes nothing that is added to it, in the layout that autograd gives one."""
    dense = _is_dense(parameter)
    layout = torch.preserve_format if dense else torch.contiguous_format
    found = torch.empty_like(parameter.detach(), dtype=dtype, memory_format=layout)
    (torch.view_as_real(found) if found.is_complex() else found).fill_(-0.0)
    return found


def _as_bytes(tensor: torch.Tensor | None) -> bytes:
    if tensor is None:
        return _PIECE.pack(-1, 0, 0)
    code = _DTYPES.index(tensor.dtype)
    if not tensor.is_sparse:
        return _PIECE.pack(code, 0, 0) + _content(tensor)
    head = _PIECE.pack(code, tensor.sparse_dim(), tensor._nnz())
    return head + _content(tensor.indices()) + _content(tensor.values())


def _content(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def _from_bytes(data: memoryview, like: torch.Tensor) -> tuple[torch.Tensor | None, int]:
    """The tensor that `_as_bytes` wrote, in the form of `like`; and how many bytes that was."""
    code, dimensions, rows = _PIECE.unpack_from(data)
    used = _PIECE.size
    if code < 0:
        return None, used

    def taken(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        nonlocal used
        found = torch.empty(tuple(shape), dtype=dtype)
        if found.nbytes:
            content = torch.frombuffer(bytearray(data[used : used + found.nbytes]), dtype=torch.uint8)
            found.view(-1).view(torch.uint8).copy_(content)
        used += found.nbytes
        return found.to(like.device)

    if not dimensions:
        dense = taken(like.shape, _DTYPES[code])
        found = _negative_zeros(like, _DTYPES[code])
        return found.copy_(dense), used
    indices = taken((dimensions, rows), torch.int64)
    values = taken((rows, *like.shape[dimensions:]), _DTYPES[code])
    return torch.sparse_coo_tensor(indices, values, like.shape, is_coalesced=True, check_invariants=False), used
