"""Tensors that show one memory until one of them is written into: torch's copy on write.

A write through any torch operation gives the tensor that is written into its own copy before. So two such tensors have
the values of a copy, without its memory. Whatever else asks for the address of a tensor (`data_ptr`, `numpy`, a
compiled kernel) could write unseen, and gets a copy as well: the bits are right, only memory is used. Here tensors are
read in ways that torch knows to be reading.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import torch

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a value
_PIECE = 2**24  # bytes read at a time


def address(tensor: torch.Tensor) -> int:
    """Where a tensor's values lie. Unlike `data_ptr` this is no access that might write."""
    start = int(torch._C._data_address(tensor))  # type: ignore[attr-defined] # of all that a view is a part of
    return start + int(tensor.storage_offset()) * tensor.element_size()


def is_shareable(tensor: torch.Tensor) -> bool:
    """Whether a tensor is an ordinary one: strided, with its own values, of torch's own class."""
    ordinary = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    return ordinary and not (tensor.is_quantized or tensor.is_inference() or tensor.is_conj() or tensor.is_neg())


def shown(tensor: torch.Tensor) -> torch.Tensor:
    """Another tensor that shows the same memory until one of both is written into.

    Raises RuntimeError for memory that is not torch's own: NumPy's, or that of a mapped file.
    """
    return torch._lazy_clone(tensor.detach())


def shown_whole(tensor: torch.Tensor) -> torch.Tensor | None:
    """As `shown`; None where that cannot be, and for a part of a larger memory, which would be kept whole for it."""
    if not is_shareable(tensor) or tensor.untyped_storage().nbytes() != tensor.nbytes:
        return None
    with suppress(RuntimeError):
        return shown(tensor)
    return None


def shown_elsewhere(known: Iterable[torch.Tensor]) -> set[int]:
    """The ids of those whose memory something shows that is not known: an array of NumPy's may write into it unseen.

    known: tensors that alias parameters, each of which is one user more.
    """
    strided = [tensor for tensor in known if tensor.layout is torch.strided]
    places = [tensor.untyped_storage()._cdata for tensor in strided]
    counts = Counter(places)
    # One more is torch's own object of the storage.
    use_count: Callable[[int], int] = torch._C._storage_Use_Count
    return {id(one) for one, at in zip(strided, places, strict=True) if use_count(at) > counts[at] + 2}


def kept_as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, which shows the same memory where that can be."""
    found = shown_whole(tensor)
    return tensor.detach().clone() if found is None else found


def in_one_memory(tensor: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """The tensor, or one of the same bits that shows the memory of another."""
    return kept_as_it_is(other) if other is not None and same_bits(tensor, other) else tensor


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have one form, strides included, and the same bits: 0.0 is not -0.0, NaNs may be equal."""
    if any(each.layout is not torch.strided or each.is_quantized for each in (one, other)):
        return False
    if any(each.is_conj() or each.is_neg() for each in (one, other)):  # values that are not the bits that lie there
        return False
    if (one.shape, one.stride(), one.dtype, one.device) != (other.shape, other.stride(), other.dtype, other.device):
        return False
    return address(one) == address(other) or torch.equal(_words(one), _words(other))


def _words(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    tensor = torch.view_as_real(tensor) if tensor.dtype.is_complex else tensor
    return tensor.view(_WORDS[tensor.element_size()])


def pieces(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor's values in their order, a piece at a time; of a strided tensor with values."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    for start in range(0, flat.numel(), _PIECE):
        yield flat[start : start + _PIECE].clone().cpu().numpy().data
